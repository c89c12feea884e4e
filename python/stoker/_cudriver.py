"""The CUDA driver through ctypes: the few calls that using another process's device memory takes.

No compiler, no CUDA toolkit, no import of torch: ``libcuda.so.1`` comes with the
GPU's driver. Names carry the suffixes that today's headers give them; the bare old
ones of ``_v2`` functions have 32-bit arguments. Who needs a table of all that
Stoker calls finds it in ``cufile/abi.h``; a test compares the two.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from . import _places
from .errors import ForkedError, NotFoundError, StokerError, UnavailableError

DEINITIALIZED: Final = 4  # the driver has ended with the process; nothing is left to undo
OUT_OF_MEMORY: Final = 2
NOT_PERMITTED: Final = 800
NOT_SUPPORTED: Final = 801
_NO_DEVICE: Final = 100
_USUAL_NAMES: Final = ("libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1")
_STUB_MARKER: Final = "stoker_stub"


class LegacyHandle(ctypes.Structure):
    """CUipcMemHandle: 64 bytes, passed by value."""

    _fields_ = (("reserved", ctypes.c_char * 64),)


class AccessDescription(ctypes.Structure):
    """CUmemAccessDesc: which device may do what with a mapping."""

    _fields_ = (("location_kind", ctypes.c_int), ("location", ctypes.c_int), ("access", ctypes.c_int))


_int, _size, _address = ctypes.c_int, ctypes.c_size_t, ctypes.c_uint64
_out = ctypes.c_void_p  # byref(...)
_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (_out,),
    "cuDeviceGet": (_out, _int),
    "cuDeviceGetUuid_v2": (_out, _int),
    "cuDevicePrimaryCtxRetain": (_out, _int),
    "cuDevicePrimaryCtxRelease_v2": (_int,),
    "cuCtxPushCurrent_v2": (ctypes.c_void_p,),
    "cuCtxPopCurrent_v2": (_out,),
    "cuCtxSynchronize": (),
    "cuMemImportFromShareableHandle": (_out, ctypes.c_void_p, _int),
    "cuMemAddressReserve": (_out, _size, _size, _address, ctypes.c_uint64),
    "cuMemMap": (_address, _size, _size, ctypes.c_uint64, ctypes.c_uint64),
    "cuMemSetAccess": (_address, _size, ctypes.POINTER(AccessDescription), _size),
    "cuMemUnmap": (_address, _size),
    "cuMemRelease": (ctypes.c_uint64,),
    "cuMemAddressFree": (_address, _size),
    "cuIpcOpenMemHandle_v2": (_out, LegacyHandle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (_address,),
    "cuMemGetAddressRange_v2": (_out, _out, _address),
    "cuMemGetInfo_v2": (_out, _out),
    "cuMemcpyDtoH_v2": (ctypes.c_void_p, _address, _size),
    "cuGetErrorName": (_int, _out),
    "cuGetErrorString": (_int, _out),
}


class CudaDriver:
    """The driver's library, loaded and initialised, in the process that made this object.

    Attributes
    ----------
    stub : bool
        Whether the library is Stoker's stand-in: device memory is host memory
        then, and no figure measured with it means anything.

    Raises
    ------
    UnavailableError
        There is no driver or no GPU here; the text says which.
    """

    def __init__(self, library: str | os.PathLike[str] | None = None) -> None:
        self._library = _load(library)
        self._process = os.getpid()
        self.stub = hasattr(self._library, _STUB_MARKER)
        self._functions: dict[str, Any] = {}
        for name, arguments in _FUNCTIONS.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise UnavailableError(
                    f"the CUDA driver lacks {name}, so it is older than CUDA 11.4",
                    str(self._library._name),
                    "update the GPU's driver (R470 or newer)",
                )
            function.argtypes, function.restype = arguments, ctypes.c_int
            self._functions[name] = function
        self.call("cuInit", 0)

    def answer(self, name: str, *arguments: Any) -> int:
        """What a function answers: 0, or a CUresult. In a forked child nothing is called: CUDA does not survive it."""
        if not self.usable():
            raise ForkedError(
                f"{name} was about to be called in a fork of the process that loaded the CUDA driver",
                "device memory",
                "start processes that use the GPU with the spawn method (multiprocessing.set_start_method('spawn'))",
            )
        return int(self._functions[name](*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; UnavailableError names it, the code and the driver's text if it does not answer 0."""
        if code := self.answer(name, *arguments):
            raise self.failure(name, code)

    def usable(self) -> bool:
        """Whether this is the process that loaded the driver."""
        return os.getpid() == self._process

    def failure(self, name: str, code: int) -> StokerError:
        """The exception for a code that a function answered."""
        said = f"{self._text('cuGetErrorName', code)}: {self._text('cuGetErrorString', code)}"
        return UnavailableError(f"{name} answered {code} ({said})", "CUDA driver", _remedy(code))

    def _text(self, function: str, code: int) -> str:
        text = ctypes.c_char_p()
        if self._functions[function](code, ctypes.byref(text)) == 0 and text.value:
            return text.value.decode(errors="replace")
        return "a code that this driver has no text for"

    def devices(self) -> list[bytes]:
        """The UUIDs of the GPUs (or MIG instances) that this process may use, in the order of their ordinals."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        found = []
        for ordinal in range(count.value):
            uuid = (ctypes.c_ubyte * 16)()
            self.call("cuDeviceGetUuid_v2", ctypes.byref(uuid), self.device(ordinal))
            found.append(bytes(uuid))
        return found

    def device(self, ordinal: int) -> int:
        """The driver's name for the device of an ordinal."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ordinal)
        return device.value

    def ordinal(self, uuid: bytes) -> int:
        """The ordinal of a GPU in this process, which CUDA_VISIBLE_DEVICES may have changed.

        torch counts the same devices in the same order.

        Raises
        ------
        NotFoundError
            This process does not see that GPU.
        """
        devices = self.devices()
        if uuid in devices:
            return devices.index(uuid)
        seen = ", ".join(map(gpu_name, devices)) or "none"
        raise NotFoundError(
            f"the memory is on a GPU that this process does not see; it sees: {seen}",
            gpu_name(uuid),
            "add that GPU to CUDA_VISIBLE_DEVICES, or ask for memory on one that is there",
        )

    def retain(self, device: int) -> int:
        """Retain a device's primary context: cuFile and torch both work in it, and in no other."""
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        return context.value or 0

    def memory(self, ordinal: int) -> tuple[int, int]:
        """Free and total memory of a GPU in bytes, all processes' together."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        device = self.device(ordinal)
        context = self.retain(device)
        try:
            with self.current(context):
                self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            self.answer("cuDevicePrimaryCtxRelease_v2", device)
        return free.value, total.value

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """A retained context, current in this thread; what was current before is so again afterwards."""
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.answer("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def gpu_name(uuid: bytes) -> str:
    """A GPU's UUID as nvidia-smi writes it."""
    text = uuid.hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _load(library: str | os.PathLike[str] | None) -> ctypes.CDLL:
    chosen = os.fspath(library) if library is not None else _places.cuda_library()
    names: Sequence[str] = (chosen,) if chosen else _USUAL_NAMES
    reasons = []
    for name in names:
        try:
            return ctypes.CDLL(name, ctypes.RTLD_LOCAL)
        except OSError as error:
            reasons.append(str(error))
    raise UnavailableError(
        f"the CUDA driver could not be loaded: {'; '.join(reasons)}",
        names[0],
        "without a GPU use device='cpu'; with one install NVIDIA's driver, in a container nvidia-container-toolkit as "
        "well, and start it with --gpus all; STOKER_CUDA_LIB names a library elsewhere",
    )


def _remedy(code: int) -> str:
    if code == OUT_OF_MEMORY:
        return "free device memory (nvidia-smi says who holds it), or share smaller slabs"
    if code == _NO_DEVICE:
        return "no GPU is visible: check nvidia-smi, CUDA_VISIBLE_DEVICES, and --gpus in a container"
    if code in (NOT_PERMITTED, NOT_SUPPORTED):
        return "device memory cannot be shared here (a sandbox, or MIG): use host memory; `stoker doctor` says more"
    return "`stoker doctor` checks the driver; `dmesg | grep -i nvrm` shows what it reported"

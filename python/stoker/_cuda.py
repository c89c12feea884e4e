"""Slabs of device memory that another process exported: mapped here, and tensors over them.

1. ``receive_slab(connection)`` takes the message and descriptor (:mod:`._slab`),
   finds the GPU by its UUID, and maps the memory in the device's primary context,
   the one that torch uses. The descriptor is closed: the mapping keeps the memory.
2. ``Slab.tensor(shape, dtype, offset)`` makes a tensor over a part of it, without a
   copy, by DLPack; where that fails, over a storage made from the bare pointer.
3. The mapping stays until the slab is closed *and* its last tensor is gone. Then the
   device is synchronised, so that nothing still reads, and the memory is unmapped
   before its addresses are freed.

Memory is mapped for reading unless ``writable=True``, so that no trainer can spoil
what others read. **A write through a tensor over it is then an illegal address: it
ends the CUDA context of this process.** Use ``tensor.clone()`` for what you change.
Legacy IPC knows no read-only mapping.

The exporter may die at any time: what is mapped stays mapped, and holds its bytes.
In a forked child nothing is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import weakref
from collections.abc import Sequence
from math import prod
from operator import index
from types import TracebackType
from typing import Any, Final

from ._cudriver import DEINITIALIZED, AccessDescription, CudaDriver, LegacyHandle, gpu_name
from ._dlpack import CPU, CUDA, ByteArray
from ._slab import KIND_DESCRIPTOR, SlabMessage, receive
from .errors import ConflictError, InvalidError, OutOfRangeError, ProtocolError, UnavailableError

_POSIX_DESCRIPTOR: Final = 1  # CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
_ON_DEVICE: Final = 1  # CU_MEM_LOCATION_TYPE_DEVICE
_READ: Final = 1  # CU_MEM_ACCESS_FLAGS_PROT_READ
_READ_WRITE: Final = 3  # CU_MEM_ACCESS_FLAGS_PROT_READWRITE
_LAZY_PEER_ACCESS: Final = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS


def receive_slab(connection: socket.socket, *, writable: bool = False, driver: CudaDriver | None = None) -> Slab:
    """Receive one slab from a process that shares it, and map it.

    Parameters
    ----------
    connection : socket.socket
        A connected Unix socket; its timeout holds.
    writable : bool
        Map it for writing as well, which the other readers of the slab will see.
    driver : CudaDriver, optional
        Loaded if it is not given.

    Raises
    ------
    ProtocolError, DaemonGoneError
        See :func:`._slab.receive`.
    NotFoundError
        This process does not see the slab's GPU.
    UnavailableError
        There is no driver, or it refused.
    """
    message, descriptor = receive(connection)
    try:
        return Slab(driver or CudaDriver(), message, descriptor, writable)
    finally:
        if descriptor is not None:
            os.close(descriptor)


class Slab:
    """A slab of another process, mapped in this one; closed with :meth:`close` or as a context manager.

    Attributes
    ----------
    nbytes, mapped_bytes : int
        Its length, and that of the mapping, which is rounded up.
    device : str
        UUID of its GPU, as nvidia-smi writes it.
    ordinal : int
        That GPU's number in this process, for the driver and for torch.
    writable, stub : bool
        Whether tensors over it may be written to; whether this is Stoker's stand-in
        for the driver, and the memory that of the host.
    """

    def __init__(self, driver: CudaDriver, message: SlabMessage, descriptor: int | None, writable: bool) -> None:
        self.nbytes = message.slab_bytes
        self.mapped_bytes = message.mapped_bytes
        self.device = gpu_name(message.device)
        self.ordinal = driver.ordinal(message.device)
        self.writable = writable or message.kind != KIND_DESCRIPTOR
        self.stub = driver.stub
        self._driver = driver
        self._mapping: _Mapping | None = _Mapping(driver, self.ordinal, message, descriptor, self.writable)
        self._holds: weakref.WeakSet[_Hold] = weakref.WeakSet()

    def __repr__(self) -> str:
        state = "closed" if self._mapping is None else "writable" if self.writable else "read-only"
        label = ", STUB" if self.stub else ""
        return f"<Slab of {self.nbytes} bytes on {self.device}, {state}, {self.tensors} tensors{label}>"

    @property
    def tensors(self) -> int:
        """How many tensors made by :meth:`tensor` still have their memory here; views of one count once."""
        return len(self._holds)

    @property
    def address(self) -> int:
        """Where it is mapped, valid until it is closed."""
        return self._open().address

    def tensor(self, shape: Sequence[int], dtype: Any = "uint8", offset: int = 0, *, lease: object = None) -> Any:
        """A tensor of ``shape`` over the bytes from ``offset`` on, which are the exporter's: nothing is copied.

        Parameters
        ----------
        shape : sequence of int
            Its elements lie without gaps, the last dimension fastest.
        dtype : torch.dtype or str
            Any that torch has, ``"bfloat16"`` and ``"float8_e4m3fn"`` among them.
        offset : int
            In bytes; a multiple of the element size.
        lease : object
            Kept as long as the tensor's memory is in use; the right to those bytes,
            which ends by itself when it is dropped. Work on the GPU that was queued
            before may still read then: who gives bytes back waits for its stream.

        Raises
        ------
        OutOfRangeError
            The slab is shorter than that.
        InvalidError
            A shape, dtype or offset that can never be.
        ConflictError
            The slab is closed.
        """
        try:
            import torch
        except ImportError as error:
            raise UnavailableError(
                f"a tensor over device memory needs torch, and it cannot be imported: {error}",
                "torch",
                "install torch (pip install torch), or use Slab.read, which copies into host memory",
            ) from error
        kind = _torch_type(torch, dtype)
        shape, offset = tuple(map(index, shape)), index(offset)  # numpy's numbers would wrap round
        hold = self._hold(lease)
        count = self._extent(shape, kind.itemsize, offset)
        device = torch.device("cpu") if self.stub else torch.device("cuda", self.ordinal)
        if count == 0:  # nothing to point to
            return torch.empty(shape, dtype=kind, device=device)
        flat = bytes_at(torch, hold.mapping.address + offset, count, device, hold)
        return flat.view(kind).view(shape)

    def read(self, offset: int, count: int) -> bytes:
        """A copy of ``count`` bytes from ``offset`` on in host memory; needs no torch."""
        count, offset = index(count), index(offset)
        hold = self._hold(None)
        mapping = hold.mapping
        self._extent((count,), 1, offset)
        into = ctypes.create_string_buffer(count)
        with self._driver.current(mapping.context):
            if count:
                self._driver.call("cuMemcpyDtoH_v2", into, mapping.address + offset, count)
        return into.raw

    def close(self) -> bool:
        """Let go of the slab; again and again does nothing.

        Returns whether its memory is unmapped now. It is not while tensors over it
        live: the last of them unmaps it.
        """
        mapping, self._mapping = self._mapping, None
        if mapping is not None and not self._holds:
            mapping.release()
        return not self._holds

    def _hold(self, lease: object) -> _Hold:
        """Keep the mapping, whatever another thread closes: it is held before that is looked at, and :meth:`close`
        looks who holds it after it has closed.
        """
        hold = _Hold(self._open(), lease)
        self._holds.add(hold)
        self._open()
        return hold

    def _open(self) -> _Mapping:
        if self._mapping is None:
            raise ConflictError("the slab is closed", f"slab on {self.device}", "receive it again from its exporter")
        return self._mapping

    def _extent(self, shape: tuple[int, ...], item_bytes: int, offset: int) -> int:
        """How many bytes a part has, once it is known to lie in the slab."""
        where = f"slab on {self.device}"
        if any(length < 0 for length in shape) or offset < 0:
            raise InvalidError(
                f"shape {shape} from byte {offset} on has a negative number",
                where,
                "give lengths and offsets of 0 or more",
            )
        if offset % item_bytes:
            raise InvalidError(
                f"byte {offset} is no multiple of the element size, {item_bytes}",
                where,
                "give an aligned offset, or take bytes and view them",
            )
        count = prod(shape) * item_bytes
        if offset + count > self.nbytes:
            raise OutOfRangeError(
                f"bytes {offset} to {offset + count} do not lie in a slab of {self.nbytes}", where, "ask for less"
            )
        return count

    def __enter__(self) -> Slab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Hold:
    """What a tensor keeps alive: the mapping under it, and the lease that it was made under."""

    __slots__ = ("__weakref__", "lease", "mapping")

    def __init__(self, mapping: _Mapping, lease: object) -> None:
        self.mapping = mapping
        self.lease = lease


class _Mapping:
    """Where a slab lies in this process. Unmapped by :meth:`release`, else when nobody holds it any more.

    When the process ends it is left to the driver: kernels may still read, and the
    driver's library may already be gone.
    """

    def __init__(
        self, driver: CudaDriver, ordinal: int, message: SlabMessage, descriptor: int | None, writable: bool
    ) -> None:
        with contextlib.ExitStack() as undo:
            device = driver.device(ordinal)
            self.context = driver.retain(device)
            undo.callback(driver.answer, "cuDevicePrimaryCtxRelease_v2", device)
            with driver.current(self.context):
                if descriptor is None:
                    self.address = _open_legacy(driver, message)
                    mapped = None
                else:
                    self.address = _map(driver, device, message.mapped_bytes, descriptor, writable)
                    mapped = message.mapped_bytes
            undo.pop_all()
        self.release = weakref.finalize(self, _unmap, driver, device, self.context, self.address, mapped)
        self.release.atexit = False


def _map(driver: CudaDriver, device: int, mapped: int, descriptor: int, writable: bool) -> int:
    """Map an allocation at addresses of this process; the handle is released, the mapping holds the memory."""
    handle, address = ctypes.c_uint64(), ctypes.c_uint64()
    access = AccessDescription(_ON_DEVICE, device, _READ_WRITE if writable else _READ)
    driver.call("cuMemImportFromShareableHandle", ctypes.byref(handle), descriptor, _POSIX_DESCRIPTOR)
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as always:
        always.callback(driver.answer, "cuMemRelease", handle)
        driver.call("cuMemAddressReserve", ctypes.byref(address), mapped, 0, 0, 0)
        undo.callback(driver.answer, "cuMemAddressFree", address, mapped)
        driver.call("cuMemMap", address, mapped, 0, handle, 0)
        undo.callback(driver.answer, "cuMemUnmap", address, mapped)
        driver.call("cuMemSetAccess", address, mapped, ctypes.byref(access), 1)
        undo.pop_all()
    return address.value


def _open_legacy(driver: CudaDriver, message: SlabMessage) -> int:
    address = ctypes.c_uint64()
    handle = LegacyHandle.from_buffer_copy(message.handle)
    code = driver.answer("cuIpcOpenMemHandle_v2", ctypes.byref(address), handle, _LAZY_PEER_ACCESS)
    if code:
        reason = driver.failure("cuIpcOpenMemHandle_v2", code)
        raise UnavailableError(
            f"{reason.what}; the memory was exported by process {message.pid}",
            reason.where,
            "legacy CUDA IPC needs one PID and IPC namespace (docker run --ipc=host --pid=host), another process than "
            "the exporter, and no MIG",
        )
    there = _bytes_behind(driver, address.value)
    if there is not None and there < message.slab_bytes:
        driver.answer("cuIpcCloseMemHandle", address)
        raise ProtocolError(
            f"a slab was said to have {message.slab_bytes} bytes, and its memory has {there}",
            f"process {message.pid}, which sent it",
            "start that process again; it may be of another version than this one",
        )
    return address.value


def _bytes_behind(driver: CudaDriver, address: int) -> int | None:
    """How many bytes of memory follow an address; None where the driver does not answer.

    A legacy handle says nothing of its size, and its sender may lie. No document promises
    an answer for memory of another process: without one the sender is believed.
    """
    base, count = ctypes.c_uint64(), ctypes.c_size_t()
    if driver.answer("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(count), address):
        return None
    return base.value + count.value - address


def _unmap(driver: CudaDriver, device: int, context: int, address: int, mapped: int | None) -> None:
    """Wait until the device is idle, then undo a mapping (``mapped`` bytes; None: legacy IPC), last step first.

    Every step is tried, also after one has failed; the first failure is raised. A
    forked child has no part in its parent's mappings.
    """
    if not driver.usable():
        return
    failures: list[tuple[str, int]] = []

    def step(name: str, *arguments: Any) -> None:
        code = driver.answer(name, *arguments)
        if code not in (0, DEINITIALIZED):
            failures.append((name, code))

    pushed = driver.answer("cuCtxPushCurrent_v2", context)
    if pushed not in (0, DEINITIALIZED):
        failures.append(("cuCtxPushCurrent_v2", pushed))
    step("cuCtxSynchronize")
    if mapped is None:
        step("cuIpcCloseMemHandle", address)
    else:
        step("cuMemUnmap", address, mapped)
        step("cuMemAddressFree", address, mapped)
    if pushed == 0:  # else it would be another's context
        step("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    step("cuDevicePrimaryCtxRelease_v2", device)
    if failures:
        raise driver.failure(*failures[0])


def bytes_at(torch: Any, address: int, count: int, device: Any, owner: object) -> Any:
    """A tensor of bytes over foreign memory that keeps ``owner`` until its last view is gone."""
    kind = (CPU, 0) if device.type == "cpu" else (CUDA, device.index)
    try:
        return torch.from_dlpack(ByteArray(address, count, kind, owner))
    except (AttributeError, BufferError, RuntimeError):  # a torch that was built or patched without it
        return bytes_at_pointer(torch, address, count, device, owner)


def bytes_at_pointer(torch: Any, address: int, count: int, device: Any, owner: object) -> Any:
    """The same through a private function of torch (2.1 and newer have it), which knows no owner.

    The storage's Python object lives as long as the storage does, so a finalizer on
    it is what holds the owner.
    """
    construct = getattr(torch._C, "_construct_storage_from_data_pointer", None)
    if construct is None:
        raise UnavailableError(
            f"torch {torch.__version__} can make no tensor over device memory that is not its own",
            "torch",
            "install torch 2.1 or newer",
        )
    storage = construct(address, device, count)
    weakref.finalize(storage, _nothing, owner).atexit = False
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage, 0, (count,), (1,))


def _nothing(_: object) -> None:
    """What a finalizer does whose only purpose is to have held its argument."""


def _torch_type(torch: Any, dtype: Any) -> Any:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise InvalidError(
            f"torch {torch.__version__} has no element type {dtype!r}",
            "dtype",
            "pass a torch.dtype, or the name of one",
        )
    return found

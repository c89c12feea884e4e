"""Foreign memory as an array of bytes that any DLPack consumer takes, made with ctypes alone.

DLPack (https://dmlc.github.io/dlpack/latest/c_api.html) hands over a struct in a
capsule, and the consumer calls a deleter when the last tensor over the memory is
gone. So an owner given here lives exactly as long as the tensors do. The old,
unversioned struct is what is made: every torch takes it, and the read-only flag of
the new one is not enforced by any. Elements are bytes, because element types that
DLPack got late (the 8-bit floats) are refused by older consumers; a view of bytes
as another type is not.

The deleter may run in any thread, also in the middle of another finalizer. It takes
no lock: it drops one entry of a dictionary, which the interpreter does as one step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

CPU: Final = 1  # kDLCPU
CUDA: Final = 2  # kDLCUDA
_UNSIGNED: Final = 1  # kDLUInt
_NAME: Final = b"dltensor"  # a consumer renames the capsule to used_dltensor


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dimensions", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


if ctypes.sizeof(_Tensor) != 48 or ctypes.sizeof(_Managed) != 64:
    raise AssertionError("the structs are not DLPack's")

# Address of the struct -> what must outlive the tensor: the struct, its numbers, the owner.
_exported: Final[dict[int, tuple[Any, ...]]] = {}


def _deleter(address: int, drop: Callable[[int, None], object] = _exported.pop) -> None:
    drop(address, None)


_is_valid: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer_in: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def _destructor(
    capsule: int,
    valid: Callable[[int, bytes], int] = _is_valid,
    pointer: Callable[[int, bytes], int] = _pointer_in,
    drop: Callable[[int, None], object] = _exported.pop,
    name: bytes = _NAME,
) -> None:
    """Of a capsule: if nobody consumed it, its memory is let go here."""
    if valid(capsule, name):
        drop(pointer(capsule, name), None)


def _callback(function: Callable[[int], None]) -> int:
    """The address of a C function that calls ``function`` with a pointer, for as long as the process lives.

    It is never freed: a tensor that a module's globals keep is deleted while the
    interpreter ends, when this module's own globals may be gone already. That is
    also why the functions hold what they use as defaults.
    """
    thunk = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thunk))
    address = ctypes.cast(thunk, ctypes.c_void_p).value
    if address is None:
        raise AssertionError("a callback has no address")
    return address


_deleter_address: Final = _callback(_deleter)
_destructor_address: Final = _callback(_destructor)


class ByteArray:
    """``count`` bytes at ``address``, for ``from_dlpack``; ``owner`` lives until the last tensor over them is gone.

    ``device`` is DLPack's: :data:`CPU` or :data:`CUDA`, and the device's number.
    Nobody checks that the memory is there: that is the owner's business.
    """

    __slots__ = ("_address", "_count", "_device", "_owner")

    def __init__(self, address: int, count: int, device: tuple[int, int], owner: object) -> None:
        self._address = address
        self._count = count
        self._device = device
        self._owner = owner

    def __dlpack_device__(self) -> tuple[int, int]:
        """The kind of device and its number."""
        return self._device

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: object = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule with the memory. It is whole when it is handed out, so a stream has nothing to wait for.

        Raises
        ------
        BufferError
            A copy is asked for, or another device: this is the memory itself.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self._device):
            raise BufferError("this is memory of another process itself: take it as it is, and copy the array")
        shape, strides = (ctypes.c_int64 * 1)(self._count), (ctypes.c_int64 * 1)(1)
        tensor = _Tensor(self._address, _Device(*self._device), 1, _Type(_UNSIGNED, 8, 1), shape, strides, 0)
        managed = _Managed(tensor, None, _deleter_address)
        address = ctypes.addressof(managed)
        _exported[address] = (managed, shape, strides, self._owner)
        try:
            return _new_capsule(address, _NAME, _destructor_address)
        except BaseException:
            del _exported[address]
            raise


def exports() -> int:
    """How many arrays consumers hold at the moment."""
    return len(_exported)

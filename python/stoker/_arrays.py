"""Arrays over borrowed memory, as torch tensors or numpy arrays.

Nothing is copied here except by ``convert``. A result keeps the buffer that it
was built over alive. torch is imported only when :class:`TorchArrays` is made.
"""

from __future__ import annotations

import io
import operator
import sys
from collections.abc import Sequence
from math import prod
from typing import Any, Final, Protocol

import numpy as np

from .errors import InvalidError

DTYPES: Final = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64"),
)


class Arrays(Protocol):
    """What building a batch needs of an array library. Element types are named as numpy names them."""

    def over(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int) -> Any:
        """An array of ``shape`` over ``buffer`` from byte ``offset`` on."""

    def convert(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int, target: Any) -> Any:
        """The same elements as ``target``, an element type of this library, in memory of their own."""

    def target(self, dtype: Any) -> Any:
        """The library's element type for what a user passed as ``dtype=``."""

    def has(self, dtype: str) -> bool:
        """Whether the library has such an element type."""

    def check(self, dtype: str) -> None:
        """Raise InvalidError if the library has no such element type."""

    def stack(self, values: Sequence[Any]) -> Any:
        """Arrays, or numbers, of several samples as one array with a new first dimension."""


class NumpyArrays:
    """Arrays as ndarrays."""

    def over(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int) -> Any:
        """See :class:`Arrays`."""
        return np.ndarray(tuple(shape), dtype, buffer, offset)

    def convert(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int, target: Any) -> Any:
        """See :class:`Arrays`."""
        return self.over(buffer, dtype, shape, offset).astype(target)

    def target(self, dtype: Any) -> Any:
        """See :class:`Arrays`. A torch dtype is understood by its name."""
        name = _name(dtype)
        try:
            return np.dtype(name if name in DTYPES else dtype)
        except TypeError:
            raise _no_dtype(dtype, "numpy") from None

    def has(self, dtype: str) -> bool:
        """See :class:`Arrays`; numpy has them all."""
        return True

    def check(self, dtype: str) -> None:
        """See :class:`Arrays`; numpy has them all."""

    def stack(self, values: Sequence[Any]) -> Any:
        """See :class:`Arrays`."""
        return np.stack(values)


class TorchArrays:
    """Arrays as CPU tensors."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._dtypes: dict[str, Any] = {
            name: getattr(torch, name) for name in DTYPES if isinstance(getattr(torch, name, None), torch.dtype)
        }

    def over(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int) -> Any:
        """See :class:`Arrays`."""
        count = prod(shape)
        kind = self._dtypes[dtype]
        if count == 0:  # torch.frombuffer refuses it
            return self._torch.empty(tuple(shape), dtype=kind)
        flat = self._torch.frombuffer(buffer, dtype=kind, count=count, offset=offset)
        return flat if len(shape) == 1 else flat.view(*shape)

    def convert(self, buffer: Any, dtype: str, shape: Sequence[int], offset: int, target: Any) -> Any:
        """See :class:`Arrays`. Works for element types that torch lacks."""
        if dtype in self._dtypes:
            return self.over(buffer, dtype, shape, offset).to(target, copy=True)
        wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}[dtype]
        array = np.ndarray(tuple(shape), dtype, buffer, offset).astype(wider)
        return self._torch.from_numpy(array).to(target)

    def target(self, dtype: Any) -> Any:
        """See :class:`Arrays`. Numpy dtypes and names are understood."""
        if isinstance(dtype, self._torch.dtype):
            return dtype
        found = self._dtypes.get(_name(dtype))
        if found is None:
            raise _no_dtype(dtype, f"torch {self._torch.__version__}")
        return found

    def has(self, dtype: str) -> bool:
        """See :class:`Arrays`. torch has uint16, uint32 and uint64 from 2.3 on."""
        return dtype in self._dtypes

    def check(self, dtype: str) -> None:
        """See :class:`Arrays`."""
        if not self.has(dtype):
            raise _no_dtype(dtype, f"torch {self._torch.__version__}")

    def stack(self, values: Sequence[Any]) -> Any:
        """See :class:`Arrays`. As DataLoader does it."""
        return self._torch.utils.data.default_collate(list(values))


def load_pth(view: memoryview) -> Any:
    """What ``torch.save`` wrote, which is a pickle: only for data that is trusted. Tensors come to the CPU."""
    import torch

    return torch.load(io.BytesIO(view), map_location="cpu", weights_only=False)


def moved(value: Any, device: Any, non_blocking: bool) -> Any:
    """A value with the tensors in it on a device: itself, or those of lists, tuples and dictionaries.

    What holds no tensor that moves is the very same object.
    """
    torch = sys.modules.get("torch")  # where nobody imported it there are no tensors
    if torch is not None and isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=non_blocking)
    if type(value) is dict:
        entries = {name: moved(item, device, non_blocking) for name, item in value.items()}
        return entries if any(entries[name] is not item for name, item in value.items()) else value
    if type(value) in (list, tuple):
        items = [moved(item, device, non_blocking) for item in value]
        return type(value)(items) if any(map(operator.is_not, items, value)) else value
    return value


def _name(dtype: Any) -> str:
    """numpy's name of an element type given as a name, a numpy type or a torch dtype."""
    if isinstance(dtype, str):
        return dtype.removeprefix("torch.")
    text = str(dtype)
    if text.startswith("torch."):
        return text.removeprefix("torch.")
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return text


def _no_dtype(dtype: Any, library: str) -> InvalidError:
    return InvalidError(
        f"{library} has no element type {dtype}",
        "dtype",
        "pass dtype=torch.int64 (each batch is converted, which copies it), or return_tensors='numpy'; "
        "torch has uint16 and uint32 from 2.3 on",
    )

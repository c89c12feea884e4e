"""Single samples: what ``ds[i]`` returns and what a ``transform=`` is called with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._decode import PRESENT, Parts, make_parts
from ._shown import shown
from .batch import Batch, Column, Ragged
from .errors import ProtocolError
from .options import Options

if TYPE_CHECKING:
    from .catalog import Found


class SampleName(NamedTuple):
    """Where a sample comes from: its file, and its key within the dataset."""

    file: str
    key: str


AskNames = Callable[[Sequence[int]], list[SampleName]]


class Names:
    """Names of the samples of one batch: asked for when the first is wanted, then all at once. Safe for threads.

    Parameters
    ----------
    ask : callable
        Returns the names of samples by their numbers.
    numbers : sequence of int
        Of the samples, by row.
    """

    def __init__(self, ask: AskNames, numbers: Sequence[int]) -> None:
        self._ask = ask
        self.numbers = numbers
        self._lock = threading.Lock()
        self._found: list[SampleName] | None = None

    def __getitem__(self, row: int) -> SampleName:
        if self._found is None:
            with self._lock:
                if self._found is None:
                    self._found = self._ask(self.numbers)
        return self._found[row]

    def try_row(self, row: int) -> SampleName:
        """The name of a row for a message: empty if the daemon cannot be asked."""
        try:
            return self[row]
        except Exception:
            return SampleName("", "")

    def describe(self, row: int) -> str:
        """A row's sample in words, for a message."""
        return describe(self.numbers[row], self.try_row(row))


def describe(number: int, name: SampleName) -> str:
    """A sample in words, for a message: its name can be printed, whatever it is."""
    if not name.key:
        return f"sample {number}"
    sample = f"{shown(name.key)} (sample {number})"
    return sample if name.file in ("", name.key) else f"{shown(name.file)}: {sample}"


class Sample(dict[str, Any]):
    """One sample: its columns by name.

    ``x`` and ``y``; or ``data`` (bytes) and ``label`` (int); or what the parts of a
    tar sample hold, by their types. ``ds[i]`` returns one in memory of its own. A
    ``transform=`` gets one whose bytes are memoryviews, and whose arrays are views, of shared
    memory: a result that keeps one of them keeps the whole batch's memory.

    Attributes
    ----------
    index : int
        Its number in the dataset.
    """

    __slots__ = ("__weakref__", "_names", "_row", "index")

    index: int
    _names: Names | SampleName
    _row: int

    def __init__(self, columns: dict[str, Any] | None = None) -> None:
        super().__init__(columns or {})
        self.index, self._row = -1, 0
        self._names = SampleName("", "")

    @property
    def key(self) -> str:
        """Its key: ``__key__`` in a tar dataset, else its path in the dataset."""
        return self._name().key

    @property
    def file(self) -> str:
        """The path, in the dataset, of the file or shard that it lies in."""
        return self._name().file

    def _name(self) -> SampleName:
        if isinstance(self._names, Names):
            self._names = self._names[self._row]
        return self._names

    def __copy__(self) -> Sample:
        # torch's collate copies a mapping and then replaces its values.
        return make_sample(dict(self), self.index, self._names, self._row)

    def __reduce__(self) -> tuple[Any, ...]:
        return (make_sample, (dict(self), self.index, self._name()))


def make_sample(columns: dict[str, Any], index: int, names: Names | SampleName, row: int = 0) -> Sample:
    """A sample whose name is ``names``, or will be asked for there."""
    sample = Sample(columns)
    sample.index, sample._names, sample._row = index, names, row
    return sample


class Rows:
    """The samples of a batch, made one by one in whichever thread asks.

    Parameters
    ----------
    batch : Batch
        As it came, before :meth:`Parts.finish`. Rows refer to its memory.
    parts : Parts or None
    ask : callable
        As for :class:`Names`.
    """

    def __init__(self, batch: Batch, parts: Parts | None, ask: AskNames) -> None:
        self.numbers: list[int] = batch._numbers()
        self.names = Names(ask, self.numbers)
        masks = parts.take_presence(batch) if parts else None
        self._columns = [(name, self._reader(name, column, parts, masks)) for name, column in batch.items()]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Sample:
        """The sample of a row; raises CorruptError or InvalidError if a part of it cannot be read."""
        columns = {name: read(row) for name, read in self._columns}
        return make_sample(columns, self.numbers[row], self.names, row)

    @staticmethod
    def _reader(name: str, column: Any, parts: Parts | None, masks: list[int] | None) -> Callable[[int], Any]:
        if not isinstance(column, Ragged):
            read: Callable[[int], Any] = (column.tolist() if len(column.shape) == 1 else column).__getitem__
            return read
        if parts is None:
            return column.__getitem__
        value = parts.value
        if masks is None:
            return lambda row: value(name, column[row])
        bit = parts.columns.index(name)
        return lambda row: value(name, column[row]) if masks[row] >> bit & 1 else None


def found_columns(columns: Sequence[Column], found: Found) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of one sample that the daemon sent, as arrays over its memory.

    Raises
    ------
    ProtocolError
        A column lies outside of the sample's bytes.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for column, described in zip(columns, found.columns, strict=True):
        offset, kind = described.get("offset"), np.dtype(column.dtype)
        if not isinstance(offset, int) or offset < 0:
            offset = len(found.data) + 1
        shape = column.shape
        if column.ragged:
            shape = (int(described.get("bytes") or 0) // kind.itemsize,)
        if offset + prod(shape) * kind.itemsize > len(found.data):
            raise ProtocolError(
                f"column {shown(column.name)} of a sample lies outside of its {len(found.data)} bytes",
                shown(found.name.key),
            )
        arrays[column.name] = np.ndarray(shape, kind, found.data, offset)
    return arrays


def found_values(columns: Sequence[Column], found: Found, options: Options) -> dict[str, Any]:
    """What one sample of whole files or parts holds: typed values, bytes, numbers; None for parts that it lacks.

    Raises
    ------
    CorruptError, InvalidError
        A part cannot be read, or is a pickle, which is not allowed.
    """
    arrays = found_columns(columns, found)
    mask = arrays.pop(PRESENT, None)
    parts = [column for column in columns if column.dtype == "uint8" and (column.shape or column.ragged)]
    known = make_parts("tar", parts, options) or Parts([column.name for column in parts], {})
    values: dict[str, Any] = {}
    for bit, (name, array) in enumerate(arrays.items()):
        if mask is not None and not int(mask) >> bit & 1:
            values[name] = None
        elif name in known.columns:
            value = known.value(name, array.data)
            values[name] = bytes(value) if isinstance(value, memoryview) else value
        else:
            values[name] = array if array.shape else array.item()
    return values

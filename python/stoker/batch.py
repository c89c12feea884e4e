"""Batches: dictionaries of tensors over a slot of shared memory.

A slot holds ``u32 columns, u32 rows``, then a table of four u64 a column
(values offset and bytes, offsets offset and bytes, all from the slot's start),
then the columns, each on a multiple of 64 bytes. A ragged column is its values
end to end, and int64[rows + 1] offsets into them, counted in elements. The last
column is ``index``: int64[rows], the sample numbers.

Nothing is copied. As long as a batch or any tensor of it lives, its slot stays
the trainer's; see :mod:`stoker.ring`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ._arrays import DTYPES, Arrays, moved
from ._layout import Entry, column_table_struct
from ._shown import shown, shown_names
from .errors import InvalidError, ProtocolError
from .stats import Waited, in_seconds

_ITEM_BYTES: Final = {name: np.dtype(name).itemsize for name in DTYPES}
_VIEWS: Final = {"x": np.s_[:, :-1], "y": np.s_[:, 1:]}  # of tokens
_READY: Final = Waited(0.0, {})


class Column(NamedTuple):
    """One field of every sample: element type, shape without the batch dimension, or ragged."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    ragged: bool


class Ragged:
    """A column whose samples have different lengths: a sequence of memoryviews.

    Attributes
    ----------
    values : tensor or ndarray, shape [sum of lengths]
        The samples end to end.
    offsets : tensor or ndarray of int64, shape [rows + 1]
        Sample i is ``values[offsets[i]:offsets[i + 1]]``.

    ``len``, indexing and iteration give one writable memoryview a sample, over
    the same memory. It is no ``collections.abc.Sequence`` on purpose: torch's
    collate functions would take it apart.
    """

    __slots__ = ("__weakref__", "_cuts", "_view", "offsets", "values")

    def __init__(self, values: Any, offsets: Any) -> None:
        self.values = values
        self.offsets = offsets
        self._cuts: list[int] | None = None
        self._view: memoryview | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> memoryview:
        cuts, view = self._parts()
        rows = len(cuts) - 1
        if not -rows <= row < rows:
            raise IndexError(f"row {row} of a column of {rows} rows")
        row %= rows
        return view[cuts[row] : cuts[row + 1]]

    def __iter__(self) -> Iterator[memoryview]:
        cuts, view = self._parts()
        for row in range(len(cuts) - 1):
            yield view[cuts[row] : cuts[row + 1]]

    def __repr__(self) -> str:
        return f"Ragged(rows={len(self)}, elements={len(self.values)}, dtype={self.values.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ragged, (self.values, self.offsets))

    def lengths(self) -> list[int]:
        """The number of elements of each row."""
        cuts, _ = self._parts()
        return [end - begin for begin, end in pairwise(cuts)]

    def dense(self) -> Any:
        """All rows as one array of shape [rows, length], over the same memory.

        Raises
        ------
        InvalidError
            The rows have different lengths.
        """
        lengths = self.lengths()
        if not lengths:
            return self.values.reshape(0, 0)
        if min(lengths) != max(lengths):
            raise InvalidError(
                f"rows of {min(lengths)} to {max(lengths)} elements are no rectangle",
                "Ragged.dense",
                "use the rows one by one, or .values with .offsets",
            )
        return self.values.reshape(len(lengths), lengths[0])

    def _parts(self) -> tuple[list[int], memoryview]:
        if self._cuts is None or self._view is None:
            # Through numpy: a memoryview of a ctypes array has a format that cannot be indexed.
            self._view = np.asarray(self.values).data
            self._cuts = [int(cut) for cut in self.offsets.tolist()]
        return self._cuts, self._view


class Batch(dict[str, Any]):
    """What one ``next()`` returns: a dictionary of the batch's columns.

    Token datasets give ``x`` and ``y``, int [rows, block_size] each, views of
    one tensor [rows, block_size + 1] that is :attr:`tokens`. Raw datasets give
    ``data``, a :class:`Ragged` of bytes, and ``label``, int64 [rows]. Tar datasets
    give one column a part or selection: by the part's type int64 [rows], a list of
    values (None where a sample lacks the part), or a Ragged of bytes (empty there).
    """

    __slots__ = ("__weakref__", "_entry", "_index", "_present", "_waits", "tokens")

    tokens: Any
    _entry: Entry | None
    _index: Any
    _present: tuple[list[int], tuple[str, ...]] | None  # bit masks by sample, and the columns that bits stand for
    _waits: tuple[int, dict[str, int]] | None

    def __init__(self, columns: Mapping[str, Any] | None = None) -> None:
        super().__init__(columns or {})
        self.tokens = None
        self._entry = None
        self._index = None
        self._present = None
        self._waits = None

    @property
    def index(self) -> Any:
        """The sample numbers: int64, shape [rows]."""
        if isinstance(self._index, _LazyIndex):
            self._index = self._index.make()
        return self._index

    @property
    def rows(self) -> int:
        """The number of samples."""
        return self._entry.rows if self._entry else 0

    @property
    def epoch(self) -> int:
        """The epoch that the batch belongs to, from 0."""
        return self._entry.epoch if self._entry else 0

    @property
    def position(self) -> int:
        """The place of the batch's first sample in the epoch's order."""
        return self._entry.position if self._entry else 0

    @property
    def samples_consumed(self) -> int:
        """Samples that all ranks together have taken from the epoch, after this batch."""
        return self._entry.samples_consumed if self._entry else 0

    @property
    def waited(self) -> Waited:
        """How long the consumer waited for this batch, and on what."""
        if self._waits is None:
            return _READY
        nanoseconds, causes = self._waits
        return Waited(nanoseconds / 1e9, in_seconds(causes))

    def present(self, column: str) -> Any:
        """Which samples have a column at all: bool, shape [rows].

        Raises
        ------
        InvalidError
            There is no such column.
        """
        if column not in self:
            raise InvalidError(
                f"the batch has no column {column!r:.200}", "Batch.present", f"its columns are {shown_names(self)}"
            )
        masks, columns = self._present or ([], ())
        bit = columns.index(column) if column in columns else None
        there = [True] * self.rows if bit is None else [bool(mask >> bit & 1) for mask in masks]
        if isinstance(self.index, np.ndarray):
            return np.array(there, np.bool_)
        return self.index.new_tensor(there).bool()

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """A batch with the tensors of this one on a device, each as ``torch.Tensor.to`` moves it.

        Those that are there already are the same, not copies. ``x`` and ``y`` stay views
        of one tensor, which is moved once. What is no tensor stays what it is: a
        :class:`Ragged` (move its ``values``), numpy's arrays, text. The sample numbers
        stay on the CPU, where they name samples.

        Lightning and Accelerate call this when they move a batch.
        """
        columns = dict(self)
        tokens = moved(self.tokens, device, non_blocking)
        if tokens is not self.tokens:
            for name, cut in _VIEWS.items():
                if _same_memory(columns.get(name), self.tokens[cut]):
                    columns[name] = tokens[cut]
        columns = {name: moved(column, device, non_blocking) for name, column in columns.items()}
        self._own_index()  # the batch that is moved shall not hold the slot of this one
        return _rebuild(columns, tokens, self._entry, self._index, self._waits, self._present)

    def _numbers(self) -> list[int]:
        """The sample numbers, without making a tensor of them."""
        index = self._index
        return index.numbers() if isinstance(index, _LazyIndex) else list(index.tolist())

    def _own_index(self) -> None:
        """Let go of the slot for the sample numbers."""
        if isinstance(self._index, _LazyIndex):
            self._index.own()

    def __copy__(self) -> Batch:
        # torch's collate and pin_memory copy a mapping and then replace its values.
        return _rebuild(dict(self), self.tokens, self._entry, self._index, self._waits, self._present)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (dict(self), self.tokens, self._entry, self.index, self._waits, self._present))


def _rebuild(
    columns: dict[str, Any], tokens: Any, entry: Entry | None, index: Any, waits: Any, present: Any = None
) -> Batch:
    batch = Batch(columns)
    batch.tokens, batch._entry, batch._index, batch._waits = tokens, entry, index, waits
    batch._present = present
    return batch


def _same_memory(tensor: Any, view: Any) -> bool:
    """Whether a column still is the view of the tokens that it was made as."""
    if type(tensor) is not type(view) or tensor.dtype != view.dtype or tensor.device != view.device:
        return False
    return bool((tensor.shape, tensor.stride(), tensor.data_ptr()) == (view.shape, view.stride(), view.data_ptr()))


class _LazyIndex:
    """The index column, until somebody looks at it. Keeps the buffer that it lies in."""

    __slots__ = ("arrays", "buffer", "offset", "rows")

    def __init__(self, arrays: Arrays, buffer: Any, offset: int, rows: int) -> None:
        self.arrays, self.buffer, self.offset, self.rows = arrays, buffer, offset, rows

    def own(self) -> None:
        with memoryview(self.buffer) as view:
            self.buffer = bytearray(view[self.offset : self.offset + 8 * self.rows])
        self.offset = 0

    def numbers(self) -> list[int]:
        found: list[int] = np.ndarray((self.rows,), np.int64, self.buffer, self.offset).tolist()
        return found

    def make(self) -> Any:
        return self.arrays.over(self.buffer, "int64", (self.rows,), self.offset)


class BatchBuilder:
    """Builds batches out of slots; made once a session.

    Parameters
    ----------
    columns : sequence of Column
        What the daemon says a batch consists of, without ``index``.
    arrays : Arrays
        torch or numpy.
    dtype : optional
        Element type for the tokens; None keeps the files' own. A conversion
        copies, so the slot is free again before the batch is yielded.
    """

    def __init__(self, columns: Sequence[Column], arrays: Arrays, dtype: Any = None) -> None:
        self._columns = tuple(columns)
        self._arrays = arrays
        self._table = column_table_struct(len(self._columns) + 1)
        self._target = self._conversion(dtype)
        self._row_bytes = [_ITEM_BYTES[column.dtype] * prod(column.shape) for column in self._columns]
        for column in self._columns:
            if column.name != "tokens" or self._target is None:
                arrays.check(column.dtype)

    def _conversion(self, dtype: Any) -> Any:
        """The element type that tokens are converted to; None if they are of it already."""
        if dtype is None:
            return None
        target = self._arrays.target(dtype)
        sources = [column.dtype for column in self._columns if column.name == "tokens"]
        same = all(self._arrays.has(source) and self._arrays.target(source) == target for source in sources)
        return None if same else target

    def build(self, buffer: Any, entry: Entry) -> Batch:
        """Make the batch of ``entry`` over ``buffer``, which starts where its slot starts.

        Raises
        ------
        ProtocolError
            The column table does not fit the entry or the slot.
        """
        table = self._table.unpack_from(buffer, 0)
        rows = entry.rows
        if table[0] != len(self._columns) + 1 or table[1] != rows:
            raise _bad_slot(entry, f"{table[0]} columns of {table[1]} rows")
        batch = Batch()
        batch._entry = entry
        at, copied = 2, False
        for number, column in enumerate(self._columns):
            place = table[at : at + 4]
            at += 4
            if column.ragged:
                batch[column.name] = self._ragged(column, place, buffer, entry)
                continue
            if place[1] != rows * self._row_bytes[number] or place[0] + place[1] > entry.bytes:
                raise _bad_slot(entry, f"column {shown(column.name)} has {place[1]} bytes at {place[0]}")
            if column.name == "tokens":
                copied = self._tokens(batch, column, place[0], buffer)
            else:
                batch[column.name] = self._arrays.over(buffer, column.dtype, (rows, *column.shape), place[0])
        offset, size = table[at], table[at + 1]
        if size != 8 * rows or offset + size > entry.bytes:
            raise _bad_slot(entry, f"the index has {size} bytes at {offset}")
        batch._index = _LazyIndex(self._arrays, buffer, offset, rows)
        if copied:  # nothing else of the slot is wanted, so it need not wait for the batch's end
            batch._own_index()
        return batch

    def _tokens(self, batch: Batch, column: Column, offset: int, buffer: Any) -> bool:
        """Add x and y; returns whether they were copied."""
        shape = (batch.rows, *column.shape)
        if self._target is None:
            tokens = self._arrays.over(buffer, column.dtype, shape, offset)
        else:
            tokens = self._arrays.convert(buffer, column.dtype, shape, offset, self._target)
        batch.tokens = tokens
        for name, cut in _VIEWS.items():
            batch[name] = tokens[cut]
        return self._target is not None and len(self._columns) == 1

    def _ragged(self, column: Column, place: Sequence[int], buffer: Any, entry: Entry) -> Ragged:
        offset, size, offsets_offset, offsets_size = place
        width = _ITEM_BYTES[column.dtype]
        if offsets_size != 8 * (entry.rows + 1) or size % width:
            raise _bad_slot(entry, f"ragged column {shown(column.name)} has {size} bytes and {offsets_size} of offsets")
        if max(offset + size, offsets_offset + offsets_size) > entry.bytes:
            raise _bad_slot(entry, f"ragged column {shown(column.name)} ends outside of the slot")
        values = self._arrays.over(buffer, column.dtype, (size // width,), offset)
        offsets = self._arrays.over(buffer, "int64", (entry.rows + 1,), offsets_offset)
        return Ragged(values, offsets)


def check_conversion(columns: Sequence[Column], dtype: Any, name: str) -> None:
    """Raise InvalidError if ``dtype`` is asked for where there are no tokens to convert."""
    if dtype is not None and all(column.name != "tokens" for column in columns):
        raise InvalidError(
            f"dtype={dtype!s} converts tokens, and dataset {name!r} has none: its samples are the bytes of files",
            "dtype",
            "leave dtype= out, and convert what you decode from the bytes",
        )


def read_columns(described: object) -> list[Column]:
    """The ``columns`` of an answer.

    Raises
    ------
    ProtocolError
        They are not what the protocol says.
    """
    if not isinstance(described, list) or not described:
        raise _bad_columns(described)
    columns = []
    for item in described:
        if not isinstance(item, dict) or item.get("dtype") not in DTYPES or not isinstance(item.get("name"), str):
            raise _bad_columns(item)
        shape = item.get("shape") or []
        if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise _bad_columns(item)
        columns.append(Column(item["name"], item["dtype"], tuple(shape), bool(item.get("ragged"))))
    return columns


def _bad_columns(described: object) -> ProtocolError:
    return ProtocolError(
        f"the daemon describes columns that this client cannot read: {described!r:.200}",
        "session socket",
        "install the version of the Python package stoker that belongs to the running stokerd",
    )


def _bad_slot(entry: Entry, why: str) -> ProtocolError:
    return ProtocolError(
        f"the batch of entry {entry.sequence} ({entry.rows} rows, {entry.bytes} bytes) is damaged: {why}",
        f"slot {entry.slot}",
        "report this with the daemon's log; a program that writes outside of its own memory can also cause it",
    )

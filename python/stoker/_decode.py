"""Parts of samples as typed values: what a part is, by its name, and how its bytes are read.

The last extension of a part's name says its type, by WebDataset's table: ``txt``,
``text``, ``transcript`` are text; ``cls``, ``cls2``, ``index``, ``inx``, ``id``
whole numbers; ``json``, ``jsn``; ``npy``, ``npz``; ``pkl``, ``pickle``, ``pyd``,
``pth`` pickles. Everything else stays bytes.

The bytes are anybody's. Whatever they are, reading them gives a value or an
error, runs no code of theirs unless pickles are allowed, and allocates no more
than they can hold.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ._arrays import Arrays, load_pth
from ._shown import shown_names, shown_text
from .batch import Batch, Column
from .errors import CorruptError, InvalidError
from .options import Options

PRESENT: Final = "__present__"  # the column of bit masks: bit c says that a sample has column c
_DIGITS_MAX: Final = 64
_NPY_MAGIC: Final = b"\x93NUMPY"
_NPY_HEADER_MAX: Final = 16384  # numpy itself reads no header of more than 10000 characters
_INFLATES_AT_MOST: Final = 1040  # deflate makes at most 1032 bytes of one
_NPZ_TIMES: Final = 64  # an npz archive gives at most so many times its bytes,
_NPZ_BYTES: Final = 64 << 20  # or this, whichever is more

Read = Callable[[memoryview], Any]


class Kind(NamedTuple):
    """One type of parts: its name in messages, and how to read it."""

    name: str
    read: Read


def _text(view: memoryview) -> str:
    return str(view, "utf-8")


def _number(view: memoryview) -> int:
    if len(view) > _DIGITS_MAX:
        raise ValueError(f"{len(view)} bytes are no number")
    number = int(bytes(view))
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("it does not fit 64 bits")
    return number


def _json(view: memoryview) -> Any:
    return json.loads(bytes(view))


def _npy(view: memoryview) -> Any:
    return _array(view, False)


def _npy_of_objects(view: memoryview) -> Any:
    return _array(view, True)


def _npz(view: memoryview) -> dict[str, Any]:
    return _arrays(view, False)


def _npz_of_objects(view: memoryview) -> dict[str, Any]:
    return _arrays(view, True)


def _pickle(view: memoryview) -> Any:
    return pickle.loads(view)


TEXT: Final = Kind("text", _text)
NUMBER: Final = Kind("number", _number)
JSON: Final = Kind("JSON", _json)
NPY: Final = Kind("npy array", _npy)
NPZ: Final = Kind("npz archive", _npz)
PICKLE: Final = Kind("pickle", _pickle)
PTH: Final = Kind("pickle of torch", load_pth)
_WITH_PICKLES: Final = {NPY: Kind("npy array", _npy_of_objects), NPZ: Kind("npz archive", _npz_of_objects)}
_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("txt", "text", "transcript"), TEXT),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), NUMBER),
    **dict.fromkeys(("json", "jsn"), JSON),
    **dict.fromkeys(("pkl", "pickle", "pyd"), PICKLE),
    "npy": NPY,
    "npz": NPZ,
    "pth": PTH,
}


def kind_of(part: str) -> Kind | None:
    """The type of a part by its name; None: bytes."""
    return _KINDS.get(part.rpartition(".")[2])


def read_part(column: str, kind: Kind, view: memoryview) -> Any:
    """The value of a part.

    Raises
    ------
    CorruptError, InvalidError
        The bytes are not what the part's name says; they hold pickles, which are
        not allowed. Which sample it is, the caller has to add.
    """
    try:
        return kind.read(view)
    except (InvalidError, MemoryError):
        raise
    except Exception as error:
        raise CorruptError(
            f"part {column!r:.200} of {len(view)} bytes is no {kind.name}: "
            f"{type(error).__name__}: {shown_text(str(error)[:300])}",
            "",
            "correct the sample; decode=False gives the bytes, and select= leaves the part out",
        ) from error


def _array(view: memoryview, allow_pickle: bool) -> Any:
    """As ``np.lib.format.read_array``, but nothing is allocated before the size is checked."""
    head = io.BytesIO(bytes(view[:_NPY_HEADER_MAX]))
    version, shape, fortran, dtype = _npy_header(head)
    if dtype.hasobject:
        if allow_pickle:
            return np.lib.format.read_array(io.BytesIO(view), allow_pickle=True)
        raise _pickles_inside()
    count, at = prod(shape), head.tell()
    if min(shape, default=0) < 0 or count * max(dtype.itemsize, 1) > len(view) - at:
        raise ValueError(f"shape {shape} of {dtype} is more than the {len(view) - at} bytes that follow the header")
    if version == (3, 0):  # rare: names of fields that are not ASCII
        return np.lib.format.read_array(io.BytesIO(view))
    if count == 0:
        return np.empty(shape, dtype, order="F" if fortran else "C")
    flat = np.frombuffer(view, dtype, count, at).copy()
    return flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)


def _npy_header(head: io.BytesIO) -> tuple[tuple[int, int], tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(head)
    try:
        if version == (1, 0):
            return (version, *np.lib.format.read_array_header_1_0(head))
        if version in ((2, 0), (3, 0)):  # 3.0 differs in the encoding of fields' names only
            return (version, *np.lib.format.read_array_header_2_0(head))
    except (MemoryError, RecursionError) as error:  # Python's parser, on nested brackets
        raise ValueError("its header is nested too deeply") from error
    raise ValueError(f"its version is {version[0]}.{version[1]}")


def _arrays(view: memoryview, allow_pickle: bool) -> dict[str, Any]:
    """As ``dict(np.load(...))`` of an npz archive, but the sizes it states are checked first."""
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(view)) as archive:
        if sum(member.compress_size for member in archive.infolist()) > len(view):
            raise ValueError("its members overlap")
        size, limit = sum(member.file_size for member in archive.infolist()), max(_NPZ_TIMES * len(view), _NPZ_BYTES)
        if size > limit:
            raise ValueError(
                f"it would inflate to {size} bytes, more than the {limit} allowed: "
                f"{_NPZ_TIMES} times its size, or {_NPZ_BYTES >> 20} MiB"
            )
        for member in archive.infolist():
            if member.file_size > _INFLATES_AT_MOST * member.compress_size:
                raise ValueError(f"member {member.filename!r:.80} states a size that it cannot have")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"member {member.filename!r:.80} is compressed in a way that numpy never uses")
            content = memoryview(archive.read(member))
            is_array = bytes(content[: len(_NPY_MAGIC)]) == _NPY_MAGIC
            name = member.filename.removesuffix(".npy")
            arrays[name] = _array(content, allow_pickle) if is_array else bytes(content)
    return arrays


def _pickles_inside() -> InvalidError:
    return InvalidError(
        "an npy array of Python objects holds pickles, which run whatever code they name",
        "",
        "if you trust whoever wrote the dataset, pass allow_pickle=True; decode=False gives the bytes",
    )


class Parts:
    """What there is to do to batches of parts: which are typed, and which samples lack some.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns, in their order, without ``__present__``.
    kinds : dict of str to Kind
        Of the typed ones.
    may_lack : bool
        Whether samples may lack columns.
    """

    def __init__(self, columns: Sequence[str], kinds: dict[str, Kind], may_lack: bool = False) -> None:
        self.columns = tuple(columns)
        self.kinds = kinds
        self.may_lack = may_lack

    def numbers(self, selected: Sequence[tuple[str, Sequence[str]]] | None) -> list[tuple[str, ...]]:
        """The parts behind each column of numbers of a session in which samples may lack columns; else nothing."""
        chosen = dict(selected or ())
        columns = [name for name in self.columns if self.kinds.get(name) is NUMBER] if self.may_lack else []
        return [tuple(chosen.get(name, (name,))) for name in columns]

    def take_presence(self, batch: Batch) -> list[int] | None:
        """Move the column of masks out of the batch's dictionary; returns them, None if no sample lacks a part."""
        masks = batch.pop(PRESENT, None)
        if masks is None:
            return None
        found: list[int] = masks.tolist()
        batch._present = (found, self.columns)
        return found

    def finish(self, batch: Batch, arrays: Arrays, where: Callable[[int], str]) -> Batch:
        """Replace the typed columns of a batch by their values; ``where`` describes the sample of a row.

        Raises
        ------
        CorruptError, InvalidError
            A value cannot be read, or a number is missing; names the sample.
        """
        masks = self.take_presence(batch)
        for bit, column in enumerate(self.columns):
            if kind := self.kinds.get(column):
                values = self._values(batch[column], column, kind, masks and [mask >> bit & 1 for mask in masks], where)
                if kind is NUMBER:
                    values = arrays.over(np.array(values, np.int64), "int64", (len(values),), 0)
                batch[column] = values
        if len(self.kinds) == len(self.columns):  # nothing refers to the slot any more
            batch._own_index()
        return batch

    def _values(
        self, views: Any, column: str, kind: Kind, present: list[int] | None, where: Callable[[int], str]
    ) -> list[Any]:
        values: list[Any] = []
        try:
            if present is None:
                for view in views:
                    values.append(read_part(column, kind, view))
            else:
                for view, there in zip(views, present, strict=True):
                    values.append(read_part(column, kind, view) if there else _nothing(column, kind))
        except (CorruptError, InvalidError) as error:
            raise type(error)(error.what, where(len(values)), error.remedy) from error.__cause__
        return values

    def value(self, column: str, view: memoryview) -> Any:
        """The value of one sample's column; ``view`` itself if it is not typed."""
        kind = self.kinds.get(column)
        return view if kind is None else read_part(column, kind, view)


def _nothing(column: str, kind: Kind) -> Any:
    """The value of a part that a sample lacks."""
    if kind is not NUMBER:
        return None
    raise InvalidError(
        f"the sample lacks {column!r:.200}, and a column of numbers has no place for nothing",
        "",
        "pass missing='error' to find such samples when the dataset is opened, decode=False for the bytes, or "
        "a transform=, where the value is None",
    )


def make_parts(form: str, columns: Sequence[Column], options: Options) -> Parts | None:
    """What there is to do to the batches of a session; None if nothing.

    Raises
    ------
    InvalidError
        Columns were selected of a dataset that has none to select; a column holds
        pickles, which are not allowed, or parts of different types.
    """
    if form != "tar":
        if options.selection():
            raise InvalidError(
                f"select= and missing= choose parts of samples, which {options.name!r:.200} of format {form!r} lacks",
                "select",
                "leave them out; only samples of tar shards have parts",
            )
        return None
    names = [column.name for column in columns if column.name != PRESENT]
    parts = dict(options.select or ())
    kinds = {name: kind for name in names if (kind := _column_kind(name, parts.get(name, (name,)), options))}
    may_lack = len(names) < len(columns)
    return Parts(names, kinds, may_lack) if kinds or may_lack else None


def _column_kind(name: str, parts: Sequence[str], options: Options) -> Kind | None:
    if not options.decode:
        return None
    kinds = {kind_of(part) for part in parts}
    if len(kinds) > 1:
        raise InvalidError(
            f"column {name!r:.200} is made of {shown_names(parts)}, which are values of different types",
            "select",
            "select columns of one type each, or pass decode=False for the bytes",
        )
    kind = kinds.pop()
    if kind in (PICKLE, PTH) and not options.allow_pickle:
        raise InvalidError(
            f"part {name!r:.200} is a pickle, which runs whatever code it names when it is read",
            options.name,
            "leave it out with select=, or pass decode=False for the bytes; if you trust whoever wrote the dataset, "
            "pass allow_pickle=True",
        )
    return _WITH_PICKLES.get(kind, kind) if kind and options.allow_pickle else kind

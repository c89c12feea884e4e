"""``select=``: which parts of a sample are columns, and by which names.

A column is a list of parts, of which a sample gives the first that it has, as in
WebDataset's ``"jpg;png"``. Names of parts are lower case, as the daemon's are. The
part of a name that ends in its dot has none: ``select={"column": ""}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .errors import InvalidError

_NO_PARTS: Final = ("__key__", "__url__", "__local_path__", "__bad__", "__present__")  # webdataset's, and the daemon's

Select = tuple[tuple[str, tuple[str, ...]], ...]


def make_select(select: Any) -> Select | None:
    """Columns as (name, parts), of what a user passed to :class:`stoker.Dataset`.

    Raises
    ------
    InvalidError
        It is neither a list of strings nor a dictionary, or names a column twice.
    """
    if select is None:
        return None
    if isinstance(select, str):
        select = [select]
    if isinstance(select, Mapping):
        columns = tuple((str(name), _parts(parts)) for name, parts in select.items())
    else:
        try:
            columns = tuple((parts[0], parts) for parts in map(_parts, select))
        except TypeError:
            raise _bad(f"{select!r:.200} is neither a list nor a dictionary") from None
    names = [name for name, _ in columns]
    if not names or not all(names):
        raise _bad("a selection names at least one column, and each by a name; a part without one is {'column': ''}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise _bad(f"the column {twice[0]!r:.200} is named twice")
    for name, parts in columns:
        _refuse_reserved(name, parts)
    return columns


def _parts(parts: Any) -> tuple[str, ...]:
    if not isinstance(parts, str):
        raise _bad(f"{parts!r:.200} is no string of parts")
    names = tuple(part.strip().lower() for part in parts.split(";"))
    if not all(names) and parts:  # of several, an empty one is rather a stray semicolon
        raise _bad(f"{parts!r:.200} names an empty part")
    return names


def _refuse_reserved(name: str, parts: tuple[str, ...]) -> None:
    reserved = name if name.startswith("__") else next((part for part in parts if part in _NO_PARTS), "")
    if reserved:
        raise InvalidError(
            f"{reserved!r:.200} can be no column: names that begin with '__' are kept for what is no part of a sample",
            "select",
            "a sample's key is sample.key, and ds.keys(batch) has those of a batch; for a part of such a name, "
            'give the column another one: select={"name": "__part"}',
        )


def _bad(what: str) -> InvalidError:
    return InvalidError(
        what, "select", """pass for example select=["jpg;png", "cls"] or select={"image": "jpg;png", "label": "cls"}"""
    )

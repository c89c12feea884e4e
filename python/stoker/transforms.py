"""``transform=``, ``batch_transform=`` and ``collate=``: what a user passed, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from . import _places
from .errors import InvalidError
from .options import whole

_THREADS_MAX_BY_DEFAULT: Final = 16
_AHEAD: Final = 4  # batches: the daemon's 8 slots hold these, the user's, and two of its own, without copying
RAISE: Final = "raise"
LEAVE_OUT: Final = "skip"


class _Skip:
    """The type of :data:`SKIP`."""

    def __repr__(self) -> str:
        return "stoker.SKIP"

    def __reduce__(self) -> str:
        return "SKIP"


SKIP: Final = _Skip()
"""Returned by a ``transform=``, or by an ``on_error=``: leave the sample out of its batch."""

OnError = str | Callable[[Exception, str, int], Any]


@dataclass(frozen=True)
class Plan:
    """See :class:`stoker.Dataset`. ``threads`` and ``ahead`` are at least 1."""

    transform: Callable[[Any], Any] | None
    batch_transform: Callable[[Any], Any] | None
    collate: Callable[[list[Any]], Any] | None
    threads: int
    ahead: int
    on_error: OnError


def make_plan(
    transform: Any, batch_transform: Any, collate: Any, threads: int | None, ahead: int | None, on_error: Any
) -> Plan | None:
    """Check what a user passed; None if there is nothing to do in a pool.

    Raises
    ------
    InvalidError
        Naming the argument, what is wrong with it and what it may be.
    """
    given = {"transform": transform, "batch_transform": batch_transform, "collate": collate}
    for name, function in given.items():
        if function is not None and not callable(function):
            raise InvalidError(f"{name}={function!r:.80} cannot be called", name, "pass a function")
    if not callable(on_error) and on_error not in (RAISE, LEAVE_OUT):
        raise InvalidError(
            f"on_error={on_error!r:.80} is neither 'raise' nor 'skip' nor a function",
            "on_error",
            "pass one of them; a function is called with (error, key, index) and returns a replacement or stoker.SKIP",
        )
    if all(function is None for function in given.values()):
        _refuse_without_effect(threads, ahead, on_error)
        return None
    if batch_transform is not None and (transform is not None or collate is not None):
        raise InvalidError(
            "batch_transform= makes of a whole batch what is yielded: transform= and collate= have no place beside it",
            "batch_transform",
            "pass either batch_transform=, or transform= and collate=",
        )
    count = _threads() if threads is None else whole("transform_threads", threads, 1)
    usual = max(_AHEAD, count + 1) if batch_transform is not None else _AHEAD
    return Plan(
        transform=transform,
        batch_transform=batch_transform,
        collate=collate,
        threads=count,
        ahead=usual if ahead is None else whole("transform_ahead", ahead, 1),
        on_error=on_error,
    )


def _refuse_without_effect(threads: int | None, ahead: int | None, on_error: Any) -> None:
    passed = {
        "transform_threads": threads,
        "transform_ahead": ahead,
        "on_error": None if on_error == RAISE else on_error,
    }
    for name, value in passed.items():
        if value is not None:
            raise InvalidError(
                f"{name}={value!r:.80} is about a transform, and there is none",
                name,
                "pass transform=, batch_transform= or collate= as well, or leave it out",
            )


def _threads() -> int:
    """This rank's share of the CPUs that the process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(1, cpus // _places.ranks_on_node()), _THREADS_MAX_BY_DEFAULT)

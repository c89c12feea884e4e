"""The settings of a Dataset, checked once."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Any, Final

from . import _places
from ._select import Select, make_select
from .errors import InvalidError

ORDERS: Final = ("global", "windowed", "sequential", "torch", "numpy")
SEEDINGS: Final[dict[str, tuple[str, ...]]] = {  # by order; without one each epoch has a seed of its own
    "torch": ("once", "loader", "loader_persistent", "loader_generator"),
    "numpy": ("once", "in_place"),
}
TRANSPORTS: Final = ("auto", "ring", "socket")
TENSORS: Final = ("torch", "numpy", None)
MISSING: Final = ("error", "empty", None)
_WINDOW: Final = 65536
_FEWEST_SLOTS: Final = 4  # the batch in use, the next one, and two for the daemon


@dataclass(frozen=True)
class Options:
    """See :class:`stoker.Dataset` for the meaning of each field."""

    name: str
    batch_size: int
    order: str
    window: int
    seed: int
    seeding: str | None
    drop_last: bool
    block_size: int | None
    dtype: Any
    rank: int
    world_size: int
    job_id: str
    return_tensors: str | None
    reconnect: bool
    reconnect_timeout: float
    timeout: float | None
    transport: str
    runtime_dir: str | None
    slots: int
    select: Select | None
    missing: str | None
    decode: bool
    allow_pickle: bool

    def open_request(self, epoch: int, consumed: int, index_id: str, order_version: int) -> dict[str, Any]:
        """The ``open`` message, without its transport."""
        request: dict[str, Any] = {
            "type": "open",
            "dataset": self.name,
            "batch_size": self.batch_size,
            "order": self.order,
            "window": self.window,
            "seed": self.seed,
            "epoch": epoch,
            "samples_consumed": consumed,
            "rank": self.rank,
            "world_size": self.world_size,
            "drop_last": self.drop_last,
            "index_id": index_id,
            "order_version": order_version,
            "slots": self.slots,
            "job_id": self.job_id,
        }
        if self.block_size is not None:
            request["block_size"] = self.block_size
        if self.seeding is not None:
            request["seeding"] = self.seeding
        return {**request, **self.selection()}

    def selection(self) -> dict[str, Any]:
        """What requests say about columns; nothing where the daemon's defaults are wanted."""
        request: dict[str, Any] = {}
        if self.select is not None:
            request["select"] = [{"name": name, "parts": list(parts)} for name, parts in self.select]
        if self.missing is not None:
            request["missing"] = self.missing
        return request

    def batches(self, samples: int) -> int:
        """Batches of each rank in an epoch of ``samples`` samples: the same number for all ranks."""
        a_step = self.batch_size * self.world_size
        return samples // a_step if self.drop_last else -(-samples // a_step)


def make_options(
    name: str,
    *,
    batch_size: int,
    shuffle: bool,
    order: str | None,
    window: int | None,
    seed: int,
    seeding: str | None,
    drop_last: bool,
    block_size: int | None,
    dtype: Any,
    rank: int | None,
    world_size: int | None,
    job_id: str | None,
    return_tensors: str | None,
    reconnect: bool,
    reconnect_timeout: float,
    timeout: float | None,
    transport: str,
    runtime_dir: str | os.PathLike[str] | None,
    slots: int,
    select: Any,
    missing: str | None,
    decode: bool,
    allow_pickle: bool,
) -> Options:
    """Check and complete what a user passed to :class:`stoker.Dataset`.

    Raises
    ------
    InvalidError
        Naming the argument, what is wrong with it and what it may be.
    """
    if not isinstance(name, str) or not name:
        raise InvalidError(f"{name!r:.200} is no dataset name", "name", "`stoker dataset ls` shows the names there are")
    rank, world_size = _places.rank_and_world(rank, world_size)
    slots = whole("slots", slots, 0)
    if 0 < slots < _FEWEST_SLOTS:
        raise InvalidError(
            f"{slots} slots are too few: the batch in use, the next one and two for the daemon are {_FEWEST_SLOTS}",
            "slots",
            f"pass 0 for the daemon's default, or at least {_FEWEST_SLOTS}",
        )
    order = _order(order, bool(shuffle))
    return Options(
        name=name,
        batch_size=whole("batch_size", batch_size, 1),
        order=order,
        window=_window(window, order),
        seed=whole("seed", seed, 0),
        seeding=_seeding(seeding, order),
        drop_last=bool(drop_last),
        block_size=None if block_size is None else whole("block_size", block_size, 1),
        dtype=dtype,
        rank=rank,
        world_size=world_size,
        job_id=_places.job_identity(job_id),
        return_tensors=_one_of("return_tensors", return_tensors, TENSORS),
        reconnect=bool(reconnect),
        reconnect_timeout=_seconds("reconnect_timeout", reconnect_timeout),
        timeout=None if timeout in (None, float("inf")) else _seconds("timeout", timeout),
        transport=str(_one_of("transport", transport, TRANSPORTS)),
        runtime_dir=None if runtime_dir is None else os.fspath(runtime_dir),
        slots=slots,
        select=make_select(select),
        missing=_one_of("missing", missing, MISSING),
        decode=bool(decode),
        allow_pickle=bool(allow_pickle),
    )


def whole(argument: str, value: Any, least: int) -> int:
    """Return ``value`` as an int; raises InvalidError if it is none, or is smaller than ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number < 1 << 63:
        raise InvalidError(
            f"{argument}={value!r:.80} is no whole number from {least} on", argument, f"pass a number from {least} on"
        )
    return number


def _seconds(argument: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not seconds >= 0:  # also if it is no number
        raise InvalidError(
            f"{argument}={value!r:.80} is no time in seconds", argument, "pass a number of seconds that is not negative"
        )
    return seconds


def _one_of(argument: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        names = ", ".join(repr(name) for name in allowed)
        raise InvalidError(f"{argument}={value!r:.80} is not one of {names}", argument, "pass one of them")
    return value


def _window(window: int | None, order: str) -> int:
    if window is None:
        return _WINDOW
    samples = whole("window", window, 1)
    if order != "windowed":
        raise InvalidError(
            f"window={samples} is about order='windowed', and the order is {order!r}",
            "window",
            "pass order='windowed' as well, or leave it out",
        )
    return samples


def _seeding(seeding: str | None, order: str) -> str | None:
    allowed = SEEDINGS.get(order, ())
    if seeding is None or seeding in allowed:
        return seeding
    names = ", ".join(repr(name) for name in allowed)
    raise InvalidError(
        f"seeding={seeding!r:.80} is none of order {order!r}, which has {names or 'none'}",
        "seeding",
        "pass one of them, or leave it out" if names else "leave it out, or pass order='torch' or 'numpy'",
    )


def _order(order: str | None, shuffle: bool) -> str:
    if order is None:
        return "global" if shuffle else "sequential"
    _one_of("order", order, ORDERS)
    if shuffle and order == "sequential":
        raise InvalidError(
            "shuffle=True contradicts order='sequential'", "order", "leave one of them out; 'global' is a full shuffle"
        )
    return order

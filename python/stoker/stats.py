"""What a consumer waited for: attribution of single waits, and their sums."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ._layout import FLAG_OVERSIZED, Entry

CAUSES: Final = ("disk", "index", "order", "ring", "wake", "other", "transform")
_WORST_KEPT: Final = 10


class Waited(NamedTuple):
    """How long the consumer of one batch waited for it.

    Attributes
    ----------
    seconds : float
        From asking for the batch to having it; 0.0 if it was ready.
    causes : dict of str to float
        The same seconds by cause; the values add up to ``seconds``. ``disk``: the
        daemon was reading; ``index``: looking up where samples lie; ``order``:
        computing which samples come; ``ring``: waiting for a free slot, that is
        for the consumer; ``wake``: the batch was done, but not yet here;
        ``other``: the daemon had not yet begun the batch; ``transform``: the pool
        of ``transform=`` was not done with it.
    """

    seconds: float
    causes: dict[str, float]


def attribute(asked: int, got: int, entry: Entry) -> dict[str, int]:
    """Divide the wait [asked, got] among the phases of a batch's production.

    All times are CLOCK_MONOTONIC nanoseconds. The phases lie between the entry's
    times, so each cause gets the overlap of its phase with the wait; the values
    add up to ``got - asked`` whatever the entry says.
    """
    marks = (entry.t_wait_slot, entry.t_order, entry.t_index, entry.t_read, entry.t_done)
    at, cuts = asked, []
    for mark in marks:
        at = min(max(at, mark), got)
        cuts.append(at)
    wait_slot, order, index, read, done = cuts
    return {
        "disk": done - read,
        "index": read - index,
        "order": index - order,
        "ring": order - wait_slot,
        "wake": got - done,
        "other": wait_slot - asked,
        "transform": 0,
    }


def in_seconds(causes: dict[str, int]) -> dict[str, float]:
    """Nanoseconds by cause as seconds by cause."""
    return {cause: nanoseconds / 1e9 for cause, nanoseconds in causes.items()}


class SlowBatch(NamedTuple):
    """One of the batches that were waited for longest."""

    seconds: float
    epoch: int
    position: int
    causes: dict[str, float]


@dataclass(frozen=True)
class FailedSample:
    """A sample that a transform failed on.

    Attributes
    ----------
    key, file : str
        Its key and the file it lies in; empty if the daemon could not be asked.
    index : int
        Its number in the dataset.
    error : str
        What the transform raised, in words.
    """

    key: str
    file: str
    index: int
    error: str


@dataclass(frozen=True)
class Stats:
    """What :meth:`stoker.Dataset.stats` returns. Sums are over the life of the Dataset.

    Attributes
    ----------
    batches, samples : int
        Yielded to the user, of this rank.
    source_bytes, disk_bytes : int
        Bytes of the dataset's files in those batches, and how many of them did
        not come from the page cache.
    stall_seconds : float
        Time between asking for a batch and having it.
    stall_share : float
        ``stall_seconds`` divided by ``wall_seconds``, 0.0 to 1.0.
    wall_seconds : float
        Time from each ``iter()`` to the last batch it gave so far.
    causes : dict of str to float
        ``stall_seconds`` by cause, as in :class:`Waited`.
    worst : tuple of SlowBatch
        Up to ten batches that were waited for longest, longest first.
    batches_copied, batches_kept, batches_oversized : int
        Copied because the user keeps too many; slots under live views right now;
        received outside of the ring because they are larger than a slot.
    reconnects : int
        How often the session moved to a new daemon.
    first_batch_seconds : float or None
        From the first ``iter()`` to the first batch; None before it.
    transport : str or None
        "ring" (shared memory) or "socket" (copies); None before connecting.
    daemon : dict or None
        The daemon's own view of the session, if it was asked for.
    transform_errors, transform_skipped : int
        Samples that a transform failed on, and samples that were left out of
        their batch, by ``on_error`` or by :data:`stoker.SKIP`.
    transform_failures : tuple of FailedSample
        The first 100 samples that a transform failed on.
    """

    batches: int
    samples: int
    source_bytes: int
    disk_bytes: int
    stall_seconds: float
    stall_share: float
    wall_seconds: float
    causes: dict[str, float]
    worst: tuple[SlowBatch, ...]
    batches_copied: int
    batches_kept: int
    batches_oversized: int
    reconnects: int
    first_batch_seconds: float | None
    transport: str | None
    daemon: dict[str, Any] | None = field(default=None)
    transform_errors: int = 0
    transform_skipped: int = 0
    transform_failures: tuple[FailedSample, ...] = ()


class Recorder:
    """Sums up batches and waits. Times in nanoseconds. One thread records."""

    def __init__(self) -> None:
        self.batches = 0
        self.samples = 0
        self.source_bytes = 0
        self.disk_bytes = 0
        self.waited = 0
        self.by_cause = dict.fromkeys(CAUSES, 0)
        self.copied = 0
        self.oversized = 0
        self.reconnects = 0
        self.first_batch: int | None = None
        self.wall_before = 0  # of iterators that have ended
        self.wall_now = 0  # of the current iterator
        self._worst: list[tuple[int, int, int, int, dict[str, int]]] = []

    def iterating(self) -> None:
        """A new iterator begins."""
        self.wall_before += self.wall_now
        self.wall_now = 0

    def batch(self, entry: Entry) -> None:
        """A batch is about to be yielded."""
        self.batches += 1
        self.samples += entry.rows
        self.source_bytes += entry.source_bytes
        self.disk_bytes += entry.disk_bytes
        self.oversized += entry.flags & FLAG_OVERSIZED

    def wait(self, asked: int, got: int, entry: Entry) -> dict[str, int]:
        """A batch was waited for from ``asked`` to ``got``; returns the causes."""
        causes = attribute(asked, got, entry)
        self.add_wait(got - asked, causes, entry)
        return causes

    def add_wait(self, waited: int, causes: dict[str, int], entry: Entry) -> None:
        """A batch was waited for, for reasons that are known; ``causes`` add up to ``waited``."""
        self.waited += waited
        by_cause = self.by_cause
        for cause, nanoseconds in causes.items():
            by_cause[cause] += nanoseconds
        # The sequence number of recording breaks ties, so that dicts are never compared.
        item = (waited, -self.batches, entry.epoch, entry.position, causes)
        if len(self._worst) < _WORST_KEPT:
            heapq.heappush(self._worst, item)
        elif waited > self._worst[0][0]:
            heapq.heapreplace(self._worst, item)

    def snapshot(self, *, copied: int, kept: int, transport: str | None, daemon: dict[str, Any] | None) -> Stats:
        """The sums as the user sees them; ``copied`` and ``kept`` are the current session's."""
        wall = self.wall_before + self.wall_now
        worst = sorted(self._worst, key=lambda item: item[:2], reverse=True)
        return Stats(
            batches=self.batches,
            samples=self.samples,
            source_bytes=self.source_bytes,
            disk_bytes=self.disk_bytes,
            stall_seconds=self.waited / 1e9,
            stall_share=min(1.0, self.waited / wall) if wall else 0.0,
            wall_seconds=wall / 1e9,
            causes=in_seconds(self.by_cause),
            worst=tuple(SlowBatch(item[0] / 1e9, item[2], item[3], in_seconds(item[4])) for item in worst),
            batches_copied=self.copied + copied,
            batches_kept=kept,
            batches_oversized=self.oversized,
            reconnects=self.reconnects,
            first_batch_seconds=None if self.first_batch is None else self.first_batch / 1e9,
            transport=transport,
            daemon=daemon,
        )

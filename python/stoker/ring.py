"""The consumer's side of a session's ring. This text is the protocol.

Who writes what
    The daemon writes the queue, the slots, ``published``, ``ready_word`` and
    ``daemon_waiting``. The trainer writes ``taken``, ``trainer_waiting``,
    ``release_word``, the ``released`` words and its statistics. Nobody writes
    another's words, and the daemon believes nothing that the trainer wrote.

Cursors
    ``published`` is the number of entries ever published; entry n, counted from
    1, lies at ``queue[(n - 1) % queue_entries]`` and carries n as its sequence.
    ``taken`` is the sequence of the last entry the trainer took, so there is
    something to take exactly if ``published > taken``. Both only grow.

Backpressure
    An entry of kind batch or error names a slot, which stays the trainer's until
    it stores the entry's generation in ``released[slot]``. Slots come back in any
    order, and storing twice is harmless. The daemon publishes at most
    ``slots + 2`` entries ahead of ``taken``.

Lifetime of a slot
    All tensors of a batch are views of one ctypes array over the slot; a weak
    reference on that array fires when the last of them is gone, and its callback
    stores the generation. A weak reference on an ndarray slice or a memoryview
    would fire too early. The callback takes no lock (it may run anywhere, also
    inside this module) and does nothing in a forked child, whose collector would
    otherwise release slots that the parent still reads. The mapping is never
    closed: it goes when the last view of it goes, so old batches stay valid after
    the session, and the daemon, have ended.

Oversized batches
    A batch that fits no slot comes in a memfd of its own, and its entry names a
    slot all the same: that slot stands for the memory. As soon as it is released
    the daemon takes the memory's pages back, and they read as zeros from then on,
    also here. So its lease is on the array over that memory, and the slot is
    released when the last view of the memory is gone.

Keeping batches
    If taking a batch would leave fewer than two slots that the trainer does not
    hold, the batch is copied to private memory and its slot released right after.
    So a user who keeps every batch is slower, but never deadlocks. This bounds the
    memory of oversized batches as well.

Waiting
    Look at ``published``; set ``trainer_waiting``, look again, sleep on
    ``ready_word`` for at most 100 ms, clear ``trainer_waiting``. A daemon that
    died cannot wake anybody, so between sleeps the caller polls the socket.
    After a release the trainer wakes ``release_word`` if ``daemon_waiting`` is
    set. Between its store and that load stands a locked instruction (a try-lock
    of a private lock), because x86-64 lets a load pass an earlier store; what is
    missed all the same costs the daemon's own bound of 50 ms.

Failure
    Sizes and offsets in the header and in each entry are checked before use. The
    content of a slot is checked by the code that builds the batch.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
import time
import weakref
from typing import Any, Final

from . import _layout
from ._futex import Futex
from ._layout import ENTRY_STRUCT, FLAG_OVERSIZED, NO_SLOT, Entry, word32, word64
from .errors import ProtocolError
from .stats import CAUSES

SLEEP_NANOSECONDS: Final = 100_000_000
FREE_SLOTS_KEPT: Final = 2
# A futex wake-up costs 4 to 18 us. Spinning for about that long pays only where waits are that short.
SPIN_NANOSECONDS: Final = 20_000
SPIN_IF_WAITS_BELOW: Final = 40_000

_PUBLISHED: Final = word64("published")
_TAKEN: Final = word64("taken")
_BATCHES_TAKEN: Final = word64("batches_taken")
_BATCHES_COPIED: Final = word64("batches_copied")
_WAITED: Final = word64("waited_ns")
_WAITED_BY_CAUSE: Final = tuple(
    (cause, word64(f"waited_{cause}_ns")) for cause in CAUSES if f"waited_{cause}_ns" in _layout.HEADER_FIELDS
)
_WORST: Final = word64("worst")
_WORST_TRANSFORM: Final = word64("worst_transform_ns")
_WORST_CAUSES: Final = tuple(cause for cause, _ in _WAITED_BY_CAUSE if cause != "transform")
_READY: Final = word32("ready_word")
_DAEMON_WAITING: Final = word32("daemon_waiting")
_TRAINER_WAITING: Final = word32("trainer_waiting")
_RELEASE: Final = word32("release_word")
_WORD_MASK: Final = 0xFFFFFFFF


class _Lease(weakref.ref[Any]):
    """The weak reference on a slot's ctypes array: knows which slot to give back."""

    __slots__ = ("generation", "releaser", "slot")

    slot: int
    generation: int
    releaser: _Releaser


class _Releaser:
    """Gives slots back. Apart from Ring, so that live tensors keep no Ring alive."""

    __slots__ = ("_counter", "_fence", "_futex", "_released", "_words", "leases", "pid")

    def __init__(self, mapping: mmap.mmap, geometry: _layout.Geometry) -> None:
        view = memoryview(mapping)
        end = geometry.released_offset + 8 * geometry.slots
        self._released = view[geometry.released_offset : end].cast("Q")
        self._words = view[: _layout.HEADER_BYTES].cast("I")
        self._futex = Futex(mapping, _RELEASE * 4)
        self._counter = itertools.count(1)  # next() on it is atomic: two threads never store the same word
        self._fence = threading.Lock()
        self.leases: dict[int, _Lease] = {}
        self.pid = os.getpid()

    def release(self, slot: int, generation: int) -> None:
        self._released[slot] = generation
        self._words[_RELEASE] = next(self._counter) & _WORD_MASK
        self.fence()
        if self._words[_DAEMON_WAITING]:
            self._futex.wake()

    def bump(self, wake: bool) -> None:
        """Tell the daemon that ``taken`` moved; wake it if that is what it may wait for."""
        self._words[_RELEASE] = next(self._counter) & _WORD_MASK
        if wake:
            self.fence()
            if self._words[_DAEMON_WAITING]:
                self._futex.wake()

    def fence(self) -> None:
        if self._fence.acquire(False):
            self._fence.release()


def _last_view_gone(lease: _Lease) -> None:
    releaser = lease.releaser
    if os.getpid() != releaser.pid:
        return
    # Forgotten before it is released: afterwards the slot may already carry the next lease.
    if releaser.leases.pop(lease.slot, None) is not None:
        releaser.release(lease.slot, lease.generation)


class Ring:
    """Takes entries from a mapped ring and gives slots back.

    Parameters
    ----------
    mapping : mmap.mmap
        The whole memfd, shared and writable. The ring keeps it alive as long as
        there are views of it, and never closes it.

    One thread takes; slots may be released from any thread.
    """

    def __init__(self, mapping: mmap.mmap) -> None:
        self.geometry = _layout.read_geometry(mapping, len(mapping))  # type: ignore[arg-type]
        self._mapping = mapping
        header = memoryview(mapping)[: _layout.HEADER_BYTES]
        self._words64 = header.cast("Q")
        self._words32 = header.cast("I")
        self._ready = Futex(mapping, _READY * 4)
        self._releaser = _Releaser(mapping, self.geometry)
        self._slot_type = ctypes.c_ubyte * self.geometry.slot_bytes  # one type a ring: making them is slow
        self._slots = self.geometry.slots
        self._mask = self.geometry.queue_entries - 1
        self._queue_offset = self.geometry.queue_offset
        self._taken = self._words64[_TAKEN]
        self._typical_wait = 0  # nanoseconds, a moving average
        self._batches_taken = 0
        self._batches_copied = 0

    @property
    def held(self) -> int:
        """Number of slots under live views."""
        return len(self._releaser.leases)

    @property
    def batches_copied(self) -> int:
        """Batches that were copied because the user keeps too many."""
        return self._batches_copied

    def take(self) -> Entry | None:
        """Take the next entry, or None if there is none. Never blocks.

        Raises
        ------
        ProtocolError
            The entry is not what the cursors say, or names bytes outside of its slot.
        """
        taken = self._taken
        published = self._words64[_PUBLISHED]
        if published <= taken:
            return None
        at = self._queue_offset + (taken & self._mask) * _layout.ENTRY_BYTES
        entry = Entry._make(ENTRY_STRUCT.unpack_from(self._mapping, at))
        self._check(entry, taken + 1)
        self._taken = taken + 1
        self._words64[_TAKEN] = taken + 1
        # Only with more untaken entries than slots can the daemon be waiting for this and not for a slot.
        self._releaser.bump(published - taken > self._slots)
        return entry

    def _check(self, entry: Entry, sequence: int) -> None:
        if entry.sequence != sequence:
            raise _broken(f"entry {sequence} carries the sequence {entry.sequence}")
        if entry.slot >= self._slots and entry.slot != NO_SLOT:
            raise _broken(f"entry {sequence} names slot {entry.slot} of {self._slots}")
        if entry.bytes > self.geometry.slot_bytes and not entry.flags & FLAG_OVERSIZED:
            raise _broken(f"entry {sequence} has {entry.bytes} bytes, a slot {self.geometry.slot_bytes}")

    def own(self, entry: Entry) -> Any:
        """Make the entry's slot the caller's until the last view of the result is gone.

        Returns a writable buffer that starts where the slot starts: the slot
        itself, or a private copy of its used part if the user keeps too many.
        """
        if self._too_many_kept():
            return self._copy(entry, self.view(entry))
        at = self.geometry.slots_offset + entry.slot * self.geometry.slot_bytes
        buffer = self._slot_type.from_buffer(self._mapping, at)
        self._lease(entry, buffer)
        return buffer

    def own_oversized(self, entry: Entry, memory: mmap.mmap) -> Any:
        """As :meth:`own`, for a batch that lies in ``memory``; the slot stands for it.

        Raises
        ------
        ProtocolError
            The entry names no slot, or more bytes than the memory has.
        """
        if entry.slot == NO_SLOT or entry.bytes > len(memory):
            raise _broken(
                f"oversized entry {entry.sequence} names slot {entry.slot} and {entry.bytes} bytes of {len(memory)}"
            )
        if self._too_many_kept():
            with memoryview(memory) as view:
                return self._copy(entry, view[: entry.bytes])
        buffer = (ctypes.c_ubyte * len(memory)).from_buffer(memory)
        self._lease(entry, buffer)
        return buffer

    def _too_many_kept(self) -> bool:
        """Count a batch; returns whether keeping its slot would leave the daemon too few."""
        self._batches_taken += 1
        self._words64[_BATCHES_TAKEN] = self._batches_taken
        return self._slots - len(self._releaser.leases) - 1 < FREE_SLOTS_KEPT

    def _copy(self, entry: Entry, view: memoryview) -> bytearray:
        """Copy a batch, and only then release its slot: afterwards its bytes are the daemon's."""
        self._batches_copied += 1
        self._words64[_BATCHES_COPIED] = self._batches_copied
        with view:
            copy = bytearray(view)
        self._releaser.release(entry.slot, entry.generation)
        return copy

    def _lease(self, entry: Entry, buffer: Any) -> None:
        """Release the entry's slot when the last view of ``buffer`` is gone."""
        lease = _Lease(buffer, _last_view_gone)
        lease.slot, lease.generation, lease.releaser = entry.slot, entry.generation, self._releaser
        self._releaser.leases[entry.slot] = lease

    def view(self, entry: Entry) -> memoryview:
        """The used bytes of the entry's slot; valid only until the slot is released."""
        at = self.geometry.slots_offset + entry.slot * self.geometry.slot_bytes
        return memoryview(self._mapping)[at : at + entry.bytes]

    def release(self, entry: Entry) -> None:
        """Give the entry's slot back at once, if it has one."""
        if entry.slot != NO_SLOT:
            self._releaser.release(entry.slot, entry.generation)

    def spin(self) -> bool:
        """Look for an entry for a few microseconds, if recent waits were that short."""
        if self._typical_wait > SPIN_IF_WAITS_BELOW:
            return False
        words, taken = self._words64, self._taken
        until = time.monotonic_ns() + SPIN_NANOSECONDS
        while time.monotonic_ns() < until:
            if words[_PUBLISHED] > taken:
                return True
        return False

    def sleep(self, nanoseconds: int = SLEEP_NANOSECONDS) -> None:
        """Sleep until there is an entry, at most ``nanoseconds``; may return early."""
        words = self._words32
        words[_TRAINER_WAITING] = 1
        try:
            self._releaser.fence()
            seen = words[_READY]
            if self._words64[_PUBLISHED] <= self._taken:
                self._ready.wait(seen, nanoseconds)
        finally:
            words[_TRAINER_WAITING] = 0

    def waited(self, nanoseconds: int) -> None:
        """Remember how long a wait for an entry was, for :meth:`spin`."""
        self._typical_wait = (3 * self._typical_wait + nanoseconds) // 4

    def publish_waits(self, total: int, by_cause: dict[str, int]) -> None:
        """Write the cumulative waits, in nanoseconds, where the daemon's metrics read them."""
        self._words64[_WAITED] = total
        for cause, word in _WAITED_BY_CAUSE:
            self._words64[word] = by_cause[cause]

    def publish_worst(self, place: int, waited: int, causes: dict[str, int], entry: Entry) -> None:
        """Write one of the longest waits, the one numbered ``place``, where the daemon's ``stalls`` reads it."""
        words = self._words64
        at = _WORST + place * _layout.WORST_WORDS
        words[at] = 0  # nothing is there while it is written
        for offset, cause in enumerate(_WORST_CAUSES):
            words[at + 1 + offset] = causes[cause]
        words[_WORST_TRANSFORM + place] = causes["transform"]
        words[at + 6], words[at + 7] = entry.sequence, entry.epoch
        words[at + 8], words[at + 9] = entry.position, entry.rows
        words[at] = waited

    def close(self) -> None:
        """Stop giving slots back: the session has ended. Live views stay valid."""
        self._releaser.leases.clear()

    def __del__(self) -> None:
        releaser = getattr(self, "_releaser", None)
        if releaser is not None:
            releaser.leases.clear()  # leases and releaser refer to each other; the mapping should go now


def _broken(why: str) -> ProtocolError:
    return ProtocolError(
        f"the ring is damaged: {why}",
        "session ring",
        "report this with the daemon's log; a program that writes outside of its own memory can also cause it",
    )

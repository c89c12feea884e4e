"""Where a session's entries come from: shared memory, or copies over the socket."""

from __future__ import annotations

import os
import time
from typing import Any, Final, Protocol

from . import _layout
from ._layout import ENTRY_BYTES, ENTRY_STRUCT, FLAG_OVERSIZED, Entry
from .client import Client
from .errors import BatchTimeoutError, DaemonGoneError, ProtocolError
from .ring import Ring

RING: Final = "ring"
SOCKET: Final = "socket"
_LARGEST_PAYLOAD: Final = 1 << 40


class Source(Protocol):
    """Where entries come from."""

    transport: str

    @property
    def held(self) -> int:
        """Slots under live views."""

    @property
    def copied(self) -> int:
        """Batches copied because the user keeps too many."""

    def take(self) -> Entry | None:
        """The next entry if it is there; never blocks."""

    def wait(self) -> Entry:
        """The next entry; blocks. Raises DaemonGoneError, BatchTimeoutError, ProtocolError."""

    def own(self, entry: Entry) -> Any:
        """A buffer with the entry's batch, the caller's as long as anything refers to it."""

    def drop(self, entry: Entry) -> None:
        """Give up an entry that nobody wants."""

    def message(self, entry: Entry) -> bytes:
        """The bytes of an error entry; gives its slot back."""

    def waited(self, nanoseconds: int, total: int, by_cause: dict[str, int]) -> None:
        """Take note of a wait for an entry, and of the session's sums so far, in nanoseconds."""

    def worst(self, place: int, nanoseconds: int, causes: dict[str, int], entry: Entry) -> None:
        """Take note of one of the session's longest waits, the one numbered ``place``."""

    def close(self) -> None:
        """End; buffers that were given out stay valid."""


class RingSource:
    """Entries from shared memory."""

    transport = RING

    def __init__(self, client: Client, ring: Ring) -> None:
        self._client = client
        self.ring = ring
        self.take = ring.take  # the fast path: no call in between

    @property
    def held(self) -> int:
        """See :class:`Source`."""
        return self.ring.held

    @property
    def copied(self) -> int:
        """See :class:`Source`."""
        return self.ring.batches_copied

    def wait(self) -> Entry:
        """See :class:`Source`. Entries that a daemon published before it ended are still taken."""
        ring, timeout = self.ring, self._client.timeout
        if ring.spin() and (entry := ring.take()) is not None:
            return entry
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            ring.sleep()
            if (entry := ring.take()) is not None:
                return entry
            try:
                self._client.poll()
            except DaemonGoneError:
                if (entry := ring.take()) is not None:
                    return entry
                raise
            if until is not None and time.monotonic() > until:
                raise BatchTimeoutError(
                    f"no batch within {timeout} s, though stokerd holds the connection open",
                    str(self._client.path),
                    "look at the log of stokerd, and at its disks; timeout= sets the limit, None removes it",
                )

    def own(self, entry: Entry) -> Any:
        """See :class:`Source`."""
        if entry.flags & FLAG_OVERSIZED:
            return self.ring.own_oversized(entry, self._client.take_oversized(entry.sequence))
        return self.ring.own(entry)

    def drop(self, entry: Entry) -> None:
        """See :class:`Source`."""
        if entry.flags & FLAG_OVERSIZED:
            self._client.take_oversized(entry.sequence)
        self.ring.release(entry)

    def message(self, entry: Entry) -> bytes:
        """See :class:`Source`."""
        text = bytes(self.ring.view(entry)) if entry.slot != _layout.NO_SLOT else b""
        self.ring.release(entry)
        return text

    def waited(self, nanoseconds: int, total: int, by_cause: dict[str, int]) -> None:
        """See :class:`Source`."""
        self.ring.waited(nanoseconds)
        self.ring.publish_waits(total, by_cause)

    def worst(self, place: int, nanoseconds: int, causes: dict[str, int], entry: Entry) -> None:
        """See :class:`Source`."""
        self.ring.publish_worst(place, nanoseconds, causes, entry)

    def close(self) -> None:
        """See :class:`Source`."""
        self.ring.close()


class SocketSource:
    """Entries copied over the socket, one request each."""

    transport = SOCKET
    held = 0
    copied = 0

    def __init__(self, client: Client) -> None:
        self._client = client
        self._payload = bytearray()
        self._transform = 0  # nanoseconds that were waited for a pool of transforms
        self._told = 0  # of them, those that the daemon knows of
        self._longest: tuple[int, Entry] | None = None  # of such waits that it does not know of

    def take(self) -> Entry | None:
        """See :class:`Source`. Nothing is ever here before it is asked for."""
        return None

    def wait(self) -> Entry:
        """See :class:`Source`."""
        answer, descriptors = self._client.request(self._next(), "batch")
        for descriptor in descriptors:
            os.close(descriptor)
        size = answer.get("bytes")
        if answer.get("entry_bytes") != ENTRY_BYTES or not isinstance(size, int) or not 0 <= size <= _LARGEST_PAYLOAD:
            raise ProtocolError(f"the daemon announced a batch as {answer!r:.200}", "session socket")
        head, self._payload = bytearray(ENTRY_BYTES), bytearray(size)
        self._client.read_payload(memoryview(head), memoryview(self._payload))
        return Entry._make(ENTRY_STRUCT.unpack(head))

    def _next(self) -> dict[str, Any]:
        """The request for an entry, which tells what the daemon cannot see."""
        request: dict[str, Any] = {"type": "next"}
        if self._transform > self._told:
            request["waited"] = {"total_ns": self._transform - self._told}
            if self._longest is not None:
                longest, entry = self._longest
                where = {name: getattr(entry, name) for name in ("sequence", "epoch", "position", "rows")}
                request["waited"].update(longest_ns=longest, **where)
            self._told, self._longest = self._transform, None
        return request

    def own(self, entry: Entry) -> Any:
        """See :class:`Source`."""
        return self._payload

    def drop(self, entry: Entry) -> None:
        """See :class:`Source`."""
        self._payload = bytearray()

    def message(self, entry: Entry) -> bytes:
        """See :class:`Source`."""
        return bytes(self._payload)

    def waited(self, nanoseconds: int, total: int, by_cause: dict[str, int]) -> None:
        """See :class:`Source`. The daemon sees the requests themselves; of the other waits the next one tells."""
        self._transform = by_cause["transform"]

    def worst(self, place: int, nanoseconds: int, causes: dict[str, int], entry: Entry) -> None:
        """See :meth:`waited`."""
        if causes["transform"] > (self._longest[0] if self._longest else 0):
            self._longest = causes["transform"], entry

    def close(self) -> None:
        """See :class:`Source`."""

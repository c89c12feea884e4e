"""An open session: a connection, where its batches come from, and where it stands.

Batches come through the ring (shared memory, no copy) or, where a descriptor
cannot be passed or mapped, over the socket (copied). Both are a :class:`stoker.source.Source`.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import _futex, _layout
from ._layout import Entry
from .batch import Column, read_columns
from .client import Client
from .errors import (
    ProtocolError,
    StokerError,
    StokerWarning,
    UnavailableError,
    error_from_answer,
)
from .ring import Ring
from .source import RING, SOCKET, RingSource, SocketSource, Source
from .stats import CAUSES

SEEDING: Final = "seeding"  # a feature of the daemon


@dataclass(frozen=True)
class Opened:
    """What the daemon said of the session; see the ``opened`` answer."""

    session: str
    index_id: str
    order_version: int
    samples: int
    format: str
    columns: tuple[Column, ...]
    classes: tuple[str, ...]


class Session:
    """One rank's open dataset.

    Attributes
    ----------
    epoch, consumed : int
        The position of the next entry that the daemon will give, if nobody seeks.
    halted : bool
        An error came; the daemon produces nothing until a seek.
    """

    def __init__(self, client: Client, source: Source, opened: Opened, epoch: int, consumed: int) -> None:
        self.client = client
        self.source = source
        self.opened = opened
        self.epoch = epoch
        self.consumed = consumed
        self.halted = False
        self._waited = 0
        self._waited_by_cause = dict.fromkeys(CAUSES, 0)
        self._worst = [0] * _layout.WORST_WAITS
        self._first_wanted = 0  # entries of a smaller sequence are from before a seek
        self._take = source.take

    def take(self) -> Entry | None:
        """The next entry if it is there. Never blocks."""
        entry = self._take()
        while entry is not None and entry.sequence < self._first_wanted:
            self.source.drop(entry)
            entry = self._take()
        return entry

    def wait(self) -> Entry:
        """The next entry; blocks."""
        while True:
            entry = self.source.wait()
            if entry.sequence >= self._first_wanted:
                return entry
            self.source.drop(entry)

    def seek(self, epoch: int, consumed: int) -> None:
        """Make the daemon go on from a position; does nothing if it is there."""
        if (epoch, consumed) == (self.epoch, self.consumed) and not self.halted:
            return
        request = {"type": "seek", "epoch": epoch, "samples_consumed": consumed}
        answer, descriptors = self.client.request(request, "seeked")
        _close_all(descriptors)
        first = answer.get("from_sequence")
        if not isinstance(first, int):
            raise ProtocolError(f"the daemon answered a seek without from_sequence: {answer!r:.200}", "session socket")
        self._first_wanted = first
        self.epoch, self.consumed, self.halted = epoch, consumed, False

    def waited(self, nanoseconds: int, causes: dict[str, int], entry: Entry) -> None:
        """Add the wait for a batch to the session's sums, which the daemon's metrics and ``stoker stalls`` show."""
        self._waited += nanoseconds
        for cause, share in causes.items():
            self._waited_by_cause[cause] += share
        self.source.waited(nanoseconds - causes["transform"], self._waited, self._waited_by_cause)
        least = min(self._worst)
        if nanoseconds > least:
            place = self._worst.index(least)
            self._worst[place] = nanoseconds
            self.source.worst(place, nanoseconds, causes, entry)

    def error(self, entry: Entry) -> StokerError:
        """The error that an entry of kind error carries."""
        self.halted = True
        try:
            return error_from_answer(json.loads(self.source.message(entry)))
        except ValueError:
            return ProtocolError("the daemon reported an error that is no JSON", f"entry {entry.sequence}")

    def statistics(self) -> dict[str, Any]:
        """The daemon's own view of the session."""
        answer, descriptors = self.client.request({"type": "stats"}, "stats")
        _close_all(descriptors)
        session = answer.get("session")
        return session if isinstance(session, dict) else {}

    def close(self) -> None:
        """End the session. Batches that were given out stay valid."""
        self.source.close()
        self.client.close()


def open_session(connect: Any, request: dict[str, Any], transport: str) -> Session:
    """Open a session.

    Parameters
    ----------
    connect : callable returning Client
        Makes a new connection; called again if the first try has to be repeated.
    request : dict
        The ``open`` message without ``transport``.
    transport : "auto", "ring" or "socket"
        "auto" takes the ring where it works, else the socket with a warning.
    """
    if transport != SOCKET:
        obstacle = _no_ring_here()
        if obstacle is None:
            client = connect()
            try:
                session, obstacle = _open_ring(client, request)
            except BaseException:
                client.close()
                raise
            if session is not None:
                return session
            client.close()
        if transport == RING:
            raise UnavailableError(
                f"batches cannot be passed in shared memory: {obstacle}",
                "transport='ring'",
                "use transport='auto', which copies them over the socket instead",
            )
        warnings.warn(
            f"Stoker copies batches over its socket, which is slower than shared memory: {obstacle}",
            StokerWarning,
            stacklevel=5,
        )
    client = connect()
    try:
        return _open_socket(client, request)
    except BaseException:
        client.close()
        raise


def _no_ring_here() -> str | None:
    if not _futex.supported():
        return "the ring needs Linux on x86-64"
    return None


def _open_ring(client: Client, request: dict[str, Any]) -> tuple[Session | None, str | None]:
    """Open with transport ring; returns the session, or why shared memory does not work."""
    if RING not in client.hello.get("features", ()):
        return None, "this stokerd does not offer it"
    _refuse_seeding(client, request)
    answer, descriptors = client.request({**request, "transport": RING}, "opened")
    try:
        if answer.get("transport", RING) != RING:
            return None, "stokerd chose the socket"
        if not descriptors:
            return (
                None,
                "the descriptor of the memory did not arrive, as in some sandboxes and above the limit of open files",
            )
        size = answer.get("ring", {}).get("total_bytes")
        if not isinstance(size, int) or size < _layout.HEADER_BYTES or os.fstat(descriptors[0]).st_size < size:
            raise ProtocolError(f"the daemon described its ring as {answer.get('ring')!r:.200}", "session socket")
        try:
            mapping = _map_shared(descriptors[0], size)
        except OSError as error:
            return None, f"mapping {size} bytes of it: {error.strerror}"
    finally:
        _close_all(descriptors)
    source = RingSource(client, Ring(mapping))
    return _session(client, source, answer, request), None


def _map_shared(descriptor: int, size: int) -> mmap.mmap:
    both = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):  # before, the mapping keeps a descriptor of its own as long as it lives
        return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=both, trackfd=False)
    return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=both)


def _refuse_seeding(client: Client, request: dict[str, Any]) -> None:
    """Refuse a daemon that would not look at ``seeding``, and so give other samples."""
    if "seeding" in request and SEEDING not in client.hello.get("features", ()):
        raise UnavailableError(
            f"this stokerd is too old for seeding={request['seeding']!r}",
            str(client.path),
            "update stokerd, or leave seeding out",
        )


def _open_socket(client: Client, request: dict[str, Any]) -> Session:
    _refuse_seeding(client, request)
    answer, descriptors = client.request({**request, "transport": SOCKET}, "opened")
    _close_all(descriptors)
    return _session(client, SocketSource(client), answer, request)


def _session(client: Client, source: Source, answer: dict[str, Any], request: dict[str, Any]) -> Session:
    try:
        opened = Opened(
            session=str(answer["session"]),
            index_id=str(answer["index_id"]),
            order_version=int(answer["order_version"]),
            samples=int(answer["samples"]),
            format=str(answer["format"]),
            columns=tuple(read_columns(answer["columns"])),
            classes=tuple(str(name) for name in answer.get("classes") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StokerError):
            raise
        raise ProtocolError(f"the daemon's answer to open lacks {error}", "session socket") from error
    return Session(client, source, opened, request["epoch"], request["samples_consumed"])


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

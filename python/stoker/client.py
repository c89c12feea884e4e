"""One connection to the daemon: the session socket's requests and answers.

SEQPACKET Unix socket, one JSON object a packet (UTF-8, at most 65536 bytes),
descriptors by SCM_RIGHTS on the packet that speaks of them. The client speaks
first, with ``hello``. Every request gets exactly one final answer: its own type
or ``error``; notes such as ``progress`` may come before it. Without being asked the daemon
sends ``oversized`` (a batch in a memfd of its own, before its entry is published)
and ``bye``. A message that does not fit a packet travels in a memfd, and the packet
is ``long`` with its size. End of file is the end of the daemon, or of its patience.

An interruption (Ctrl-C) in the middle of a request leaves the connection out of
step, so it is closed then; whoever owns it opens another.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import socket
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from . import _places
from ._dial import connect
from ._layout import PACKET_BYTES
from ._version import __version__
from .errors import (
    BatchTimeoutError,
    DaemonGoneError,
    InvalidError,
    ProtocolError,
    StokerError,
    error_from_answer,
)

PROTOCOL_VERSIONS: Final = (1, 1)
_FEATURES: Final = ("ring", "socket")
_DESCRIPTORS_A_PACKET: Final = 8
_LONG_BYTES_MAX: Final = 256 << 20  # a message that did not fit a packet: all classes of all datasets

Message = dict[str, Any]

# Connections of this process. A forked child closes its copies, so that end of file still means the parent's end.
_connections: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A connection that has said hello.

    Parameters
    ----------
    runtime_dir : path or None
        Where the daemon's socket is; None looks in the usual places.
    timeout : float or None
        Seconds that any one answer may take; None waits for ever.

    Not for use by several threads at once.
    """

    def __init__(self, runtime_dir: str | os.PathLike[str] | None = None, *, timeout: float | None = 60.0) -> None:
        self.pid = os.getpid()
        self.timeout = timeout
        self.farewell: str | None = None  # why the daemon said bye
        self.oversized: dict[int, mmap.mmap] = {}  # sequence -> its batch, in the format of a slot
        self._buffer = bytearray(PACKET_BYTES + 1)
        directories = _places.runtime_directories(runtime_dir)
        try:
            self._connect(directories)
        except (DaemonGoneError, InvalidError):
            if self.farewell is not None:
                raise
            # The daemon gives up on who says no hello for seconds, which may be a process that was paused just then.
            self._connect(directories)

    def _connect(self, directories: Sequence[Path]) -> None:
        self._socket, self.path = connect(directories)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        _connections.add(self)
        try:
            self.hello = self._hello()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Close the connection; the daemon ends the session of it. Harmless when closed."""
        self._socket.close()
        self.oversized.clear()

    def __del__(self) -> None:
        # A Dataset that is no longer used ends its session without a word, and without a ResourceWarning.
        connection = getattr(self, "_socket", None)
        if connection is not None:
            connection.close()

    def request(
        self,
        message: Message,
        answer: str,
        *,
        descriptors: Sequence[int] = (),
        notes: Mapping[str, Callable[[Message], None]] | None = None,
    ) -> tuple[Message, list[int]]:
        """Ask, and wait for the answer of type ``answer``.

        Returns the answer and the descriptors that came with it, which are the
        caller's to close. ``notes`` says what to call with the messages that may
        come before it, by their type; ``progress`` is ignored if it is not there.

        Raises
        ------
        StokerError
            What the daemon answered, or ProtocolError, DaemonGoneError,
            BatchTimeoutError; after these three the connection is closed.
        """
        try:
            self._send(message, descriptors)
            return self._answer(str(message["type"]), answer, notes or {})
        except (ProtocolError, DaemonGoneError, BatchTimeoutError):
            self.close()
            raise
        except StokerError:
            raise
        except BaseException:
            self.close()
            raise

    def read_payload(self, head: memoryview, body: memoryview) -> None:
        """Fill ``head``, then ``body``, from the raw packets that follow a ``batch`` answer.

        Together they are one run of bytes, split every 65536; ``head`` is shorter than that.
        """
        first = PACKET_BYTES - len(head)
        try:
            self._wait_readable("batch")
            count = self._socket.recvmsg_into([head, body[:first]])[0]
            at = count - len(head)
            while 0 <= at < len(body):
                self._wait_readable("batch")
                count = self._socket.recv_into(body[at : at + PACKET_BYTES])
                at = at + count if count else -1
            if at < 0:
                raise self._gone()
        except OSError as error:
            self.close()
            raise self._gone(error) from error
        except BaseException:
            self.close()
            raise

    def poll(self) -> None:
        """Handle what the daemon sent without being asked, without blocking.

        Raises
        ------
        DaemonGoneError
            It said bye, or closed the connection.
        """
        while not self.closed and self._poll.poll(0):
            self._unsolicited(*self._receive())
        if self.farewell is not None or self.closed:
            raise self._gone()

    def take_oversized(self, sequence: int) -> mmap.mmap:
        """The batch of an entry that is flagged oversized.

        Its message was sent before its entry. After a seek there may be an older
        one of the same sequence, whose entry never was published: the last counts,
        so all that has arrived is read first. Older ones are dropped: entries are
        taken in order, so nobody will ask for them.
        """
        with contextlib.suppress(DaemonGoneError):
            self.poll()
        while sequence not in self.oversized:
            self._wait_readable("oversized batch")
            self._unsolicited(*self._receive())
        taken = self.oversized.pop(sequence)
        for stale in [older for older in self.oversized if older < sequence]:
            del self.oversized[stale]
        return taken

    def _hello(self) -> Message:
        low, high = PROTOCOL_VERSIONS
        message = {
            "type": "hello",
            "min": low,
            "max": high,
            "features": list(_FEATURES),
            "client": _places.client_name(__version__),
        }
        answer, descriptors = self.request(message, "hello")
        _close_all(descriptors)
        version = answer.get("version")
        if not isinstance(version, int) or not low <= version <= high:
            raise ProtocolError(
                f"the daemon chose protocol version {version!r}, this client speaks {low} to {high}",
                str(self.path),
                "install the version of the Python package stoker that belongs to the running stokerd",
            )
        return answer

    def _send(self, message: Message, descriptors: Sequence[int]) -> None:
        packet = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
        if len(packet) > PACKET_BYTES:
            raise InvalidError(
                f"the {message['type']} request has {len(packet)} bytes, more than {PACKET_BYTES}",
                str(message["type"]),
                "shorten the lists in it, for example with globs instead of single files",
            )
        if self.closed:
            raise self._gone()
        try:
            socket.send_fds(self._socket, [packet], list(descriptors))
        except OSError as error:
            raise self._gone(error) from error

    def _answer(
        self, asked: str, wanted: str, notes: Mapping[str, Callable[[Message], None]]
    ) -> tuple[Message, list[int]]:
        while True:
            self._wait_readable(f"answer to {asked}")
            message, descriptors = self._receive()
            kind = str(message["type"])
            if kind == wanted:
                return message, descriptors
            if kind == "progress" or kind in notes:
                _close_all(descriptors)
                if note := notes.get(kind):
                    note(message)
                continue
            if kind == "error":
                _close_all(descriptors)
                raise error_from_answer(message.get("error"))
            self._unsolicited(message, descriptors)

    def _wait_readable(self, what: str) -> None:
        if self.closed:
            raise self._gone()
        milliseconds = None if self.timeout is None else max(1, int(self.timeout * 1000))
        if not self._poll.poll(milliseconds):
            raise BatchTimeoutError(
                f"no {what} within {self.timeout} s, though the daemon holds the connection open",
                str(self.path),
                "look at the log of stokerd, and at its disks; timeout= sets the limit, None removes it",
            )

    def _receive(self) -> tuple[Message, list[int]]:
        """Receive one packet; the socket is readable."""
        try:
            packet, descriptors, flags, _ = socket.recv_fds(
                self._socket, PACKET_BYTES + 1, _DESCRIPTORS_A_PACKET, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise self._gone(error) from error
        if not packet:
            _close_all(descriptors)
            raise self._gone()
        try:
            if flags & socket.MSG_TRUNC or len(packet) > PACKET_BYTES:
                raise self._nonsense(f"a packet of more than {PACKET_BYTES} bytes")
            message = self._parse(packet)
            if message["type"] == "long":
                message = self._long(message, descriptors)
            return message, descriptors
        except BaseException:
            _close_all(descriptors)
            raise

    def _long(self, note: Message, descriptors: list[int]) -> Message:
        """Return the message that a ``long`` stands for: it lies in the first descriptor, which is used up.

        It is copied here and now: the daemon takes its pages back at the connection's next request.
        """
        size = note.get("bytes")
        if not isinstance(size, int) or not 0 < size <= _LONG_BYTES_MAX or not descriptors:
            raise self._nonsense("a long message without size or descriptor")
        with os.fdopen(descriptors.pop(0), "rb") as file:
            return self._parse(file.read(size))

    def _parse(self, packet: bytes) -> Message:
        try:
            message = json.loads(packet)
        except (ValueError, RecursionError):
            raise self._nonsense(f"a packet that is no JSON: {packet[:80]!r}") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise self._nonsense(f"a message without a type: {packet[:80]!r}")
        return message

    def _unsolicited(self, message: Message, descriptors: list[int]) -> None:
        """Handle a message that answers nothing; takes over its descriptors."""
        try:
            if message["type"] == "bye":
                self.farewell = str(message.get("reason") or "no reason given")
            elif message["type"] == "oversized":
                self._keep_oversized(message, descriptors)
            elif message["type"] == "error":
                raise error_from_answer(message.get("error"))
            else:
                raise self._nonsense(f"a message of type {message['type']!r}, which was not asked for")
        finally:
            _close_all(descriptors)

    def _keep_oversized(self, message: Message, descriptors: list[int]) -> None:
        sequence, size = message.get("sequence"), message.get("bytes")
        if not isinstance(sequence, int) or not isinstance(size, int) or size <= 0 or not descriptors:
            raise self._nonsense("an oversized batch without sequence, size or descriptor")
        self.oversized[sequence] = map_private(descriptors[0], size)

    def _gone(self, error: OSError | None = None) -> DaemonGoneError:
        if self.farewell is not None:
            what = f"stokerd ended ({self.farewell})"
        else:
            what = "stokerd closed the connection" + (f" ({error.strerror})" if error and error.strerror else "")
        return DaemonGoneError(
            what,
            str(self.path),
            "start it again with `stokerd`, then call next() again or load the last state_dict(): the position is "
            "kept; with reconnect=True a Dataset waits for a new daemon and continues by itself",
        )

    def _nonsense(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"the daemon sent {what}",
            str(self.path),
            "check that this is the socket of stokerd, and that stokerd and the Python package are of the same release",
        )


def map_private(descriptor: int, size: int) -> mmap.mmap:
    """Map ``size`` bytes of a sealed memfd copy-on-write: writable here, unchanged there."""
    actual = os.fstat(descriptor).st_size
    if actual < size:
        raise ProtocolError(
            f"a descriptor of {actual} bytes came for {size} bytes",
            "session socket",
            "check that stokerd and the Python package stoker are of the same release",
        )
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False)
    return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)


def read_all(descriptor: int, size: int) -> bytearray:
    """Read ``size`` bytes from the start of a descriptor into memory of its own."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = os.preadv(descriptor, [view[at:]], at)
        if count == 0:
            raise ProtocolError(f"a descriptor of {at} bytes came for {size} bytes", "session socket")
        at += count
    return data


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _forget_inherited_connections() -> None:
    for client in list(_connections):
        with contextlib.suppress(OSError):
            client.close()


os.register_at_fork(after_in_child=_forget_inherited_connections)

"""The message that carries a slab of device memory to another process.

It crosses a Unix socket (stream or seqpacket), 160 bytes, little-endian, with one
descriptor (SCM_RIGHTS) if kind is 1::

    +-----------+------+-------+--------------+-------------+--------+------+-----+---------+--------+
    | "SLB1"    | kind | bytes | mapped bytes | granularity | device | pid  | 0   | handle  | 0      |
    +-----------+------+-------+--------------+-------------+--------+------+-----+---------+--------+
    0           4      8       16             24            32       48     56    64        128    160

Kind 1: the descriptor names a CUDA VMM allocation of *mapped bytes*. Kind 2: the
handle is that of legacy CUDA IPC. *device* is the UUID of the GPU that holds the
memory; *pid* is who exported it. Vectors of both languages:
``cufile/testdata/slab-message.json``.

Everything in a message is hostile until checked here. Nothing here depends on CUDA.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .errors import DaemonGoneError, ProtocolError

MAGIC: Final = b"SLB1"
MESSAGE_BYTES: Final = 160
KIND_DESCRIPTOR: Final = 1
KIND_LEGACY: Final = 2
_STRUCT: Final = struct.Struct("<4sIQQQ16sQ8s64s32s")
_MOST_BYTES: Final = 1 << 47  # of addresses: what x86-64 and CUDA's unified addressing have
_MOST_DESCRIPTORS: Final = 253  # SCM_MAX_FD of Linux: all that one message can bring, so that none is lost unseen
if _STRUCT.size != MESSAGE_BYTES:
    raise AssertionError("the struct format does not add up to the message")


class SlabMessage(NamedTuple):
    """A checked message; sizes in bytes."""

    kind: int
    slab_bytes: int
    mapped_bytes: int
    granularity: int
    device: bytes
    pid: int
    handle: bytes


def decode(data: bytes | bytearray | memoryview) -> SlabMessage:
    """Read and check a message.

    Raises
    ------
    ProtocolError
        It is no slab message, or it contradicts itself.
    """
    if len(data) != MESSAGE_BYTES:
        raise _refused(f"it has {len(data)} bytes, not {MESSAGE_BYTES}")
    magic, kind, size, mapped, granularity, device, pid, zeros, handle, more_zeros = _STRUCT.unpack(data)
    if magic != MAGIC:
        raise _refused(f"it begins with {magic!r}, not {MAGIC!r}")
    if kind not in (KIND_DESCRIPTOR, KIND_LEGACY):
        raise _refused(f"its kind is {kind}; this client knows 1 (descriptor) and 2 (legacy IPC)")
    if any(zeros) or any(more_zeros) or (kind == KIND_DESCRIPTOR and any(handle)):
        raise _refused("bytes that must be zero are not")
    if not 0 < size <= mapped <= _MOST_BYTES:
        raise _refused(f"it speaks of {size} bytes in a mapping of {mapped}")
    if granularity & (granularity - 1) or (kind == KIND_DESCRIPTOR and granularity < 4096):
        raise _refused(f"its granularity is {granularity} bytes")
    if granularity and mapped % granularity:
        raise _refused(f"its mapping of {mapped} bytes is no multiple of its granularity, {granularity}")
    return SlabMessage(kind, size, mapped, granularity, device, pid, handle)


def receive(connection: socket.socket) -> tuple[SlabMessage, int | None]:
    """Receive a message, and the descriptor that belongs to it: the caller's to close; None if kind is 2.

    Blocks as long as the socket's timeout lets it, which is for the whole message. Whatever descriptors came with
    a message that is refused are closed.

    Raises
    ------
    DaemonGoneError
        The connection ended before a whole message.
    ProtocolError
        See :func:`decode`; or the descriptor is missing, or there are several.
    TimeoutError
        It did not come in time.
    """
    data, descriptors = bytearray(), list[int]()
    with _closed_on_error(descriptors), _one_timeout(connection) as wait:
        while len(data) < MESSAGE_BYTES:
            wait()
            part = _receive_part(connection, MESSAGE_BYTES - len(data), descriptors)
            if not part:
                raise _ended(len(data))
            data += part
            if connection.type == socket.SOCK_SEQPACKET:
                break
        message = decode(data)
        expected = 1 if message.kind == KIND_DESCRIPTOR else 0
        if len(descriptors) != expected:
            raise _refused(f"{len(descriptors)} descriptors came with it; its kind, {message.kind}, has {expected}")
    return message, descriptors[0] if descriptors else None


def _receive_part(connection: socket.socket, limit: int, descriptors: list[int]) -> bytes:
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    try:
        part, ancillary, flags, _ = connection.recvmsg(limit, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it ended, and had not read what we sent
        return b""
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i")
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
            descriptors.extend(found)
    if flags & socket.MSG_CTRUNC:
        raise ProtocolError(
            "a slab came without its descriptor: this process could not open one more",
            "slab socket",
            "raise the limit of open files (ulimit -n), or close files that are no longer used",
        )
    if flags & socket.MSG_TRUNC:
        raise _refused(f"it has more than {MESSAGE_BYTES} bytes")
    return part


@contextlib.contextmanager
def _one_timeout(connection: socket.socket) -> Iterator[Callable[[], None]]:
    """Let a socket's timeout hold for several calls together: the function that is yielded comes before each."""
    patience = connection.gettimeout()
    until = time.monotonic() + (patience or 0)

    def wait() -> None:
        if patience:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no whole slab message came in {patience:g} s")
            connection.settimeout(left)

    try:
        yield wait
    finally:
        connection.settimeout(patience)


@contextlib.contextmanager
def _closed_on_error(descriptors: list[int]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _ended(received: int) -> DaemonGoneError:
    return DaemonGoneError(
        f"the connection ended after {received} of the {MESSAGE_BYTES} bytes of a slab message",
        "slab socket",
        "see whether the process that shares the slab still runs, and why it ended; then connect again",
    )


def _refused(why: str) -> ProtocolError:
    return ProtocolError(f"what came is no slab message that this client understands: {why}", "slab socket")

"""The slab message: the vectors that Go reads as well, and what a socket may do to it."""

from __future__ import annotations

import array
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from stoker import _slab
from stoker.errors import DaemonGoneError, ProtocolError

VECTORS: dict[str, Any] = json.loads((REPOSITORY / "cufile" / "testdata" / "slab-message.json").read_text())
ACCEPTED: list[dict[str, Any]] = VECTORS["accepted"]
GOOD = bytes.fromhex(ACCEPTED[0]["hex"])
LEGACY = bytes.fromhex(next(vector["hex"] for vector in ACCEPTED if vector["kind"] == 2))
SOCKETS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["name"])
def test_fields_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    message = _slab.decode(bytes.fromhex(vector["hex"]))
    assert (message.kind, message.slab_bytes, message.mapped_bytes) == (
        vector["kind"],
        vector["bytes"],
        vector["mapped_bytes"],
    )
    assert (message.granularity, message.pid) == (vector["granularity"], vector["pid"])
    assert (message.device.hex(), message.handle.hex()) == (vector["device"], vector["handle"])


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_a_message_that_contradicts_itself_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="no slab message"):
        _slab.decode(bytes.fromhex(vector["hex"]))


@given(st.binary(max_size=400))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        _slab.decode(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_keeps_the_message_whole(at: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = value
    try:
        message = _slab.decode(changed)
    except ProtocolError:
        return
    assert 0 < message.slab_bytes <= message.mapped_bytes
    assert message.mapped_bytes % message.granularity == 0


@contextmanager
def pair(kind: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; whatever the test does, no descriptor is left."""
    before = descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        yield ours, theirs
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def send(connection: socket.socket, data: bytes, count: int = 1) -> None:
    """Send bytes with ``count`` descriptors of this process."""
    here = os.open("/proc/self/exe", os.O_RDONLY)
    try:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [here] * count))] if count else []
        connection.sendmsg([data], passed)
    finally:
        os.close(here)


@pytest.mark.parametrize("kind", SOCKETS)
def test_the_descriptor_comes_with_its_message_and_is_closed_on_exec(kind: int) -> None:
    with pair(kind) as (ours, theirs):
        send(theirs, GOOD)
        message, descriptor = _slab.receive(ours)
        assert message == _slab.decode(GOOD)
        assert descriptor is not None
        assert os.path.samestat(os.fstat(descriptor), os.stat("/proc/self/exe"))
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_legacy_handle_comes_without_a_descriptor(kind: int) -> None:
    with pair(kind) as (ours, theirs):
        send(theirs, LEGACY, 0)
        assert _slab.receive(ours) == (_slab.decode(LEGACY), None)


def test_a_stream_may_bring_the_message_in_pieces() -> None:
    with pair(socket.SOCK_STREAM) as (ours, theirs):
        send(theirs, GOOD[:1])
        for at in range(1, len(GOOD), 53):
            send(theirs, GOOD[at : at + 53], 0)
        message, descriptor = _slab.receive(ours)
        assert message == _slab.decode(GOOD)
        assert descriptor is not None
        os.close(descriptor)


@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize(
    ("data", "count", "what"),
    [
        (GOOD, 0, "0 descriptors came"),
        (GOOD, 2, "2 descriptors came"),
        (GOOD, 200, "200 descriptors came"),
        (LEGACY, 1, "1 descriptors came"),
        (b"?" * len(GOOD), 1, "begins with"),
    ],
)
def test_what_came_with_a_refused_message_is_closed(kind: int, data: bytes, count: int, what: str) -> None:
    with pair(kind) as (ours, theirs):
        send(theirs, data, count)
        with pytest.raises(ProtocolError, match=what):
            _slab.receive(ours)


@pytest.mark.parametrize(("length", "what"), [(159, "159 bytes, not 160"), (161, "more than 160 bytes")])
def test_a_packet_of_another_length_is_refused(length: int, what: str) -> None:
    with pair(socket.SOCK_SEQPACKET) as (ours, theirs):
        send(theirs, (GOOD * 2)[:length])
        with pytest.raises(ProtocolError, match=what):
            _slab.receive(ours)


@pytest.mark.parametrize("kind", SOCKETS)
def test_the_end_of_the_exporter_is_named(kind: int) -> None:
    with pair(kind) as (ours, theirs):
        theirs.close()
        with pytest.raises(DaemonGoneError, match="after 0 of the 160 bytes"):
            _slab.receive(ours)


@pytest.mark.parametrize("kind", SOCKETS)
def test_an_exporter_that_ends_before_it_reads_is_named_as_well(kind: int) -> None:
    with pair(kind) as (ours, theirs):
        ours.send(b"?")
        theirs.close()
        with pytest.raises(DaemonGoneError, match="after 0 of the 160 bytes"):
            _slab.receive(ours)


def test_a_message_that_trickles_is_waited_for_no_longer_than_the_timeout() -> None:
    with pair(socket.SOCK_STREAM) as (ours, theirs):
        ours.settimeout(0.3)

        def trickle() -> None:
            send(theirs, GOOD[:1])
            for at in range(1, 100):
                time.sleep(0.05)
                if ended.is_set():
                    return
                send(theirs, GOOD[at : at + 1], 0)

        ended = threading.Event()
        exporter = threading.Thread(target=trickle)
        exporter.start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            _slab.receive(ours)
        assert time.monotonic() - began < 2
        assert ours.gettimeout() == 0.3
        ended.set()
        exporter.join()


def test_the_end_in_the_middle_of_a_message_leaves_no_descriptor() -> None:
    with pair(socket.SOCK_STREAM) as (ours, theirs):
        send(theirs, GOOD[:100])
        theirs.close()
        with pytest.raises(DaemonGoneError, match="after 100 of the 160 bytes"):
            _slab.receive(ours)


def test_a_full_table_of_descriptors_is_said_to_be_that() -> None:
    with pair(socket.SOCK_STREAM) as (ours, theirs):
        send(theirs, GOOD)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(ours.fileno())]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.dup(ours.fileno()))
            with pytest.raises(ProtocolError, match="could not open one more"):
                _slab.receive(ours)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)

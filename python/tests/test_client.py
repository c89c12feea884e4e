"""The session socket against daemons that misbehave."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeConnection, FakeDaemon

import stoker
from stoker import _places
from stoker.client import Client
from stoker.errors import (
    BatchTimeoutError,
    ChangedError,
    DaemonGoneError,
    DaemonNotRunningError,
    InvalidError,
    PermissionDeniedError,
    ProtocolError,
    StokerError,
    UnavailableError,
    VersionError,
    error_from_answer,
)


def ask(tmp_path: Path, behave: Callable[[FakeConnection], None], timeout: float | None = 10.0) -> Any:
    with FakeDaemon(tmp_path, behave):
        client = Client(tmp_path, timeout=timeout)
        try:
            return client.request({"type": "dataset_info", "name": "n"}, "dataset")
        finally:
            client.close()


def descriptors_in_use() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_hello_names_the_range_of_versions_and_the_client(tmp_path: Path) -> None:
    said = []

    def behave(connection: FakeConnection) -> None:
        said.append(connection.hello())
        connection.wait_for_end()

    with FakeDaemon(tmp_path, behave):
        Client(tmp_path).close()
    assert said == [
        {
            "type": "hello",
            "min": 1,
            "max": 1,
            "features": ["ring", "socket"],
            "client": f"stoker-python/{stoker.__version__}",
        }
    ]


def test_a_place_on_the_node_is_part_of_the_introduction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert _places.client_name("1.0") == "stoker-python/1.0 local-rank 3/8"


def test_a_daemon_that_speaks_no_common_version_is_refused_with_its_reason(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.receive()
        error = {"code": "version", "what": "the client speaks 1 to 1, the daemon 2 to 3", "remedy": "update"}
        connection.send({"type": "error", "error": error})

    with pytest.raises(VersionError, match="speaks 1 to 1") as raised:
        ask(tmp_path, behave)
    assert raised.value.remedy == "update"


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_version_outside_of_the_offered_range_is_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(ProtocolError, match="this client speaks 1 to 1"):
        ask(tmp_path, lambda connection: print(connection.hello(version=version)))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"type":7}',
        b'{"type":"surprise"}',
        b"[" * 30000,
        b" " * 70000,
    ],
    ids=lambda packet: repr(packet[:12]),
)
def test_a_garbage_answer_is_a_protocol_error_and_closes_the_connection(tmp_path: Path, garbage: bytes) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        connection.send(garbage)
        connection.wait_for_end()

    before = descriptors_in_use()
    with pytest.raises(ProtocolError, match="same release"):
        ask(tmp_path, behave)
    assert descriptors_in_use() == before


def test_an_error_without_a_code_is_a_protocol_error() -> None:
    nonsense: list[object] = [None, [], "no", {}, {"code": 3}]
    for error in nonsense:
        assert isinstance(error_from_answer(error), ProtocolError)


def test_an_unknown_code_keeps_its_name_and_its_remedy() -> None:
    error = error_from_answer({"code": "on_fire", "what": "w", "where": "x", "remedy": "run"})
    assert type(error) is StokerError
    assert (error.code, str(error)) == ("on_fire", "x: w\n  what to do: run")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("changed", ChangedError), ("invalid", InvalidError), ("unavailable", UnavailableError)],
)
def test_each_code_has_its_class(code: str, kind: type[StokerError]) -> None:
    assert type(error_from_answer({"code": code, "what": "w"})) is kind


def test_end_of_file_in_place_of_an_answer_is_the_daemons_end(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()

    with pytest.raises(DaemonGoneError, match="reconnect=True"):
        ask(tmp_path, behave)


def test_end_of_file_in_place_of_hello_is_the_daemons_end(tmp_path: Path) -> None:
    with pytest.raises(DaemonGoneError, match="start it again"):
        ask(tmp_path, lambda connection: None)


_NO_HELLO: dict[str, Any] = {"type": "error", "error": {"code": "invalid", "what": "no hello within 5s"}}


@pytest.mark.parametrize("last", [None, _NO_HELLO], ids=["end of file", "refusal"])
@pytest.mark.parametrize("failures", [1, 2])
def test_a_connection_that_ends_before_its_hello_is_made_once_more(
    tmp_path: Path, last: dict[str, Any] | None, failures: int
) -> None:
    made = []

    def behave(connection: FakeConnection) -> None:
        made.append(connection)
        if len(made) > failures:
            connection.hello()
            connection.receive()
        elif last is not None:
            connection.receive()
            connection.send(last)

    with FakeDaemon(tmp_path, behave):
        if failures == 1:
            Client(tmp_path, timeout=10.0).close()
        else:
            with pytest.raises(DaemonGoneError if last is None else InvalidError):
                Client(tmp_path, timeout=10.0)
    assert len(made) == 2


def test_end_of_file_in_the_middle_of_a_batch_is_the_daemons_end(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        connection.send({"type": "batch", "entry_bytes": 128, "bytes": 100_000})
        connection.send(b"x" * 65536)

    with FakeDaemon(tmp_path, behave):
        client = Client(tmp_path)
        client.request({"type": "next"}, "batch")
        with pytest.raises(DaemonGoneError):
            client.read_payload(memoryview(bytearray(128)), memoryview(bytearray(100_000)))
        assert client.closed


def test_a_bye_before_the_answer_names_its_reason(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        connection.send({"type": "bye", "reason": "shutdown"})

    with pytest.raises(DaemonGoneError, match=r"stokerd ended \(shutdown\)"):
        ask(tmp_path, behave)


def test_progress_before_the_answer_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    def behave(connection: FakeConnection) -> None:
        connection.hello()
        request = connection.receive()
        assert (request["path"], request["include"]) == (str(tmp_path / "data"), ["*.bin"])
        for done in (1, 2):
            connection.send({"type": "progress", "files_done": done, "files_total": 2, "bytes_done": 10 * done})
        connection.send({"type": "dataset", "dataset": {"name": "n", "samples": 2, "unknown_field": 1}})
        connection.wait_for_end()

    seen: list[stoker.Progress] = []
    with FakeDaemon(tmp_path, behave):
        info = stoker.add_dataset("n", tmp_path / "data", include="*.bin", progress=seen.append, runtime_dir=tmp_path)
    assert seen == [stoker.Progress(1, 2, 10), stoker.Progress(2, 2, 20)]
    assert (info.name, info.samples) == ("n", 2)


def test_an_oversized_message_that_comes_before_an_answer_is_kept(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        for content in (b"old!", b"new!"):  # a seek made the older one void: its entry was never published
            descriptor = os.memfd_create("oversized")
            os.write(descriptor, content)
            connection.send({"type": "oversized", "sequence": 5, "bytes": 4}, [descriptor])
            os.close(descriptor)
            if content == b"old!":
                connection.send({"type": "seeked", "from_sequence": 5})
        connection.wait_for_end()

    before = descriptors_in_use()
    with FakeDaemon(tmp_path, behave):
        client = Client(tmp_path)
        client.request({"type": "seek", "epoch": 0, "samples_consumed": 0}, "seeked")
        deadline = time.monotonic() + 10
        while not client._poll.poll(0):
            assert time.monotonic() < deadline
        assert client.take_oversized(5)[:] == b"new!"
        client.close()
    assert descriptors_in_use() == before


@pytest.mark.parametrize(
    "message",
    [
        {"type": "oversized", "sequence": 5, "bytes": 4},
        {"type": "oversized", "sequence": "5", "bytes": 4},
        {"type": "oversized", "sequence": 5, "bytes": 0},
        {"type": "oversized", "sequence": 5, "bytes": 10**9},
    ],
    ids=str,
)
def test_an_oversized_message_that_lies_is_a_protocol_error(tmp_path: Path, message: dict[str, Any]) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        descriptor = os.memfd_create("oversized")
        connection.send(message, [descriptor] if message["bytes"] != 4 else [])
        os.close(descriptor)
        connection.wait_for_end()

    before = descriptors_in_use()
    with pytest.raises(ProtocolError):
        ask(tmp_path, behave)
    assert descriptors_in_use() == before


def send_long(connection: FakeConnection, content: bytes, size: int) -> None:
    descriptor = os.memfd_create("long")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    connection.send({"type": "long", "bytes": size}, [descriptor])
    os.close(descriptor)


def test_an_answer_that_fits_no_packet_comes_in_a_memfd(tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(20_000)]

    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        content = json.dumps({"type": "dataset", "dataset": {"name": "n", "classes": classes}}).encode()
        send_long(connection, content, len(content))
        connection.wait_for_end()

    before = descriptors_in_use()
    answer, descriptors = ask(tmp_path, behave)
    assert answer["dataset"]["classes"] == classes
    assert descriptors == []
    assert descriptors_in_use() == before


@pytest.mark.parametrize(
    ("content", "size"), [(b"{}", 2), (b"no json", 7), (b'{"type":"dataset"}', 5), (b"", 0), (b"", -1), (b"", 1 << 40)]
)
def test_a_long_answer_that_lies_is_a_protocol_error(tmp_path: Path, content: bytes, size: int) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        send_long(connection, content, size)
        connection.wait_for_end()

    before = descriptors_in_use()
    with pytest.raises(ProtocolError):
        ask(tmp_path, behave)
    assert descriptors_in_use() == before


def test_a_silent_daemon_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.wait_for_end()

    with pytest.raises(BatchTimeoutError, match=r"no answer to dataset_info within 0\.05 s"):
        ask(tmp_path, behave, timeout=0.05)


def test_a_request_larger_than_a_packet_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.wait_for_end()

    with FakeDaemon(tmp_path, behave), pytest.raises(InvalidError, match="shorten the lists"):
        stoker.add_dataset("n", tmp_path, include=["x" * 70000], runtime_dir=tmp_path)


def test_without_a_daemon_the_error_says_how_to_start_it_and_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunningError) as raised:
        Client(tmp_path / "nowhere")
    assert "start it with `stokerd`" in str(raised.value)
    assert str(tmp_path / "nowhere" / "session.sock") in str(raised.value)


def test_a_socket_that_nobody_listens_on_is_no_daemon(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "session.sock"))
    listener.close()
    with pytest.raises(DaemonNotRunningError, match="Connection refused"):
        Client(tmp_path)


def test_something_else_that_listens_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "session.sock"))
        listener.listen()
        with pytest.raises(UnavailableError, match="wrong type"):
            Client(tmp_path)


def test_a_directory_with_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with FakeDaemon(tmp_path, lambda connection: print(connection.hello())):
        os.link(tmp_path / "session.sock", deep / "session.sock")
        Client(deep).close()


def test_all_usual_places_are_tried_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    places = _places.runtime_directories(None)
    assert places == [tmp_path / "stoker", Path("/run/stoker"), Path(f"/tmp/stoker-{os.getuid()}")]
    monkeypatch.setenv("STOKER_RUNTIME_DIR", "/elsewhere")
    assert _places.runtime_directories(None) == [Path("/elsewhere")]
    assert _places.runtime_directories("/argument") == [Path("/argument")]


def test_a_directory_that_another_user_may_have_made_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionDeniedError, match="is not trusted"):
        _places.check_owner(tmp_path / "link")
    _places.check_owner(tmp_path)
    _places.check_owner(tmp_path / "missing")


def test_descriptors_of_an_unwanted_answer_are_closed(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        connection.receive()
        descriptor = os.memfd_create("unwanted")
        error = {"type": "error", "error": {"code": "not_found", "what": "no n"}}
        connection.send(error, [descriptor] * 3)
        os.close(descriptor)
        connection.wait_for_end()

    before = descriptors_in_use()
    with pytest.raises(stoker.NotFoundError, match="no n"):
        ask(tmp_path, behave)
    assert descriptors_in_use() == before


def test_errors_survive_pickling() -> None:
    import pickle

    error = ChangedError("what", "where", "remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.what, copy.where, copy.remedy, copy.code) == (
        *(ChangedError, "what", "where", "remedy", "changed"),
    )


def test_messages_are_compact_json(tmp_path: Path) -> None:
    packets = []

    def behave(connection: FakeConnection) -> None:
        packets.append(connection.socket.recv(65536))

    with FakeDaemon(tmp_path, behave), pytest.raises(DaemonGoneError):
        Client(tmp_path)
    assert packets[0] == json.dumps(json.loads(packets[0]), separators=(",", ":")).encode()


def test_taking_an_oversized_batch_drops_the_older_ones(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        for sequence in (3, 4, 5, 7):
            descriptor = os.memfd_create("oversized")
            os.write(descriptor, b"%04d" % sequence)
            connection.send({"type": "oversized", "sequence": sequence, "bytes": 4}, [descriptor])
            os.close(descriptor)
        connection.wait_for_end()

    with FakeDaemon(tmp_path, behave):
        client = Client(tmp_path)
        assert client.take_oversized(7)[:] == b"0007"
        assert client.oversized == {}
        client.close()

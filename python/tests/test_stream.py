"""A Dataset against a scripted daemon: seeking, errors, oversized batches, the daemon's end."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from fake_daemon import FakeConnection, FakeDaemon, Polite, PoliteSession

import stoker
from stoker.errors import (
    BatchTimeoutError,
    ChangedError,
    DaemonGoneError,
    DaemonNotRunningError,
    ForkedError,
    InvalidError,
    ProtocolError,
    StaleIteratorError,
    UnavailableError,
)

BLOCK = 8


def dataset(tmp_path: Path, **arguments: Any) -> stoker.Dataset:
    settings: dict[str, Any] = {"batch_size": 4, "block_size": BLOCK, "runtime_dir": tmp_path, "timeout": 20.0}
    return stoker.Dataset("made-up", **{**settings, **arguments})


def samples_of(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch.index.tolist()]


@pytest.mark.parametrize("transport", ["ring", "socket"])
@pytest.mark.parametrize("return_tensors", ["numpy", "torch"])
def test_an_epoch_gives_every_sample_once(tmp_path: Path, transport: str, return_tensors: str) -> None:
    with FakeDaemon(tmp_path, Polite(samples=42)):
        ds = dataset(tmp_path, transport=transport, return_tensors=return_tensors)
        seen = []
        for batch in ds:
            seen += batch.index.tolist()
            first = batch.index.tolist()[0]
            assert batch["x"][0].tolist() == list(range(first, first + BLOCK))
            assert batch["y"][0].tolist() == list(range(first + 1, first + BLOCK + 1))
            assert batch.position == first
            assert batch.samples_consumed == first + batch.rows
        assert seen == list(range(42))
        assert len(ds) == 11
        assert ds.stats().transport == transport
        ds.close()


def test_batches_larger_than_a_packet_come_whole_over_the_socket(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=8, slot_bytes=4096)):
        ds = dataset(tmp_path, transport="socket", block_size=50_000, batch_size=3)
        for batch in ds:
            first = batch.index.tolist()[0]
            assert batch["y"][-1, -1] == (first + batch.rows - 1 + 50_000) % 65536
        ds.close()


def test_epochs_follow_each_other_without_a_seek(tmp_path: Path) -> None:
    polite = Polite(samples=12)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        for epoch in range(3):
            batches = [(batch.epoch, batch.position) for batch in ds]
            assert batches == [(epoch, 0), (epoch, 4), (epoch, 8)]
        assert ds.state_dict()["epoch"] == 3
        ds.close()
    assert [request["type"] for request in polite.requests].count("open") == 1
    assert "seek" not in [request["type"] for request in polite.requests]


@pytest.mark.parametrize("stale", [0, 3])
def test_a_new_iterator_begins_the_epoch_again_and_drops_what_was_prepared(tmp_path: Path, stale: int) -> None:
    polite = Polite(samples=40, stale=stale)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        first = iter(ds)
        assert samples_of([next(first), next(first)]) == list(range(8))
        assert samples_of(ds) == list(range(40))
        assert samples_of(ds) == list(range(40))
        assert ds.state_dict()["epoch"] == 2
        del first
        gc.collect()
        assert eventually(lambda: ds.stats().batches_kept == 0)
        ds.close()
    assert [request["type"] for request in polite.requests].count("seek") == 1


def test_stale_oversized_batches_are_dropped_too(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with FakeDaemon(tmp_path, Polite(samples=40, stale=2, oversized=frozenset({1, 3, 5}))):
        ds = dataset(tmp_path, return_tensors="numpy")
        iterator = iter(ds)
        next(iterator)
        batches = list(ds)
        assert samples_of(batches) == list(range(40))
        assert ds.stats().batches_oversized == 3
        ds.close()
        batches[3]["x"][0, 0] = 5  # a private mapping that outlives the session
        del ds, iterator, batches
    assert eventually(lambda: gc.collect() >= 0 and len(os.listdir("/proc/self/fd")) <= before)


def test_set_epoch_seeks_and_keeps_a_position_within_that_epoch(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path)
        ds.set_epoch(5)
        assert ds.state_dict()["epoch"] == 5
        assert [(batch.epoch, batch.position) for batch in ds] == [(5, 0), (5, 4), (5, 8)]
        ds.load_state_dict({**ds.state_dict(), "epoch": 7, "samples_consumed": 8})
        ds.set_epoch(7)
        assert [(batch.epoch, batch.position) for batch in ds] == [(7, 8)]
        ds.set_epoch(7)
        assert [(batch.epoch, batch.position) for batch in ds] == [(7, 0), (7, 4), (7, 8)]
        with pytest.raises(InvalidError, match="epoch=-1 is no whole number"):
            ds.set_epoch(-1)
        ds.close()


def test_the_older_of_two_iterators_is_stale_and_says_why(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite()):
        ds = dataset(tmp_path)
        older = iter(ds)
        next(older)
        newer = iter(ds)
        with pytest.raises(StaleIteratorError, match="was replaced"):
            next(older)
        assert samples_of(newer) == list(range(40))
        ds.load_state_dict(ds.state_dict())
        with pytest.raises(StaleIteratorError):
            next(newer)
        ds.close()


def test_an_exhausted_iterator_stays_exhausted(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=4)):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        assert len(list(iterator)) == 1
        assert list(iterator) == []
        assert len(list(ds)) == 1
        ds.close()


def test_state_counts_what_was_yielded_and_not_what_was_prepared(tmp_path: Path) -> None:
    polite = Polite(samples=40)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        assert eventually(lambda: polite.rings[0].untaken() == 4, 10)
        assert ds.state_dict()["samples_consumed"] == 0
        next(iterator)
        assert ds.state_dict() == {
            "v": 1,
            "dataset": "made-up",
            "index_id": "index-1",
            "order": "sequential",
            "order_version": 1,
            "seed": 0,
            "epoch": 0,
            "samples_consumed": 4,
            "batch_size": 4,
            "world_size": 1,
            "block_size": BLOCK,
        }
        assert len(pickle.dumps(ds.state_dict())) < 400
        ds.close()


def test_a_loaded_state_continues_its_epoch_and_names_the_index(tmp_path: Path) -> None:
    polite = Polite(samples=40)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        for _ in range(3):
            next(iterator)
        state = ds.state_dict()
        ds.close()
        resumed = dataset(tmp_path, batch_size=5)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == {**state, "batch_size": 5}
        assert samples_of(resumed) == list(range(12, 40))
        assert [batch.epoch for batch in resumed] == [1] * 8
        resumed.close()
    opened = [request for request in polite.requests if request["type"] == "open"]
    assert (opened[1]["index_id"], opened[1]["order_version"]) == ("index-1", 1)


def test_a_state_of_another_index_is_refused_by_the_daemon(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(index_id="index-2")):
        ds = dataset(tmp_path)
        ds.load_state_dict({**ds.state_dict(), "index_id": "index-1"})
        with pytest.raises(ChangedError, match="the dataset's index is index-2, not index-1"):
            iter(ds)


@pytest.mark.parametrize(
    ("different", "complaint"),
    [
        ({"v": 2}, "of version 2"),
        ({"dataset": "other"}, "dataset='other'"),
        ({"order": "global"}, "order='global'"),
        ({"seed": 7}, "seed=7"),
        ({"block_size": 9}, "block_size=9"),
        ({"samples_consumed": -1}, "no position"),
        ({"index_id": "index-0"}, "index_id='index-0'"),
    ],
    ids=str,
)
def test_a_state_that_means_other_samples_is_refused(tmp_path: Path, different: dict[str, Any], complaint: str) -> None:
    with FakeDaemon(tmp_path, Polite()):
        ds = dataset(tmp_path)
        list(ds)
        with pytest.raises(InvalidError, match=complaint):
            ds.load_state_dict({**ds.state_dict(), **different})
        ds.close()


def test_a_state_that_lacks_something_is_refused(tmp_path: Path) -> None:
    ds = dataset(tmp_path)
    with pytest.raises(InvalidError, match="the state lacks epoch"):
        ds.load_state_dict({key: value for key, value in ds.state_dict().items() if key != "epoch"})


def test_pickling_and_copying_keep_settings_and_position_and_no_connection(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        next(iterator)
        for twin in (pickle.loads(pickle.dumps(ds)), copy.copy(ds), copy.deepcopy(ds)):
            assert twin.state_dict() == ds.state_dict()
            assert samples_of(twin) == list(range(4, 40))
            twin.close()
        assert samples_of(iterator) == list(range(4, 40))
        ds.close()


def test_an_error_entry_raises_what_it_says_and_next_tries_again(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40, fails_at=2, failures=2)):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        seen = samples_of([next(iterator), next(iterator)])
        for _ in range(2):
            with pytest.raises(ChangedError, match=r"photo\.jpg changed") as raised:
                next(iterator)
            assert (raised.value.where, raised.value.remedy) == ("photo.jpg", "put it back")
            assert ds.state_dict()["samples_consumed"] == 8
        assert seen + samples_of(iterator) == list(range(40))
        ds.close()


def test_keeping_every_batch_works_and_is_counted(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=80)):
        ds = dataset(tmp_path)
        kept = list(ds)
        assert samples_of(kept) == list(range(80))
        stats = ds.stats()
        assert (stats.batches_kept, stats.batches_copied) == (2, 18)
        ds.close()
        assert samples_of(kept) == list(range(80))
        assert ds.stats().batches_copied == 18


def test_an_interruption_loses_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polite = Polite(samples=40)

    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        seen = samples_of([next(iterator) for _ in range(3)])
        builder = ds._stream._builder
        assert builder is not None
        build = builder.build

        def interrupted(*arguments: Any) -> Any:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            return build(*arguments)

        monkeypatch.setattr(builder, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert seen + samples_of(iterator) == list(range(40))
        ds.close()


def test_a_daemon_that_dies_is_an_error_after_what_it_published(tmp_path: Path) -> None:
    polite = Polite(samples=40)
    with FakeDaemon(tmp_path, polite) as daemon:
        ds = dataset(tmp_path)
        iterator = iter(ds)
        next(iterator)
        assert eventually(lambda: polite.rings[0].untaken() == 4, 10)
        daemon.die()
        assert samples_of(next(iterator) for _ in range(4)) == list(range(4, 20))
        with pytest.raises(DaemonGoneError, match="start it again with `stokerd`"):
            next(iterator)
        assert ds.state_dict()["samples_consumed"] == 20
        with FakeDaemon(tmp_path, polite):
            assert samples_of(iterator) == list(range(20, 40))
            ds.close()


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_reconnecting_continues_without_losing_or_repeating_a_batch(tmp_path: Path, transport: str) -> None:
    polite = Polite(samples=80)
    daemon = FakeDaemon(tmp_path, polite).__enter__()
    ds = dataset(tmp_path, reconnect=True, transport=transport)
    iterator = iter(ds)
    kept = [next(iterator) for _ in range(3)]
    daemon.__exit__(None, None, None)
    second = FakeDaemon(tmp_path, polite)
    timer = threading.Timer(0.2, second.__enter__)
    timer.start()
    kept += list(iterator)
    assert samples_of(kept) == list(range(80))
    assert all(batch["x"][0].tolist()[0] == batch.position for batch in kept), "old batches stay valid"
    assert ds.stats().reconnects == 1
    ds.close()
    timer.join()
    second.__exit__(None, None, None)
    assert [request["index_id"] for request in polite.requests if request["type"] == "open"] == ["", "index-1"]


def test_reconnecting_to_a_changed_index_is_an_error(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite()):
        ds = dataset(tmp_path, reconnect=True)
        iterator = iter(ds)
        next(iterator)
    with FakeDaemon(tmp_path, Polite(index_id="index-2")), pytest.raises(ChangedError, match="index-2"):
        list(iterator)


def test_reconnecting_gives_up_after_its_time(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite()):
        ds = dataset(tmp_path, reconnect=True, reconnect_timeout=0.1)
        iterator = iter(ds)
        next(iterator)
    with pytest.raises(DaemonGoneError, match=r"no new one within 0\.1 s"):
        list(iterator)


def test_a_goodbye_names_its_reason(tmp_path: Path) -> None:
    polite = Polite(samples=8)

    def behave(connection: FakeConnection) -> None:
        connection.hello()
        request = connection.receive()
        request["type"] = "open"
        polite_session = PoliteSession(polite, connection, request)
        connection.send({"type": "bye", "reason": "shutdown"})
        connection.wait_for_end()
        polite_session.ring.close()

    with FakeDaemon(tmp_path, behave):
        with pytest.raises(DaemonGoneError, match=r"stokerd ended \(shutdown\)"):
            next(iter(dataset(tmp_path)))
        gc.collect()


def test_a_daemon_that_gives_no_batch_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    def behave(connection: FakeConnection) -> None:
        connection.hello()
        ring = PoliteSession(Polite(), connection, connection.receive()).ring
        connection.wait_for_end()
        ring.close()

    with FakeDaemon(tmp_path, behave):
        ds = dataset(tmp_path, timeout=0.15)
        with pytest.raises(BatchTimeoutError, match=r"no batch within 0\.15 s"):
            next(iter(ds))


def test_without_a_descriptor_the_socket_is_used_with_one_warning(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=12, pass_descriptor=False)):
        ds = dataset(tmp_path)
        with pytest.warns(stoker.StokerWarning, match="did not arrive") as caught:
            assert samples_of(ds) == list(range(12))
        assert len(caught) == 1
        assert ds.stats().transport == "socket"
        assert samples_of(ds) == list(range(12)), "and no second warning"
        ds.close()
        with pytest.raises(UnavailableError, match="use transport='auto'"):
            iter(dataset(tmp_path, transport="ring"))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda patch: patch.setattr("platform.machine", lambda: "aarch64"),
        lambda patch: patch.setattr("stoker.session.mmap", _NoMemory),
    ],
    ids=["another processor", "no memory to map"],
)
def test_where_the_ring_cannot_work_the_socket_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path)
        with monkeypatch.context() as patch, pytest.warns(stoker.StokerWarning, match="copies batches"):
            prepare(patch)
            iterator = iter(ds)
        assert samples_of(iterator) == list(range(12))
        ds.close()


class _NoMemory:
    """Stands in for the module mmap, in the client only."""

    MAP_SHARED = PROT_READ = PROT_WRITE = 1

    @staticmethod
    def mmap(*_: Any, **__: Any) -> None:
        raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    "opened",
    [
        {"columns": []},
        {"columns": [{"name": "tokens", "dtype": "complex64", "shape": [9]}]},
        {"columns": [{"name": "tokens", "dtype": "uint16", "shape": [-1]}]},
        {"columns": "x"},
        {"samples": "many"},
        {"samples": None},
        {"ring": {}},
        {"ring": {"total_bytes": 1 << 50}},
    ],
    ids=str,
)
def test_an_answer_to_open_that_makes_no_sense_is_a_protocol_error(tmp_path: Path, opened: dict[str, Any]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with FakeDaemon(tmp_path, Polite(opened=opened)), pytest.raises(ProtocolError):
        iter(dataset(tmp_path))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_forked_child_cannot_iterate_and_its_end_does_not_hurt_the_parent(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        batch = next(iterator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the fake daemon's threads
            child = os.fork()
        if child == 0:
            refused = 0
            for attempt in (lambda: next(iterator), lambda: iter(ds)):
                try:
                    attempt()
                except ForkedError as error:
                    refused += "make the Dataset in the child" in str(error)
            del batch, iterator
            gc.collect()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert batch.index.tolist() == [0, 1, 2, 3]
        assert samples_of(iterator) == list(range(4, 40))
        ds.close()


def test_after_close_an_iterator_goes_on_and_a_forked_child_may_iterate(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, return_tensors="numpy")
        iterator = iter(ds)
        seen = samples_of([next(iterator)])
        ds.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(0 if samples_of(ds) == list(range(40)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert seen + samples_of(iterator) == list(range(40))
        ds.close()


def test_waits_are_attributed_and_told_to_the_daemon(tmp_path: Path) -> None:
    polite = Polite(samples=400)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        waits = [batch.waited for batch in ds]
        stats = ds.stats(daemon=True)
        assert abs(stats.stall_seconds - sum(wait.seconds for wait in waits)) < 1e-6
        assert all(abs(wait.seconds - sum(wait.causes.values())) < 1e-9 for wait in waits)
        assert polite.rings[0].word("waited_ns") == round(stats.stall_seconds * 1e9)
        assert polite.rings[0].word("batches_taken") == stats.batches == 100
        assert stats.samples == 400
        assert stats.source_bytes == 400 * 2 * (BLOCK + 1)
        assert stats.first_batch_seconds is not None
        assert 0 < stats.first_batch_seconds < 20
        assert 0 < stats.stall_share <= 1
        assert stats.daemon == {"id": "s-1"}
        ds.close()


def test_a_collected_dataset_closes_its_connection(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite()):
        before = len(os.listdir("/proc/self/fd"))
        ds = dataset(tmp_path)
        batch = next(iter(ds))
        del ds
        gc.collect()
        assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 1), "only the mapping's own is left"
        assert batch.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("return_tensors", ["numpy", "torch"])
def test_the_slot_of_an_oversized_batch_is_released_with_its_last_view(tmp_path: Path, return_tensors: str) -> None:
    polite = Polite(samples=40, slots=5, oversized=frozenset(range(10)))
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path, return_tensors=return_tensors)
        iterator = iter(ds)
        row = next(iterator)["x"][1:2]  # the batch itself is gone
        gc.collect()
        ring = polite.rings[0]
        assert ds.stats().batches_kept == 1
        assert eventually(lambda: ring.published == 5)
        next(iterator)
        assert eventually(lambda: ring.published >= 6), "the second one's slot came back, and its memory went"
        assert row.tolist() == [list(range(1, 1 + BLOCK))]
        assert sum(ring.released(slot) == 0 for slot in range(5)) >= 1
        del row
        gc.collect()
        assert ds.stats().batches_kept == 0
        ds.close()


def test_kept_oversized_batches_are_copied_before_their_memory_goes(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=160, slots=4, oversized=frozenset(range(0, 40, 2)))):
        ds = dataset(tmp_path, return_tensors="numpy")
        kept = list(ds)
        assert ds.stats().batches_kept == 2
        assert ds.stats().batches_copied == 38
        assert samples_of(kept) == list(range(160))
        for batch in kept:
            first = batch.position
            assert [row.tolist() for row in batch["y"]] == [
                list(range(number + 1, number + 1 + BLOCK)) for number in range(first, first + 4)
            ]
        ds.close()


@pytest.mark.parametrize("key", ["epoch", "samples_consumed", "order_version"])
@pytest.mark.parametrize("value", [-1, 1.5, "x", None, 1 << 63])
def test_a_state_with_no_position_is_refused_with_what_to_do(tmp_path: Path, key: str, value: Any) -> None:
    ds = dataset(tmp_path)
    state = {**ds.state_dict(), "epoch": 2, "samples_consumed": 8}
    ds.load_state_dict(state)
    with pytest.raises(InvalidError, match=f"no position: {key}=") as raised:
        ds.load_state_dict({**state, key: value})
    assert raised.value.remedy == "pass what state_dict() returned, unchanged"
    assert ds.state_dict() == state, "nothing of it was loaded"


@pytest.mark.parametrize("epoch", [-1, 0.5, "1"])
def test_an_epoch_that_is_none_is_refused(tmp_path: Path, epoch: Any) -> None:
    with pytest.raises(InvalidError, match="epoch=") as raised:
        dataset(tmp_path).set_epoch(epoch)
    assert raised.value.remedy


def test_without_reconnect_a_daemon_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    ds = dataset(tmp_path, reconnect_timeout=60.0)
    for attempt in (lambda: iter(ds), lambda: len(ds), lambda: ds[0]):
        begun = time.monotonic()
        with pytest.raises(DaemonNotRunningError):
            attempt()
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_with_reconnect_the_first_open_waits_for_a_daemon(tmp_path: Path, transport: str) -> None:
    ds = dataset(tmp_path, reconnect=True, transport=transport)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(samples_of(ds)))
    thread.start()
    time.sleep(0.1)
    with FakeDaemon(tmp_path, Polite(samples=40)):
        thread.join(20)
        assert seen == list(range(40))
        assert ds.stats().reconnects == 0
        ds.close()


def test_with_reconnect_the_first_open_gives_up_after_its_time(tmp_path: Path) -> None:
    ds = dataset(tmp_path, reconnect=True, reconnect_timeout=0.1)
    for attempt in (lambda: iter(ds), lambda: len(ds), lambda: ds[0]):
        with pytest.raises(DaemonNotRunningError, match=r"waited 0\.1 s for it") as raised:
            attempt()
        assert "stokerd" in raised.value.remedy

"""Bad input and faults, against a real daemon: each is an error that says what to do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import BLOCK, FILES, Daemon, eventually, raw_content, write_raw, write_tokens

import stoker
from stoker.errors import (
    ChangedError,
    ConflictError,
    DaemonGoneError,
    DaemonNotRunningError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    StokerError,
)


def samples_of(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch.index.tolist()]


def test_an_unknown_dataset_is_named_with_what_to_do(shared_daemon: Daemon) -> None:
    for attempt in (
        lambda ds: iter(ds),
        lambda ds: len(ds),
        lambda ds: ds[0],
        lambda ds: stoker.dataset_info(ds.name, runtime_dir=shared_daemon.runtime_dir),
    ):
        with pytest.raises(NotFoundError, match="nowhere") as raised:
            attempt(shared_daemon.dataset("nowhere", batch_size=1))
        assert raised.value.remedy


def test_an_empty_directory_is_no_dataset(shared_daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(StokerError) as raised:
        shared_daemon.add("empty", tmp_path)
    assert raised.value.code in ("invalid", "not_found")
    assert raised.value.remedy
    with pytest.raises(NotFoundError):
        shared_daemon.dataset("empty", batch_size=1)[0]


def test_a_directory_that_is_not_there_is_refused_before_asking(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(NotFoundError, match="pass a directory that exists"):
            stoker.add_dataset("n", path)


def test_a_name_that_is_taken_is_a_conflict_unless_replaced(shared_daemon: Daemon, tmp_path: Path) -> None:
    shared_daemon.add("twice", write_raw(tmp_path / "a", 4), format="raw")
    with pytest.raises(ConflictError, match="twice"):
        shared_daemon.add("twice", write_raw(tmp_path / "b", 6), format="raw")
    assert shared_daemon.add("twice", tmp_path / "b", format="raw", replace=True).samples == 6


def test_tokens_without_a_block_size_say_that_one_is_needed(shared_daemon: Daemon) -> None:
    with pytest.raises(InvalidError, match="block_size"):
        iter(shared_daemon.dataset("tokens", batch_size=4))
    with pytest.raises(InvalidError, match="block_size"):
        iter(shared_daemon.dataset("files", batch_size=4, block_size=8))


def test_a_world_larger_than_the_dataset_is_refused(shared_daemon: Daemon) -> None:
    with pytest.raises(InvalidError):
        iter(shared_daemon.dataset("files", batch_size=1, rank=FILES + 5, world_size=FILES + 10))


def test_a_token_file_of_odd_length_is_refused_by_name(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"x" * 1001)
    with pytest.raises(StokerError, match=r"odd\.bin"):
        shared_daemon.add("odd", tmp_path, format="tokens")


def test_a_batch_larger_than_a_slot_comes_whole(shared_daemon: Daemon, tmp_path: Path) -> None:
    sizes = {10: 3_000_000, 11: 0, 30: 2_000_000}

    def content(number: int) -> bytes:
        return bytes([number]) * sizes.get(number, 1000)

    shared_daemon.add("uneven", write_raw(tmp_path, 200, content), format="raw")
    for transport in ("ring", "socket"):
        ds = shared_daemon.dataset("uneven", batch_size=8, transport=transport)
        kept = []
        for _ in range(2):
            for batch in ds:
                for number, view in zip(batch.index.tolist(), batch["data"], strict=True):
                    assert view == content(number)
                kept.append(batch)
        assert ds.stats().batches_oversized >= 2
        ds.close()
        assert bytes(kept[1]["data"][2]) == content(10)


def train_until(iterator: Any, seconds: float, keep: list[Any] | None = None) -> StokerError:
    """Iterate until an error comes."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for batch in iterator():
                for number, view in zip(batch.index.tolist(), batch["data"], strict=True):
                    assert view == raw_content(number), "never another sample's bytes"
    except StokerError as error:
        return error
    raise AssertionError(f"no error within {seconds} s")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"other bytes of another length"),
        lambda path: os.truncate(path, 1),
        lambda path: (path.with_suffix(".new").write_bytes(path.read_bytes()), path.with_suffix(".new").rename(path)),
        lambda path: path.unlink(),
    ],
    ids=["overwritten", "truncated", "replaced", "removed"],
)
def test_a_file_that_changes_while_training_is_an_error_that_names_it(
    shared_daemon: Daemon, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    shared_daemon.add("changing", write_raw(tmp_path, 60), format="raw", replace=True)
    ds = shared_daemon.dataset("changing", batch_size=8, shuffle=True)
    assert len(list(ds)) == 8
    damage(tmp_path / "dog" / "000040.dat")
    error = train_until(lambda: ds, 20)
    assert "000040.dat" in str(error)
    assert error.remedy
    assert isinstance(error, ChangedError | NotFoundError)
    ds.close()


def test_a_token_file_that_grows_short_while_training_is_an_error_that_names_it(
    shared_daemon: Daemon, tmp_path: Path
) -> None:
    shared_daemon.add("shrinking", write_tokens(tmp_path, 500, BLOCK), replace=True)
    ds = shared_daemon.dataset("shrinking", batch_size=8, block_size=BLOCK, shuffle=True)
    list(ds)
    os.truncate(tmp_path / "train.bin", 100)
    with pytest.raises(ChangedError, match=r"train\.bin"):
        for _ in range(50):
            list(ds)
    ds.close()


def test_without_a_daemon_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    ds = stoker.Dataset("tokens", batch_size=1, runtime_dir=tmp_path)
    for attempt in (lambda: iter(ds), lambda: len(ds), lambda: ds[0]):
        with pytest.raises(DaemonNotRunningError, match="start it with `stokerd`"):
            attempt()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_a_daemon_that_ends_in_the_middle_of_an_epoch_is_an_error_within_a_second(
    daemon: Daemon, tmp_path: Path, how: int, transport: str
) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 100), format="raw")
    ds = daemon.dataset("files", batch_size=1, transport=transport)
    iterator = iter(ds)
    kept = [next(iterator) for _ in range(3)]
    daemon.stop(how)
    began = time.monotonic()
    with pytest.raises(DaemonGoneError, match="reconnect=True"):
        for batch in iterator:
            kept.append(batch)
    assert time.monotonic() - began < 1
    assert samples_of(kept) == list(range(len(kept)))
    assert all(batch["data"][0] == raw_content(number) for number, batch in enumerate(kept)), "old batches stay valid"
    daemon.start()
    assert samples_of(iterator) == list(range(len(kept), 100)), "next() goes on where it was"
    ds.close()


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_with_reconnect_a_killed_daemon_costs_no_batch_and_repeats_none(
    daemon: Daemon, tmp_path: Path, transport: str
) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 120), format="raw")
    plain = daemon.dataset("files", batch_size=2, shuffle=True, seed=9)
    expected = [samples_of(plain), samples_of(plain)]
    plain.close()
    ds = daemon.dataset("files", batch_size=2, shuffle=True, seed=9, reconnect=True, transport=transport)
    found: list[list[int]] = []
    for epoch in range(2):
        found.append([])
        for number, batch in enumerate(ds):
            found[-1] += batch.index.tolist()
            if (epoch, number) in ((0, 10), (0, 40), (1, 0)):
                daemon.kill()
                restart = threading.Timer(0.1, daemon.start)
                restart.start()
    restart.join()
    assert found == expected
    assert 1 <= ds.stats().reconnects <= 3
    ds.close()


def test_with_reconnect_a_dataset_whose_files_changed_meanwhile_is_an_error(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 100), format="raw")
    ds = daemon.dataset("files", batch_size=1, reconnect=True)
    iterator = iter(ds)
    next(iterator)
    daemon.kill()
    daemon.start()
    daemon.add("files", write_raw(tmp_path / "more", 101), format="raw", replace=True)
    with pytest.raises(ChangedError, match="index"):
        list(iterator)
    ds.close()


def test_a_dataset_of_which_a_state_speaks_must_be_the_same(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 20), format="raw")
    ds = daemon.dataset("files", batch_size=4)
    next(iter(ds))
    state = ds.state_dict()
    ds.close()
    daemon.add("files", write_raw(tmp_path / "more", 21), format="raw", replace=True)
    resumed = daemon.dataset("files", batch_size=4)
    resumed.load_state_dict(state)
    with pytest.raises(ChangedError, match=state["index_id"]):
        iter(resumed)


def test_a_daemon_that_was_restarted_between_epochs_is_found_again(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 20), format="raw")
    ds = daemon.dataset("files", batch_size=4)
    assert samples_of(ds) == list(range(20))
    assert ds[3]["data"] == raw_content(3)
    daemon.kill()
    daemon.start()
    ds.set_epoch(5)
    assert {batch.epoch for batch in ds} == {5}
    assert ds[3]["data"] == raw_content(3)
    ds.close()


def test_a_stopped_daemon_tells_its_sessions_and_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add("files", write_raw(tmp_path / "files", 20), format="raw")
    ds = daemon.dataset("files", batch_size=1)
    iterator = iter(ds)
    next(iterator)
    before = set(os.listdir("/dev/shm"))
    daemon.stop()
    with pytest.raises(DaemonGoneError, match="stokerd ended"):
        list(iterator)
    assert set(os.listdir("/dev/shm")) <= before
    assert not (daemon.runtime_dir / "session.sock").exists()


def test_a_directory_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    if os.getuid() == 0:
        child = os.fork()  # root reads everything: ask as somebody else
        if child == 0:
            os.setgid(65533)
            os.setuid(65533)
            os._exit(_refused(tmp_path))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        tmp_path.chmod(0)
        assert _refused(tmp_path) == 0
        tmp_path.chmod(0o700)


def _refused(directory: Path) -> int:
    try:
        stoker.add_dataset("n", directory)
    except PermissionDeniedError as error:
        return 0 if "cannot be read" in str(error) else 1
    except BaseException:
        return 2
    return 3


def test_sessions_are_gone_when_datasets_are_closed(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("files", batch_size=4)
    iterator = iter(ds)
    next(iterator)
    assert len(shared_daemon.sessions()) >= 1
    ds.close()
    assert eventually(lambda: shared_daemon.sessions() == [])


def test_a_dtype_for_a_dataset_without_tokens_is_refused(shared_daemon: Daemon) -> None:
    for transport in ("ring", "socket"):
        for attempt in (lambda ds: iter(ds), lambda ds: len(ds), lambda ds: ds[0]):
            ds = shared_daemon.dataset("files", batch_size=4, dtype="int64", transport=transport)
            with pytest.raises(InvalidError, match="dtype=int64 converts tokens") as raised:
                attempt(ds)
            assert "leave dtype= out" in raised.value.remedy
            ds.close()


def lumpy_content(number: int) -> bytes:
    """Four large files in a row, then 36 small ones: with batches of four, a tenth of them fit no slot."""
    return bytes([number % 251 + 1]) * (100_000 if number // 4 % 10 == 5 else 100)


def test_forty_kept_oversized_batches_stay_what_they_were(shared_daemon: Daemon, tmp_path: Path) -> None:
    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("/memfd:")

    shared_daemon.add("lumpy", write_raw(tmp_path, 1600, lumpy_content), format="raw")
    before = mappings()
    ds = shared_daemon.dataset("lumpy", batch_size=4)
    kept = list(ds)
    stats = ds.stats(daemon=True)
    slots = int((stats.daemon or {})["ring"]["slots"])
    assert stats.batches_oversized == 40
    assert stats.batches_kept == slots - 2
    assert stats.batches_copied == 400 - (slots - 2)
    assert mappings() - before <= 1 + slots + 2, "the ring, what is kept, and what is prepared"
    list(ds)  # the daemon goes on, and uses again what it took back
    ds.close()
    for number, batch in enumerate(kept):
        assert batch.index.tolist() == list(range(4 * number, 4 * number + 4))
        for sample, data in zip(batch.index.tolist(), batch["data"], strict=True):
            assert bytes(data) == lumpy_content(sample)


def test_oversized_batches_that_are_let_go_are_not_copied(shared_daemon: Daemon, tmp_path: Path) -> None:
    shared_daemon.add("lumps", write_raw(tmp_path, 800, lumpy_content), format="raw")
    ds = shared_daemon.dataset("lumps", batch_size=4)
    last: list[Any] = []
    for batch in ds:
        last = [*last[-1:], batch]  # as a training loop with one batch of lookahead
        for one in last:
            for sample, data in zip(one.index.tolist(), one["data"], strict=True):
                assert bytes(data) == lumpy_content(sample)
    assert (ds.stats().batches_oversized, ds.stats().batches_copied) == (20, 0)
    ds.close()

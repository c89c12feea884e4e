"""Hints and the wrapped sampler, against the real daemon."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BLOCK, FILES, REPOSITORY, ROWS, Daemon, eventually
from fake_daemon import FakeDaemon, Polite

import stoker
from stoker import _prefetching, hints
from stoker.client import Client
from stoker.errors import (
    DaemonNotRunningError,
    ForkedError,
    InvalidError,
    LimitError,
    NotFoundError,
    OutOfRangeError,
    ProtocolError,
    StokerWarning,
)

VECTORS = json.loads((REPOSITORY / "shm/testdata/hints-v1.json").read_text())


def hinted(daemon: Daemon) -> list[dict[str, Any]]:
    """The hints that the daemon has."""
    found: list[dict[str, Any]] = daemon.get("/v1/hints")["hints"]
    return found


def announce(daemon: Daemon, dataset: str = "files", **options: Any) -> stoker.Hint:
    return stoker.hint(dataset, runtime_dir=daemon.runtime_dir, **options)


class Recorded(Client):
    """A client that only notes what it is asked."""

    def __init__(self, hint: Any = VECTORS["messages"][-1]["hint"]) -> None:
        self.pid = os.getpid()
        self.hint = hint
        self.asked: list[tuple[dict[str, Any], bytes]] = []

    def request(self, message: dict[str, Any], answer: str, **more: Any) -> tuple[dict[str, Any], list[int]]:
        content = b"".join(os.pread(descriptor, 1 << 20, 0) for descriptor in more.get("descriptors", ()))
        self.asked.append((message, content))
        return {"type": "hinted", "hint": self.hint}, []


def test_messages_are_those_of_the_committed_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Recorded()
    hints.make_hint("pets", indices=[3, 1, 2], rate=640.5).send(client)
    monkeypatch.setattr(hints, "_INDICES_INLINE", 3)
    hints.make_hint("pets", indices=VECTORS["indices"], priority=2).send(client)
    sampler = {"kind": "torch", "seed": 2**64 - 1, "rank": 1, "world_size": 2, "batch_size": 8, "drop_last": True}
    more: dict[str, Any] = {"block_size": 1024, "budget_bytes": 1 << 20}
    hints.make_hint("text", sampler=sampler, window=(64, 128), deadline=10, **more).send(client)
    info = hints.make_hint("pets", files=["cats/1.jpg", ("dogs/2.jpg", 4096, 512)]).send(client)
    stoker.Hint(client, info).look()
    assert [message for message, _ in client.asked] == VECTORS["messages"][:5]
    assert [content for _, content in client.asked] == [b"", base64.b64decode(VECTORS["list"]), b"", b"", b""]
    assert (info.id, info.samples, info.resident_share, info.state) == ("h-7", 3, 0.25, "active")
    moment = datetime(2026, 11, 22, 18, 0, 9, 500_000, timezone.utc)
    assert stoker.Hint(client, info).ready_at == moment


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({"indices": [5, 3, 5]}, 3),
        ({"indices": range(FILES)}, FILES),
        ({"indices": np.arange(10, dtype=np.uint8)}, 10),
        ({"indices": np.tile(np.arange(FILES), 100)}, 100 * FILES),
        ({"sampler": "global"}, FILES),
        ({"sampler": {"kind": "torch", "seed": 4, "epochs": 2, "world_size": 3}}, 2 * FILES // 3),
        ({"sampler": {"kind": "numpy"}, "window": (10, 20)}, 20),
        ({"files": ["cat/000000.dat", ("dog/000299.dat", 2, 3)]}, 2),
    ],
)
def test_what_is_announced_is_there_soon(shared_daemon: Daemon, options: dict[str, Any], samples: int) -> None:
    with announce(shared_daemon, **options) as hint:
        assert hint.info.samples == samples
        assert hint.wait(20)
        assert hint.complete
        assert hint.info.ready_samples == samples
        assert hint.info.fetched_bytes <= hint.info.budget_bytes
        assert isinstance(hint.ready_at, datetime)
        assert 0 <= hint.resident <= hint.info.bytes
        assert 0 <= hint.resident_share <= 1
        assert hint.id in repr(hint)
        assert [found["id"] for found in hinted(shared_daemon)] == [hint.id]
    assert eventually(lambda: not hinted(shared_daemon))
    hint.end()  # again


def test_tokens_are_announced_with_their_block_size(shared_daemon: Daemon) -> None:
    with announce(shared_daemon, "tokens", sampler="sequential", block_size=BLOCK) as hint:
        assert hint.info.samples == ROWS
        assert hint.wait(20)
    with pytest.raises(InvalidError, match="block_size"):
        announce(shared_daemon, "tokens", sampler="sequential")


def test_what_is_in_memory_is_ready_whatever_the_deadline(shared_daemon: Daemon) -> None:
    with announce(shared_daemon, indices=[1, 2, 3] * 50, deadline=500, budget_bytes=1 << 20) as hint:
        if hint.resident_share == 1:  # as far as the kernel tells
            assert hint.ready_at is not None
            assert (hint.ready_at - datetime.now(timezone.utc)).total_seconds() < 100
            assert hint.wait(20)
            assert hint.info.fetched_bytes == 0
    with pytest.raises(NotFoundError, match="was ended"):
        hint.wait(1)


@pytest.mark.parametrize("state", ["active", "spent", "incomplete", "failed"])
def test_waiting_says_true_only_of_what_is_all_there(state: str) -> None:
    client = Recorded({"id": "h-1", "state": state, "samples": 3, "ready_samples": 2, "failed_fetches": 1})
    hint = stoker.Hint(client, hints.make_hint("n", indices=[1]).send(client))
    assert not hint.wait(0.05)
    assert not hint.complete
    assert (hint.info.state, hint.info.failed_fetches, hint.info.ready_samples) == (state, 1, 2)


def test_files_that_are_gone_are_not_there(daemon: Daemon, tmp_path: Path) -> None:
    from conftest import write_raw

    directory = write_raw(tmp_path / "files", FILES)
    daemon.add("files", directory, format="raw")
    (directory / "cat" / "000000.dat").unlink()
    with announce(daemon, files=["cat/000000.dat", "dog/000299.dat"]) as hint:
        assert not hint.wait(20)
        assert (hint.info.state, hint.info.failed_fetches, hint.info.ready_samples) == ("incomplete", 1, 1)
        assert "000000.dat" in hint.info.problem


@pytest.mark.parametrize("name", ["budget_bytes", "block_size"])
@pytest.mark.parametrize("value", ["1GiB", 1.5, 2.0**30, True, [1]])
def test_counts_are_ints(name: str, value: Any) -> None:
    with pytest.raises(InvalidError, match=f"{name} is .* of type") as refused:
        hints.make_hint("n", indices=[1], **{name: value})
    assert "int" in refused.value.remedy
    good: dict[str, Any] = {name: np.int64(7)}
    assert hints.make_hint("n", indices=[1], **good).message[name] == 7


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, InvalidError),
        ({"indices": [1], "sampler": "global"}, InvalidError),
        ({"indices": []}, InvalidError),
        ({"indices": [1.5]}, InvalidError),
        ({"indices": ["1"]}, InvalidError),
        ({"indices": [[1, 2]]}, InvalidError),
        ({"indices": [2**70]}, InvalidError),
        ({"indices": np.array([2**63], np.uint64)}, InvalidError),
        ({"indices": np.array([1.0])}, InvalidError),
        ({"indices": [FILES]}, OutOfRangeError),
        ({"indices": [-1]}, OutOfRangeError),
        ({"indices": [1], "deadline": 0}, InvalidError),
        ({"indices": [1], "deadline": float("nan")}, InvalidError),
        ({"indices": [1], "rate": float("inf")}, InvalidError),
        ({"indices": [1], "rate": "fast"}, InvalidError),
        ({"indices": [1], "priority": -1}, InvalidError),
        ({"indices": [1], "deadline": 1, "rate": 1}, InvalidError),
        ({"indices": [1], "budget_bytes": 1 << 50}, LimitError),
        ({"indices": [1], "index_id": "another"}, stoker.ChangedError),
        ({"sampler": "magic"}, InvalidError),
        ({"sampler": {"kind": "global", "sead": 3}}, InvalidError),
        ({"sampler": "global", "window": (FILES, 1)}, OutOfRangeError),
        ({"files": ["../secret"]}, InvalidError),
        ({"files": ["/etc/passwd"]}, InvalidError),
        ({"files": ["cat/none"]}, NotFoundError),
        ({"files": "cat/000000.dat"}, InvalidError),
        ({"files": Path("cat/000000.dat")}, InvalidError),
        ({"indices": 5}, InvalidError),
        ({"sampler": range(5)}, InvalidError),
        ({"sampler": {"kind": "global", "seed": 1.5}}, InvalidError),
        ({"sampler": "global", "window": (1,)}, InvalidError),
        ({"sampler": "global", "window": ("a", 2)}, InvalidError),
        ({"files": [("cat/000000.dat", 0)]}, InvalidError),
        ({"files": [("cat/000000.dat", 0, 1 << 40)]}, OutOfRangeError),
    ],
)
def test_hints_that_make_no_sense_are_refused(
    shared_daemon: Daemon, options: dict[str, Any], kind: type[stoker.StokerError]
) -> None:
    with pytest.raises(kind) as refused:
        announce(shared_daemon, **options)
    assert refused.value.remedy
    assert eventually(lambda: not hinted(shared_daemon))  # those of the test before end with their connections


def test_numbers_of_numpy_and_tensors_are_numbers(shared_daemon: Daemon) -> None:
    sampler = {"kind": "torch", "seed": np.uint64(3), "epoch": np.int64(1), "drop_last": True}
    with announce(shared_daemon, sampler=sampler, window=(np.int64(1), np.int32(2))) as hint:
        assert hint.info.samples == 2

    class Tensor:
        """What is as slow to iterate as a tensor."""

        def tolist(self) -> list[int]:
            return [1, 2, 3]

        def __iter__(self) -> Iterator[int]:
            raise AssertionError("it was iterated")

    with announce(shared_daemon, indices=Tensor()) as hint:
        assert hint.info.samples == 3


def test_a_dataset_that_is_not_there(shared_daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there are: files, tokens"):
        announce(shared_daemon, "none", indices=[1])
    with pytest.raises(DaemonNotRunningError):
        stoker.hint("files", indices=[1], runtime_dir=tmp_path)


def test_hints_end_with_their_process(shared_daemon: Daemon) -> None:
    hint = announce(shared_daemon, indices=[1, 2])
    child = os.fork()
    if child == 0:  # inherits the hint, and may neither use nor keep it
        code = 1
        try:
            hint.look()
        except ForkedError:
            code = 0
        if announce(shared_daemon, indices=[3]).info.samples != 1:
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert eventually(lambda: [found["id"] for found in hinted(shared_daemon)] == [hint.id], 5)
    hint.end()
    assert eventually(lambda: not hinted(shared_daemon))


@pytest.mark.parametrize("answer", [None, 3, {"id": "h-1", "ready_at": "noon"}, {"state": "active"}])
def test_answers_that_are_none_are_protocol_errors(answer: Any) -> None:
    client = Recorded(answer)
    with pytest.raises(ProtocolError):
        stoker.Hint(client, hints.make_hint("n", indices=[1]).send(client)).ready_at  # noqa: B018


class Sampler:
    """What a wrapped sampler may be: with a length, an epoch, and something of its own."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.epochs, self.batch_size, self.read = items, list[int](), 7, 0

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.read += 1
            yield item

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def wrapped(daemon: Daemon, sampler: Any, ahead: int = 64, dataset: str = "files") -> Any:
    return stoker.prefetching(sampler, dataset, ahead=ahead, runtime_dir=daemon.runtime_dir)


@pytest.mark.parametrize("ahead", [1, 2, 7, 100, 10_000])
def test_the_wrapped_samplers_items_come_as_they_are(shared_daemon: Daemon, ahead: int) -> None:
    batches = [list(range(at, min(at + 9, FILES))) for at in range(0, FILES, 9)]
    for items in ([*range(FILES)], batches, [np.int64(3), 4], [[], [1], []], [np.array([1, 2])], []):
        sampler = Sampler(items)
        prefetching = wrapped(shared_daemon, sampler, ahead)
        for _ in range(2):
            for got, want in zip(prefetching, items, strict=True):
                assert got is want
        assert len(prefetching) == len(items)
        prefetching.set_epoch(3)
        assert (sampler.epochs, prefetching.batch_size) == ([3], 7)
    assert eventually(lambda: not hinted(shared_daemon), 5)


def test_no_more_than_ahead_is_read_before_it_is_yielded(shared_daemon: Daemon) -> None:
    sampler = Sampler(range(FILES))
    for taken, _ in enumerate(wrapped(shared_daemon, sampler, 50), 1):
        assert sampler.read <= taken + 50


def test_a_sampler_without_length_or_epoch(shared_daemon: Daemon) -> None:
    prefetching = wrapped(shared_daemon, iter(range(5)))
    prefetching.set_epoch(1)
    with pytest.raises(TypeError):
        len(prefetching)
    with pytest.raises(AttributeError):
        prefetching.nothing  # noqa: B018
    assert list(prefetching) == [0, 1, 2, 3, 4]


def test_windows_are_announced_ahead_and_ended_behind(shared_daemon: Daemon) -> None:
    # What earlier tests announced last may still be on its way.
    assert eventually(lambda: all(thread.name != "stoker-prefetching" for thread in threading.enumerate()), 5)
    added = announced(shared_daemon)
    items = iter(wrapped(shared_daemon, Sampler(range(FILES)), 100))
    assert next(items) == 0
    assert eventually(lambda: announced(shared_daemon) == added + 2, 5)
    assert [found["samples"] for found in hinted(shared_daemon)] == [50, 50]
    for taken in range(1, FILES):
        assert next(items) == taken
        if taken % 50 == 49:
            want = min(added + 2 + (taken + 1) // 50, added + FILES // 50)
            assert eventually(lambda want=want: announced(shared_daemon) >= want - 1, 5)  # type: ignore[misc]
    assert eventually(lambda: len(hinted(shared_daemon)) <= 3, 5)
    assert list(items) == []
    assert eventually(lambda: not hinted(shared_daemon), 5)
    assert announced(shared_daemon) == added + FILES // 50


def announced(daemon: Daemon) -> int:
    """Hints that the daemon has ever taken in."""
    for line in daemon.get("/metrics").splitlines():
        if line.startswith("stoker_hints_added_total "):
            return int(float(line.split()[1]))
    raise AssertionError("no such metric")


def test_an_iterator_that_is_dropped_ends_its_hints(shared_daemon: Daemon) -> None:
    items = iter(wrapped(shared_daemon, Sampler(range(FILES)), 100))
    next(items)
    assert eventually(lambda: len(hinted(shared_daemon)) == 2, 5)
    del items
    assert eventually(lambda: not hinted(shared_daemon), 5)


def test_the_deadline_is_learnt_from_the_rate() -> None:
    clock = _prefetching._Clock()
    assert clock.until(10) is None
    clock._at -= 1.0
    clock.took(100)
    until = clock.until(1000)
    assert until is not None
    assert 9 < until < 12
    clock.took(0)
    assert clock.until(0) == _prefetching._FASTEST


def slowly(items: Iterator[Any], found: list[Any]) -> list[Any]:
    """Take items, giving a thread the time to fail before the last."""
    taken = []
    for item in items:
        taken.append(item)
        if len(taken) < 20 and not found:
            time.sleep(0.02)
    return taken


def test_an_absent_daemon_is_said_once_and_breaks_nothing(tmp_path: Path) -> None:
    prefetching: Any = stoker.prefetching(range(100), "files", ahead=10, runtime_dir=tmp_path)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(3):
            assert slowly(prefetching, found) == list(range(100))
    assert [warning.category for warning in found] == [StokerWarning]
    assert "stokerd is not running" in str(found[0].message)


@pytest.mark.parametrize(
    ("items", "dataset", "said"),
    [
        (range(100), "none", "no such dataset"),
        (range(FILES, FILES + 100), "files", "does not exist"),
        (["a", ("b", 1), *range(98)], "files", "no number and no list of numbers"),
    ],
)
def test_what_cannot_be_announced_is_said_once_and_yielded(
    shared_daemon: Daemon, items: Sequence[Any], dataset: str, said: str
) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert slowly(wrapped(shared_daemon, items, 10, dataset), found) == list(items)
    assert [warning.category for warning in found] == [StokerWarning]
    assert said in str(found[0].message)


def test_a_daemon_that_ends_breaks_nothing(daemon: Daemon, tmp_path: Path) -> None:
    from conftest import write_raw

    daemon.add("files", write_raw(tmp_path / "files", FILES), format="raw")
    items = iter(wrapped(daemon, range(FILES), 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StokerWarning)
        first = [next(items) for _ in range(10)]
        assert eventually(lambda: len(hinted(daemon)) == 2, 5)
        daemon.kill()
        assert first + list(items) == list(range(FILES))
    daemon.start()


def test_a_daemon_that_does_not_answer_makes_nobody_wait(tmp_path: Path) -> None:
    silent = threading.Event()

    class Silent(Polite):
        def __call__(self, *arguments: Any) -> None:
            silent.wait(20)

    with FakeDaemon(tmp_path, Silent()):
        began = time.monotonic()
        assert list(stoker.prefetching(range(1000), "files", ahead=10, runtime_dir=tmp_path)) == list(range(1000))
        assert time.monotonic() - began < 10
        silent.set()


def test_ahead_is_a_number() -> None:
    for ahead in (0, -1, 1.5, "many"):
        with pytest.raises(InvalidError, match="ahead"):
            stoker.prefetching([1], "files", ahead=ahead)  # type: ignore[arg-type]


def test_a_dataloader_takes_a_wrapped_sampler(shared_daemon: Daemon) -> None:
    import torch
    from torch.utils import data

    class Numbers(data.Dataset[int]):
        def __len__(self) -> int:
            return FILES

        def __getitem__(self, index: int) -> int:
            return index

    def epoch(sampler: Any, **options: Any) -> list[int]:
        return [int(n) for batch in data.DataLoader(Numbers(), num_workers=1, **options, **sampler) for n in batch]

    distributed: data.distributed.DistributedSampler[int] = data.distributed.DistributedSampler(
        Numbers(), num_replicas=2, rank=1, seed=3
    )
    prefetching = wrapped(shared_daemon, distributed, 50)
    for number in range(2):
        prefetching.set_epoch(number)
        assert distributed.epoch == number
        want = epoch({"sampler": distributed}, batch_size=8)
        assert epoch({"sampler": prefetching}, batch_size=8) == want
    batches = data.BatchSampler(data.SequentialSampler(Numbers()), 8, False)
    assert epoch({"batch_sampler": wrapped(shared_daemon, batches, 50)}) == list(range(FILES))
    tensors = wrapped(shared_daemon, [torch.tensor([1, 2]), torch.tensor(3)], 1)
    assert [item.tolist() for item in tensors] == [[1, 2], 3]
    assert eventually(lambda: not hinted(shared_daemon), 5)

"""Transforms in a pool of threads, against a scripted daemon."""

from __future__ import annotations

import copy
import dis
import functools
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, eventually
from fake_daemon import FakeDaemon, Polite
from torch.utils.data import DataLoader

import stoker
from stoker import _threads
from stoker.errors import (
    ChangedError,
    DaemonGoneError,
    ForkedError,
    InvalidError,
    StaleIteratorError,
    TransformError,
)

BLOCK = 8


def dataset(tmp_path: Path, **arguments: Any) -> Any:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "block_size": BLOCK,
        "runtime_dir": tmp_path,
        "timeout": 20.0,
        "transform_threads": 3,
    }
    return stoker.Dataset("made-up", **{**settings, **arguments})


def first_token(sample: stoker.Sample) -> int:
    return int(sample["x"][0])


def after(seconds: float) -> Callable[[stoker.Sample], int]:
    """A transform that takes its time."""

    def transform(sample: stoker.Sample) -> int:
        time.sleep(seconds)
        return sample.index

    return transform


def flat(results: Any) -> list[int]:
    return [int(value) for result in results for value in result]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("stoker-transform")]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    gc.collect()
    assert eventually(lambda: not threads(), 5), threads()


@pytest.mark.parametrize("transport", ["ring", "socket"])
@pytest.mark.parametrize(("count", "ahead"), [(1, 1), (3, 2), (2, 50)])
def test_results_come_in_order_whatever_each_sample_takes(
    tmp_path: Path, transport: str, count: int, ahead: int
) -> None:
    dice = random.Random(1)

    def slow(sample: stoker.Sample) -> int:
        time.sleep(dice.random() * 0.002)
        return sample.index * 10

    with FakeDaemon(tmp_path, Polite(samples=90)):
        ds = dataset(tmp_path, transport=transport, transform=slow, transform_threads=count, transform_ahead=ahead)
        for epoch in range(2):
            batches = list(ds)
            assert flat(batches) == list(range(0, 900, 10)), epoch
            assert [len(batch) for batch in batches] == [4] * 22 + [2]
        stats = ds.stats()
        assert (stats.batches, stats.samples, stats.transport) == (46, 180, transport)
        assert ds.state_dict()["epoch"] == 2
        ds.close()


def test_no_more_batches_are_in_the_pool_than_asked_for(tmp_path: Path) -> None:
    started: set[int] = set()
    go_on = threading.Event()

    def blocked(sample: stoker.Sample) -> int:
        started.add(sample.index // 4)
        go_on.wait(20)
        return sample.index

    with FakeDaemon(tmp_path, Polite(samples=80, slots=16)):
        ds = dataset(tmp_path, transform=blocked, transform_threads=40, transform_ahead=3)
        threading.Timer(0.3, go_on.set).start()
        iterator = iter(ds)
        next(iterator)
        assert started == {0, 1, 2}
        assert flat(iterator) == list(range(4, 80))
        ds.close()


@pytest.mark.parametrize("oversized", [frozenset[int](), frozenset({1, 2, 5})])
def test_a_pool_larger_than_the_ring_gets_copies_and_cannot_block(tmp_path: Path, oversized: frozenset[int]) -> None:
    with FakeDaemon(tmp_path, Polite(samples=200, slots=4, oversized=oversized)):
        ds = dataset(tmp_path, transform=lambda sample: sample["x"], transform_ahead=20, collate=list)
        kept = list(ds)  # views of every slot there is
        for number, batch in enumerate(kept):
            for row, x in enumerate(batch):
                assert x.tolist() == list(range(4 * number + row, 4 * number + row + BLOCK))
        assert ds.stats().batches_copied > 0
        ds.close()


def test_slots_are_free_as_soon_as_results_do_not_refer_to_them(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=80, slots=16)):
        ds = dataset(tmp_path, transform=first_token, transform_ahead=3)
        iterator = iter(ds)
        first = next(iterator)
        assert eventually(lambda: ds.stats().batches_kept == 0), "results of three batches, and no slot"
        assert first.tolist() == [0, 1, 2, 3]
        views = dataset(tmp_path, transform=lambda sample: sample["y"], collate=list)
        gc.collect()
        gc.disable()  # the slots of what was prepared are free without a collector's help
        try:
            second = next(iter(views))
            assert eventually(lambda: views.stats().batches_kept == 1)
        finally:
            gc.enable()
        assert [y[0].item() for y in second] == [1, 2, 3, 4]
        del second
        assert eventually(lambda: views.stats().batches_kept == 0)
        ds.close()
        views.close()


@pytest.mark.parametrize("return_tensors", ["torch", "numpy"])
def test_the_default_collate_stacks_arrays_and_numbers_and_keeps_text(tmp_path: Path, return_tensors: str) -> None:
    def transform(sample: stoker.Sample) -> Any:
        x = np.asarray(sample["x"]).astype(np.float32)
        return {"x": x, "n": sample.index, "t": (f"s{sample.index}", 0.5), "b": memoryview(b"ab"), "none": None}

    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = dataset(tmp_path, transform=transform, return_tensors=return_tensors)
        batch = next(iter(ds))
        kind = torch.Tensor if return_tensors == "torch" else np.ndarray
        assert list(batch) == ["x", "n", "t", "b", "none"]
        assert isinstance(batch["x"], kind)
        assert tuple(batch["x"].shape) == (4, BLOCK)
        assert isinstance(batch["n"], kind)
        assert batch["n"].tolist() == [0, 1, 2, 3]
        assert batch["t"][0] == ["s0", "s1", "s2", "s3"]
        assert batch["t"][1].tolist() == [0.5] * 4
        assert (batch["b"], batch["none"]) == ([b"ab"] * 4, [None] * 4)
        ds.close()


def test_without_a_transform_collate_gets_the_samples(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = dataset(tmp_path, collate=lambda samples: [sample.index for sample in samples])
        assert list(ds) == [[0, 1, 2, 3], [4, 5, 6, 7]]
        ds.close()


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_a_batch_transform_gets_whole_batches_in_the_pool(tmp_path: Path, transport: str) -> None:
    seen: set[int] = set()

    def transform(batch: stoker.Batch) -> Any:
        seen.add(threading.get_ident())
        time.sleep(0.001)
        return batch if batch.position == 0 else batch.index.tolist()

    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, batch_transform=transform, transport=transport)
        first, *rest = list(ds)
        assert isinstance(first, stoker.Batch)
        assert first.waited.seconds > 0
        assert first.waited.causes["transform"] > 0
        assert flat(rest) == list(range(4, 40))
        assert threading.get_ident() not in seen
        ds.close()


class Broken(Exception):
    pass


def breaks(sample: stoker.Sample) -> int:
    if sample.index in (5, 6, 12):
        raise Broken(f"no {sample.index}")
    return sample.index


def test_an_error_comes_where_its_batch_would_have_and_next_goes_on(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=20)):
        ds = dataset(tmp_path, transform=breaks)
        iterator = iter(ds)
        assert flat([next(iterator)]) == [0, 1, 2, 3]
        with pytest.raises(TransformError, match=r"made-up: .*sample 5\): transform raised Broken: no 5") as raised:
            next(iterator)
        error = raised.value
        assert (error.key, error.file, error.index) == ("dir/000005", "shard-000.tar", 5)
        assert isinstance(error.__cause__, Broken)
        assert traceback.extract_tb(error.__cause__.__traceback__)[-1].name == "breaks"
        assert "on_error='skip'" in error.remedy
        again = pickle.loads(pickle.dumps(error))
        assert (again.key, again.index, str(again)) == (error.key, 5, str(error))
        assert ds.state_dict()["samples_consumed"] == 8
        assert flat([next(iterator)]) == [8, 9, 10, 11]
        with pytest.raises(TransformError, match="sample 12"):
            next(iterator)
        assert flat(iterator) == [16, 17, 18, 19]
        stats = ds.stats()
        assert (stats.transform_errors, stats.transform_skipped, stats.batches) == (2, 0, 3)
        assert [failed.index for failed in stats.transform_failures] == [5, 12]
        ds.close()


def test_an_error_keeps_no_slot_once_it_is_forgotten(tmp_path: Path) -> None:
    def fail(sample: stoker.Sample) -> int:
        view = sample["x"]
        raise Broken(str(len(view)))

    with FakeDaemon(tmp_path, Polite(samples=40, slots=8)):
        ds = dataset(tmp_path, transform=fail, transform_ahead=1)
        iterator = iter(ds)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                with pytest.raises(TransformError):
                    next(iterator)
            assert eventually(lambda: ds.stats().batches_kept <= 1)
        finally:
            gc.enable()
        ds.close()


def test_samples_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    def fails(sample: stoker.Sample) -> int:
        if sample.index == 3 or 8 <= sample.index < 12:
            raise Broken("no")
        return sample.index

    with FakeDaemon(tmp_path, Polite(samples=20)):
        ds = dataset(tmp_path, transform=fails, on_error="skip")
        batches = [batch.tolist() for batch in ds]
        assert batches == [[0, 1, 2], [4, 5, 6, 7], [12, 13, 14, 15], [16, 17, 18, 19]]
        stats = ds.stats()
        assert (stats.transform_errors, stats.transform_skipped) == (5, 5)
        assert (stats.batches, stats.samples) == (4, 15)
        failed = stats.transform_failures[0]
        assert (failed.key, failed.file, failed.index) == ("dir/000003", "shard-000.tar", 3)
        assert failed.error == "Broken: no"
        assert ds.state_dict()["epoch"] == 1
        ds.close()


def test_no_more_than_a_hundred_failures_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=300)):
        ds = dataset(tmp_path, transform=lambda sample: 1 // 0, on_error="skip", batch_size=50, slots=0)
        assert list(ds) == []
        stats = ds.stats()
        assert (stats.transform_errors, len(stats.transform_failures)) == (300, 100)
        ds.close()


def test_a_function_chooses_a_replacement_or_leaves_the_sample_out(tmp_path: Path) -> None:
    def choose(error: Exception, key: str, index: int) -> Any:
        assert isinstance(error, Broken)
        assert key == f"dir/{index:06}"
        return None if index == 5 else -index if index == 6 else stoker.SKIP

    with FakeDaemon(tmp_path, Polite(samples=16)):
        ds = dataset(tmp_path, transform=breaks, on_error=choose, collate=list)
        assert list(ds) == [[0, 1, 2, 3], [4, None, -6, 7], [8, 9, 10, 11], [13, 14, 15]]
        assert (ds.stats().transform_errors, ds.stats().transform_skipped) == (3, 1)
        ds.close()


def test_a_function_that_fails_itself_is_an_error_and_not_in_silence(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = dataset(tmp_path, transform=breaks, on_error=lambda *_: 1 // 0)
        with pytest.raises(TransformError, match="on_error raised ZeroDivisionError"):
            list(ds)
        ds.close()


def test_a_transform_may_leave_samples_out(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, transform=lambda sample: stoker.SKIP if sample.index % 2 else sample.index)
        assert flat(ds) == [0, 2, 4, 6, 8, 10]
        assert (ds.stats().transform_errors, ds.stats().transform_skipped) == (0, 6)
        assert pickle.loads(pickle.dumps(stoker.SKIP)) is stoker.SKIP
        ds.close()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_batch_transform_that_fails_is_raised_or_left_out_whole(tmp_path: Path, on_error: str) -> None:
    def transform(batch: stoker.Batch) -> Any:
        if batch.position == 4:
            raise Broken("no")
        return batch.index.tolist()

    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, batch_transform=transform, on_error=on_error)
        iterator = iter(ds)
        assert next(iterator) == [0, 1, 2, 3]
        if on_error == "raise":
            with pytest.raises(TransformError, match="batch_transform raised Broken: no") as raised:
                next(iterator)
            assert (raised.value.index, raised.value.key) == (4, "dir/000004")
        assert list(iterator) == [[8, 9, 10, 11]]
        assert ds.stats().transform_skipped == (4 if on_error == "skip" else 0)
        ds.close()


def test_an_error_that_cannot_be_shown_is_one_all_the_same(tmp_path: Path) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise OSError

    def fails(sample: stoker.Sample) -> int:
        raise Unspeakable

    with FakeDaemon(tmp_path, Polite(samples=8)):
        for arguments in ({"transform": fails}, {"batch_transform": fails}):
            ds = dataset(tmp_path, **arguments)
            with pytest.raises(TransformError, match=r"raised Unspeakable: \(it cannot be shown\)"):
                next(iter(ds))
            ds.close()
        ds = dataset(tmp_path, transform=fails, on_error="skip")
        assert list(ds) == []
        assert ds.stats().transform_failures[7].error == "Unspeakable: (it cannot be shown)"
        ds.close()


def test_without_a_daemon_to_ask_an_error_names_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Polite, "name_of", lambda *_: 1 // 0)
    daemon = FakeDaemon(tmp_path, Polite(samples=8))
    with daemon:
        ds = dataset(tmp_path, transform=breaks)
        iterator = iter(ds)
        next(iterator)
        with pytest.raises(TransformError, match="made-up: sample 5: transform raised Broken") as raised:
            next(iterator)
        assert (raised.value.key, raised.value.index) == ("", 5)
        ds.close()
        daemon.errors.clear()


def test_stop_iteration_in_a_transform_does_not_end_the_epoch(tmp_path: Path) -> None:
    def stop(sample: stoker.Sample) -> int:
        return next(iter(())) if sample.index == 5 else sample.index

    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, transform=stop)
        iterator = iter(ds)
        next(iterator)
        with pytest.raises(TransformError, match="raised StopIteration") as raised:
            next(iterator)
        assert isinstance(raised.value.__cause__, StopIteration)
        assert flat(iterator) == [8, 9, 10, 11]
        ds.close()


def test_values_that_are_not_alike_name_the_batch(tmp_path: Path) -> None:
    def uneven(sample: stoker.Sample) -> Any:
        return sample["x"][: sample.index].long() if sample.index < 4 else {"n" if sample.index % 2 else "m": 1}

    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, transform=uneven, on_error="skip")
        iterator = iter(ds)
        with pytest.raises(TransformError, match="collate raised RuntimeError: stack expects each tensor") as raised:
            next(iterator)
        assert "pass a collate=" in raised.value.remedy
        with pytest.raises(TransformError, match="different columns: m, and n"):
            next(iterator)
        assert ds.stats().transform_errors == 0
        ds.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_is_no_exception_passes_at_once(tmp_path: Path, kind: type[BaseException]) -> None:
    go_on = threading.Event()

    def transform(sample: stoker.Sample) -> int:
        if sample.index == 0:
            go_on.wait(20)
        if sample.index == 5:
            raise kind
        return sample.index

    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, transform=transform, on_error="skip")
        iterator = iter(ds)
        with pytest.raises(kind):
            next(iterator)  # waits for the first batch, and the second raises
        go_on.set()
        assert flat([next(iterator)]) == [0, 1, 2, 3]
        with pytest.raises(TransformError, match=kind.__name__):
            next(iterator)
        assert flat(iterator) == [8, 9, 10, 11]
        ds.close()


@functools.cache
def looks_for_signals(code: CodeType) -> set[int]:
    """Where Python calls the handlers of signals that came: after calls, on entry, and where a loop goes back."""
    places, before = set[int](), ""
    for instruction in dis.get_instructions(code):
        # Not between a function's return and its caller's.
        if before.startswith(("CALL", "RESUME")) and instruction.opname != "RETURN_VALUE":
            places.add(instruction.offset)
        if "JUMP" in instruction.opname and instruction.argval < instruction.offset:
            places.add(instruction.argval)
        before = instruction.opname
    return places


class Interruption:
    """Raises KeyboardInterrupt at one of the places of a call of next(), counted from 1, where a Ctrl-C may."""

    # What a collector calls cannot raise; the batch that _yield was about to return would be gone.
    SPARED: Final = {"_yield", "_last_view_gone", "__del__", "stop"}

    def __init__(self, place: int) -> None:
        self.left = place
        self.at = ""

    def next_of(self, iterator: Any) -> Any:
        sys.settrace(self._enter)
        try:
            return next(iterator)
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, _: str, __: Any) -> Any:
        above: FrameType | None = frame
        while above is not None:
            if above.f_code.co_name in self.SPARED:
                return None
            above = above.f_back
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if event == "opcode" and frame.f_lasti in looks_for_signals(code):
            self.left -= 1
            if self.left == 0:
                self.at = f"{code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._instruction


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a connection that was interrupted while it was made
@pytest.mark.parametrize("between", [0, 2])
@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_ctrl_c_anywhere_in_next_loses_and_repeats_nothing(tmp_path: Path, transport: str, between: int) -> None:
    with FakeDaemon(tmp_path, Polite(samples=1 << 20, slots=8)):
        ds = dataset(tmp_path, transform=lambda sample: sample.index, transform_ahead=3, transport=transport)
        iterator, seen, places = iter(ds), list[int](), set[str]()
        gc.disable()  # Python loses what is raised while it collects, in callbacks of libraries
        try:
            for place in range(1, 2000):
                for _ in range(between):
                    seen += next(iterator).tolist()
                interruption = Interruption(place)
                try:
                    seen += interruption.next_of(iterator).tolist()
                    break  # it has no such place
                except KeyboardInterrupt:
                    places.add(interruption.at)
        finally:
            gc.enable()
        seen += next(iterator).tolist()
        assert seen == list(range(len(seen)))
        assert len(places) > 10
        ds.close()
        gc.collect()


def test_an_interrupted_fetch_reads_again_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, transform=first_token, transform_ahead=2)
        iterator = iter(ds)
        seen = flat([next(iterator)])
        builder = ds._stream._builder
        assert builder is not None
        build = builder.build

        def interrupted(*arguments: Any) -> Any:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            return build(*arguments)

        monkeypatch.setattr(builder, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            while True:
                seen += flat([next(iterator)])
        assert seen + flat(iterator) == list(range(40))
        ds.close()


def test_state_counts_what_was_yielded_and_not_what_the_pool_holds(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40, slots=8)):
        ds = dataset(tmp_path, transform=first_token, transform_ahead=5)
        iterator = iter(ds)
        assert ds.state_dict()["samples_consumed"] == 0
        for step in range(1, 4):
            next(iterator)
            state = iterator.state_dict()
            assert (state["epoch"], state["samples_consumed"]) == (0, 4 * step)
        resumed = dataset(tmp_path, transform=first_token)
        resumed.load_state_dict(state)
        assert flat(resumed) == list(range(12, 40))
        iterator.load_state_dict({**state, "samples_consumed": 32})
        assert flat(iterator) == list(range(32, 40))
        assert ds.state_dict()["epoch"] == 1
        ds.set_epoch(7)
        assert flat(ds) == list(range(40))
        assert ds.state_dict()["epoch"] == 8
        ds.close()
        resumed.close()


def test_the_end_of_an_epoch_counts_when_it_is_reached(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = dataset(tmp_path, transform=first_token, transform_ahead=9)
        iterator = iter(ds)
        next(iterator), next(iterator)
        assert (ds.state_dict()["epoch"], ds.state_dict()["samples_consumed"]) == (0, 8)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(iterator)
        assert (ds.state_dict()["epoch"], ds.state_dict()["samples_consumed"]) == (1, 0)
        assert not threads()
        ds.close()


def test_an_older_iterator_is_stale_and_its_threads_end(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, transform=first_token)
        old = iter(ds)
        next(old)
        new = iter(ds)
        assert not threads()
        with pytest.raises(StaleIteratorError):
            next(old)
        assert flat(new) == list(range(40))
        newest = iter(ds)
        next(newest)
        ds.load_state_dict({**ds.state_dict(), "samples_consumed": 36})
        with pytest.raises(StaleIteratorError):
            next(newest)
        assert flat(ds) == [36, 37, 38, 39]
        ds.close()


def test_after_close_an_iterator_goes_on_with_what_was_not_yielded(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, transform=first_token)
        iterator = iter(ds)
        seen = flat([next(iterator), next(iterator)])
        ds.close()
        assert not threads()
        assert seen + flat(iterator) == list(range(40))
        ds.close()


def test_close_in_another_thread_ends_a_wait(tmp_path: Path) -> None:
    entered, seen = threading.Event(), list[int]()

    def transform(sample: stoker.Sample) -> int:
        if not entered.is_set():
            entered.set()
            time.sleep(0.3)
        return sample.index

    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = dataset(tmp_path, transform=transform)
        iterating = threading.Thread(target=lambda: seen.extend(flat(ds)))
        iterating.start()
        assert entered.wait(10)
        iterator = ds._newest()
        assert iterator is not None
        iterator._drop()
        iterating.join(20)
        assert seen == list(range(8))
        del iterator
        ds.close()


def test_a_transform_may_close_the_dataset(tmp_path: Path) -> None:
    def transform(sample: stoker.Sample) -> int:
        if sample.index == 5 and not closed:
            closed.append(1)
            ds._newest()._drop()
        return sample.index

    closed: list[int] = []
    with FakeDaemon(tmp_path, Polite(samples=16)):
        ds = dataset(tmp_path, transform=transform)
        begin = time.monotonic()
        assert flat(ds) == list(range(16))
        assert time.monotonic() - begin < 8, "a thread does not wait for its own end"
        ds.close()


def test_a_forgotten_iterator_ends_its_threads_and_gives_its_slots_back(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, transform=first_token)
        iterator = iter(ds)
        next(iterator)
        assert threads()
        del iterator
        assert eventually(lambda: not threads())
        assert eventually(lambda: ds.stats().batches_kept == 0)
        ds.close()


def test_a_sample_that_is_kept_keeps_no_session(tmp_path: Path) -> None:
    ended = threading.Event()
    polite = Polite(samples=8)

    def behave(connection: Any) -> None:
        try:
            polite(connection)
        finally:
            ended.set()

    with FakeDaemon(tmp_path, behave):
        ds = dataset(tmp_path, transform=lambda sample: sample, collate=list)
        samples = next(iter(ds))
        del ds
        gc.collect()
        assert ended.wait(5)
        assert samples[3].key == "dir/000003"
        assert samples[3]["x"].tolist() == list(range(3, 3 + BLOCK))


EXIT = """
import sys, time, stoker
def slow(sample):
    time.sleep(float(sys.argv[2]))
    return sample.index
ds = stoker.Dataset("made-up", batch_size=4, block_size=8, runtime_dir=sys.argv[1], return_tensors="numpy",
                    transform=slow, transform_threads=2, transform_ahead=4)
iterator = iter(ds)
print(next(iterator).tolist(), flush=True)
if len(sys.argv) > 3: raise SystemExit(5)
"""


@pytest.mark.parametrize("seconds", ["0", "0.3"])
@pytest.mark.parametrize("how", [[], ["exit"]])
def test_the_interpreter_ends_after_the_sample_that_threads_are_at(
    tmp_path: Path, seconds: str, how: list[str]
) -> None:
    with FakeDaemon(tmp_path, Polite(samples=400)):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", EXIT, str(tmp_path), seconds, *how],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "python")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "[0, 1, 2, 3]\n"
        assert (done.returncode, done.stderr) == (5 if how else 0, "")
        assert time.monotonic() - begin < 30


def test_a_forked_child_has_no_threads_and_may_not_iterate(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40)):
        ds = dataset(tmp_path, transform=first_token)
        iterator = iter(ds)
        seen = flat([next(iterator)])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                next(iterator)
            except ForkedError:
                del iterator
                gc.collect()
                status = 0 if flat_after_close(ds) == list(range(40)) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert seen + flat(iterator) == list(range(40))
        ds.close()


def flat_after_close(ds: Any) -> list[int]:
    ds.close()
    return flat(ds)


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_reconnecting_loses_and_repeats_nothing(tmp_path: Path, transport: str) -> None:
    daemon = FakeDaemon(tmp_path, Polite(samples=60))
    daemon.__enter__()
    ds = dataset(tmp_path, transform=first_token, reconnect=True, reconnect_timeout=20, transport=transport)
    iterator = iter(ds)
    seen = flat([next(iterator) for _ in range(3)])
    daemon.__exit__(None, None, None)
    with FakeDaemon(tmp_path, Polite(samples=60)):
        seen += flat(iterator)
        assert seen == list(range(60))
        assert ds.stats().reconnects == 1
        ds.close()


def test_the_end_of_a_daemon_comes_after_what_it_gave(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path, Polite(samples=60))
    daemon.__enter__()
    ds = dataset(tmp_path, transform=first_token, transform_ahead=4)
    iterator = iter(ds)
    seen = flat([next(iterator)])
    daemon.__exit__(None, None, None)
    with pytest.raises(DaemonGoneError):
        while True:
            seen += flat([next(iterator)])
    assert seen == list(range(len(seen)))
    assert ds.state_dict()["samples_consumed"] == len(seen)
    with FakeDaemon(tmp_path, Polite(samples=60)):
        assert seen + flat(iterator) == list(range(60))
        ds.close()


def test_an_error_of_the_daemon_comes_in_its_place_and_is_tried_again(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=40, fails_at=3, failures=1)):
        ds = dataset(tmp_path, transform=first_token, transform_ahead=3)
        iterator = iter(ds)
        seen = flat([next(iterator) for _ in range(3)])
        with pytest.raises(ChangedError):
            next(iterator)
        assert seen + flat(iterator) == list(range(40))
        ds.close()


def test_waits_for_the_pool_are_a_cause_of_their_own_and_sums_hold(tmp_path: Path) -> None:
    polite = Polite(samples=80)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path, transform=after(0.002))
        assert flat(ds) == list(range(80))
        stats = ds.stats()
        assert stats.causes["transform"] > 0.02
        assert abs(stats.stall_seconds - sum(stats.causes.values())) < 1e-6
        assert 0 < stats.stall_share <= 1
        for slow in stats.worst:
            assert abs(slow.seconds - sum(slow.causes.values())) < 1e-9
        assert stats.first_batch_seconds is not None
        ring = polite.rings[0]
        for cause, seconds in {"": stats.stall_seconds, "transform_": stats.causes["transform"]}.items():
            assert abs(ring.word(f"waited_{cause}ns") - seconds * 1e9) < 10, "the daemon is told of all waits"
        ds.close()


def test_without_a_transform_there_is_no_thread_and_no_wait_for_one(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=20)):
        ds = dataset(tmp_path, transform_threads=None)
        for batch in ds:
            assert batch.waited.causes.get("transform", 0) == 0
            assert not threads()
        assert ds.stats().causes["transform"] == 0
        ds.close()


def test_names_are_asked_for_once_a_batch_and_only_if_wanted(tmp_path: Path) -> None:
    polite = Polite(samples=12)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path, transform=lambda sample: sample.index)
        assert flat(ds) == list(range(12))
        assert "keys" not in [request["type"] for request in polite.requests]
        ds.close()
        ds = dataset(tmp_path, transform=lambda sample: f"{sample.file}:{sample.key}")
        assert [name for batch in ds for name in batch] == [
            f"shard-{number // 10:03}.tar:dir/{number:06}" for number in range(12)
        ]
        asked = [request for request in polite.requests if request["type"] == "keys"]
        assert sorted(request["samples"][0] for request in asked) == [0, 4, 8]
        assert all(request["index_id"] == "index-1" and request["block_size"] == BLOCK for request in asked)
        ds.close()


def test_a_dataloader_passes_results_on(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=20)):
        ds = dataset(tmp_path, transform=lambda sample: {"n": sample.index})
        loader = DataLoader(ds, batch_size=None, num_workers=0)
        assert [batch["n"].tolist() for batch in loader] == [list(range(at, at + 4)) for at in range(0, 20, 4)]
        ds.close()


def test_a_sample_is_pickled_and_copied_with_its_name(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=4)):
        ds = dataset(tmp_path, transform=lambda sample: sample, collate=list, return_tensors="numpy")
        sample = next(iter(ds))[2]
        for other in (pickle.loads(pickle.dumps(sample)), copy.copy(sample)):
            assert (type(other), other.index, other.key, other.file) == (
                stoker.Sample,
                2,
                "dir/000002",
                "shard-000.tar",
            )
            assert other["x"].tolist() == sample["x"].tolist()
        ds.close()


def test_a_dataset_is_pickled_with_its_transform(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(samples=8)):
        ds = pickle.loads(pickle.dumps(dataset(tmp_path, transform=first_token)))
        assert flat(ds) == list(range(8))
        ds.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"transform": 3}, "transform=3 cannot be called"),
        ({"transform": first_token, "batch_transform": first_token}, "have no place beside it"),
        ({"collate": list, "batch_transform": first_token}, "have no place beside it"),
        ({"transform": first_token, "on_error": "ignore"}, "on_error='ignore' is neither"),
        ({"transform": first_token, "transform_threads": 0}, "transform_threads=0"),
        ({"transform": first_token, "transform_ahead": 0}, "transform_ahead=0"),
        ({"transform_threads": None, "transform_ahead": 3}, "transform_ahead=3 is about a transform"),
        ({"transform_threads": 2}, "transform_threads=2 is about a transform"),
        ({"transform_threads": None, "on_error": "skip"}, "on_error='skip' is about a transform"),
    ],
    ids=str,
)
def test_an_impossible_plan_is_named(tmp_path: Path, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidError, match=complaint) as raised:
        dataset(tmp_path, **arguments)
    assert raised.value.remedy


def test_threads_are_this_ranks_share_of_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for ranks, count in (("8", 8), ("1", 16), ("100", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        plan = dataset(tmp_path, transform=first_token, transform_threads=None)._plan
        assert plan is not None
        assert (plan.threads, plan.ahead) == (count, 4)
    plan = dataset(tmp_path, batch_transform=first_token, transform_threads=9)._plan
    assert plan is not None
    assert plan.ahead == 10


def test_a_transform_that_never_returns_does_not_hold_the_next_iterator_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_PATIENCE_SECONDS", 0.2)
    go_on = threading.Event()

    def stuck(sample: stoker.Sample) -> int:
        if not go_on.is_set() and sample.index == 6:
            go_on.wait(30)
        return sample.index

    with FakeDaemon(tmp_path, Polite(samples=12)):
        ds = dataset(tmp_path, transform=stuck)
        assert flat([next(iter(ds))]) == [0, 1, 2, 3]
        ds.close()
        go_on.set()
        assert flat(ds) == list(range(12))
        ds.close()

"""Stopping and continuing: states, epochs, StatefulDataLoader, other numbers of ranks."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from conftest import BLOCK, ROWS, Daemon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

import stoker


def tokens(daemon: Daemon, **arguments: Any) -> stoker.Dataset:
    return daemon.dataset("tokens", **{"batch_size": 64, "block_size": BLOCK, "shuffle": True, "seed": 3, **arguments})


def samples_of(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch.index.tolist()]


@pytest.fixture(scope="module")
def whole(shared_daemon: Daemon) -> list[list[int]]:
    """The order of three epochs, uninterrupted."""
    ds = tokens(shared_daemon)
    orders = [samples_of(ds) for _ in range(3)]
    ds.close()
    return orders


def test_a_state_continues_exactly_where_it_was_taken(shared_daemon: Daemon, whole: list[list[int]]) -> None:
    for stop in (1, 7, 15, 16):
        ds = tokens(shared_daemon)
        iterator = iter(ds)
        seen = samples_of(next(iterator) for _ in range(stop))
        state = ds.state_dict()
        ds.close()
        resumed = tokens(shared_daemon)
        resumed.load_state_dict(state)
        assert seen + samples_of(resumed) == whole[0]
        assert samples_of(resumed) == whole[1]
        resumed.close()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"batch_transform": lambda batch: batch}])
def test_a_trainer_that_counts_batches_gets_the_next_epoch(
    shared_daemon: Daemon, whole: list[list[int]], drop_last: bool, arguments: dict[str, Any]
) -> None:
    ds = tokens(shared_daemon, drop_last=drop_last, **arguments)
    for order in whole:
        seen = samples_of(itertools.islice(ds, len(ds)))
        assert seen == order[: len(seen)]
        assert len(seen) == (len(ds) * 64 if drop_last else len(order))
    assert samples_of(itertools.islice(ds, 2)) == samples_of(itertools.islice(ds, 2))
    ds.close()


def test_a_state_taken_between_epochs_begins_the_next(shared_daemon: Daemon, whole: list[list[int]]) -> None:
    ds = tokens(shared_daemon)
    list(ds)
    state = ds.state_dict()
    assert (state["epoch"], state["samples_consumed"]) == (1, 0)
    ds.close()
    resumed = tokens(shared_daemon)
    resumed.load_state_dict(state)
    assert samples_of(resumed) == whole[1]
    resumed.close()


def test_the_loop_of_a_resumed_training_script_sees_each_epoch_once(
    shared_daemon: Daemon, whole: list[list[int]]
) -> None:
    ds = tokens(shared_daemon)
    iterator = iter(ds)
    seen = {0: samples_of(next(iterator) for _ in range(5)), 1: [], 2: []}
    state = ds.state_dict()
    ds.close()
    resumed = tokens(shared_daemon)
    resumed.load_state_dict(state)
    for epoch in range(state["epoch"], 3):
        resumed.set_epoch(epoch)
        for batch in resumed:
            assert batch.epoch == epoch
            seen[epoch] += batch.index.tolist()
    assert [seen[epoch] for epoch in range(3)] == whole
    resumed.close()


@pytest.mark.parametrize("stop", [1, 9, 16])
def test_a_stateful_dataloader_resumes_in_the_middle_of_an_epoch(
    shared_daemon: Daemon, whole: list[list[int]], stop: int
) -> None:
    ds = tokens(shared_daemon)
    loader: StatefulDataLoader[Any] = StatefulDataLoader(ds, batch_size=None, num_workers=0)
    iterator = iter(loader)
    seen = samples_of(next(iterator) for _ in range(stop))
    state = loader.state_dict()
    ds.close()
    other = tokens(shared_daemon)
    resumed: StatefulDataLoader[Any] = StatefulDataLoader(other, batch_size=None, num_workers=0)
    resumed.load_state_dict(state)
    assert seen + samples_of(resumed) == whole[0]
    assert samples_of(resumed) == whole[1]
    other.close()


def test_a_stateful_dataloader_that_finished_an_epoch_begins_the_next(
    shared_daemon: Daemon, whole: list[list[int]]
) -> None:
    ds = tokens(shared_daemon)
    loader: StatefulDataLoader[Any] = StatefulDataLoader(ds, batch_size=None, num_workers=0)
    assert samples_of(loader) == whole[0]
    state = loader.state_dict()
    ds.close()
    other = tokens(shared_daemon)
    resumed: StatefulDataLoader[Any] = StatefulDataLoader(other, batch_size=None, num_workers=0)
    resumed.load_state_dict(state)
    assert samples_of(resumed) == whole[1]
    assert samples_of(resumed) == whole[2]
    other.close()


def flat(seen: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(seen))


def run_ranks(daemon: Daemon, world: int, batch_size: int, state: dict[str, Any] | None, steps: int | None) -> Any:
    """Iterate all ranks in step; returns the samples of each rank and a state after the last step."""
    ranks = [tokens(daemon, rank=rank, world_size=world, batch_size=batch_size, slots=4) for rank in range(world)]
    seen: list[list[int]] = [[] for _ in ranks]
    iterators = []
    for ds in ranks:
        if state is not None:
            ds.load_state_dict(state)
        iterators.append(iter(ds))
    done = 0
    while steps is None or done < steps:
        batches = [next(iterator, None) for iterator in iterators]
        assert len({batch is None for batch in batches}) == 1, "all ranks have equally many batches"
        for rank, batch in enumerate(batches):
            if batch is not None:
                seen[rank] += batch.index.tolist()
        if batches[0] is None:
            break
        done += 1
    states = [ds.state_dict() for ds in ranks]
    assert all(state == states[0] for state in states), "the state is the same on every rank"
    for ds in ranks:
        ds.close()
    return seen, states[0]


def test_two_ranks_stopped_and_continued_by_three_read_each_remaining_sample_once(shared_daemon: Daemon) -> None:
    before, state = run_ranks(shared_daemon, 2, 64, None, 4)
    after, _ = run_ranks(shared_daemon, 3, 64, state, None)
    everything = flat(before) + flat(after)
    assert len(everything) == ROWS
    assert sorted(everything) == list(range(ROWS))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_any_change_of_world_and_batch_size_reads_each_remaining_sample_once(shared_daemon: Daemon, dice: int) -> None:
    rng = random.Random(dice)
    everything: list[int] = []
    state = None
    for _ in range(rng.randint(1, 2)):
        seen, state = run_ranks(shared_daemon, rng.randint(1, 4), rng.randint(1, 150), state, rng.randint(0, 4))
        if state["epoch"] > 0:  # the dice stopped at the end of the epoch
            assert sorted(everything + flat(seen)) == list(range(ROWS))
            return
        everything += flat(seen)
    seen, _ = run_ranks(shared_daemon, rng.randint(1, 5), rng.randint(30, 150), state, None)
    assert sorted(everything + flat(seen)) == list(range(ROWS))


def test_a_world_larger_than_the_rest_gives_some_ranks_an_empty_batch(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon)
    list(ds)
    state = {**ds.state_dict(), "epoch": 0, "samples_consumed": ROWS - 2}
    ds.close()
    after, _ = run_ranks(shared_daemon, 4, 8, state, None)
    assert [len(samples) for samples in after] == [1, 1, 0, 0]

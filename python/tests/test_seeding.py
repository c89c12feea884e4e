"""seeding=: orders of one generator, and of DataLoader(shuffle=True), through the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BLOCK, ROWS, Daemon
from fake_daemon import FakeConnection, FakeDaemon
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import stoker
from stoker.options import SEEDINGS

BATCH = 48
EPOCHS = 3
Epoch = list[list[int]]


def dataset(daemon: Daemon, seeding: str | None, order: str = "torch", **arguments: Any) -> stoker.Dataset:
    return daemon.dataset(
        "tokens", order=order, seeding=seeding, **{"batch_size": BATCH, "block_size": BLOCK, "seed": 5, **arguments}
    )


def batches_of(batches: Any) -> Epoch:
    return [batch.index.tolist() for batch in batches]


def epochs_of(loader: Any) -> Iterator[Epoch]:
    """What iterating a DataLoader over the sample numbers gives, epoch by epoch."""
    for _ in range(EPOCHS):
        yield [batch.tolist() for batch in loader]


def torch_epochs(seeding: str, drop_last: bool) -> Iterator[Epoch]:
    """What torch gives whoever trains without a DistributedSampler."""
    numbers: Any = range(ROWS)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "drop_last": drop_last}
    if seeding == "once":
        sampler = RandomSampler(numbers, generator=torch.Generator().manual_seed(5))
        for _ in range(EPOCHS):
            yield list(BatchSampler(sampler, BATCH, drop_last))
        return
    if seeding == "loader_generator":
        options["generator"] = torch.Generator().manual_seed(5)
    if seeding == "loader_persistent":
        options.update(num_workers=1, persistent_workers=True)
    torch.manual_seed(5)
    yield from epochs_of(DataLoader(numbers, **options))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seeding", SEEDINGS["torch"])
def test_batches_are_those_of_torch_without_a_distributed_sampler(
    shared_daemon: Daemon, seeding: str, drop_last: bool
) -> None:
    ds = dataset(shared_daemon, seeding, drop_last=drop_last)
    for expected in torch_epochs(seeding, drop_last):
        assert len(ds) == len(expected)
        assert batches_of(ds) == expected
    ds.close()


def numpy_epochs(seeding: str) -> Iterator[list[int]]:
    state, kept = np.random.RandomState(5), list(range(ROWS))
    for _ in range(EPOCHS):
        if seeding == "in_place":
            state.shuffle(kept)
            yield list(kept)
        else:
            yield state.permutation(ROWS).tolist()


@pytest.mark.parametrize("seeding", SEEDINGS["numpy"])
def test_samples_are_those_of_one_numpy_generator(shared_daemon: Daemon, seeding: str) -> None:
    ds = dataset(shared_daemon, seeding, "numpy")
    for expected in numpy_epochs(seeding):
        assert [number for batch in ds for number in batch.index.tolist()] == expected
    ds.close()


@pytest.mark.parametrize("seeding", SEEDINGS["torch"])
def test_a_state_carries_the_seeding_on(shared_daemon: Daemon, seeding: str) -> None:
    first, second, third = torch_epochs(seeding, drop_last=False)
    ds = dataset(shared_daemon, seeding)
    assert batches_of(ds) == first
    iterator = iter(ds)
    seen = batches_of(next(iterator) for _ in range(3))
    state = json.loads(json.dumps(ds.state_dict()))
    ds.close()
    assert state["seeding"] == seeding
    resumed = dataset(shared_daemon, seeding)
    resumed.load_state_dict(state)
    assert seen + batches_of(resumed) == second
    assert batches_of(resumed) == third
    resumed.close()


def test_a_state_of_another_seeding_is_refused(shared_daemon: Daemon) -> None:
    states = {}
    for seeding in (None, "once", "loader"):
        ds = dataset(shared_daemon, seeding)
        next(iter(ds))
        states[seeding] = ds.state_dict()
        ds.close()
    assert "seeding" not in states[None], "states from before there were seedings are loaded"
    for mine in states:
        for theirs, state in states.items():
            other = dataset(shared_daemon, mine)
            if mine == theirs:
                other.load_state_dict(state)
            else:
                with pytest.raises(stoker.InvalidError, match=f"seeding={theirs!r}.*this Dataset has {mine!r}"):
                    other.load_state_dict(state)


@pytest.mark.parametrize(
    ("order", "seeding", "remedy"),
    [
        ("torch", "in_place", "'once', 'loader', 'loader_persistent', 'loader_generator'"),
        ("torch", "", "'once', 'loader'"),
        ("numpy", "loader", "'once', 'in_place'"),
        ("global", "once", "which has none"),
        ("torch", 7, "'once', 'loader'"),
    ],
)
def test_a_seeding_that_an_order_lacks_is_refused_at_once(order: str, seeding: Any, remedy: str) -> None:
    with pytest.raises(stoker.InvalidError, match=remedy):
        stoker.Dataset("tokens", batch_size=1, order=order, seeding=seeding)


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_a_daemon_that_does_not_look_at_the_seeding_is_not_asked(tmp_path: Path, transport: str) -> None:
    asked = []

    def older(connection: FakeConnection) -> None:
        connection.hello()
        asked.append(connection.receive())

    with FakeDaemon(tmp_path / "run", older) as daemon:
        ds = stoker.Dataset(
            "tokens",
            batch_size=1,
            block_size=1,
            order="torch",
            seeding="once",
            transport=transport,
            runtime_dir=daemon.path.parent,
        )
        with pytest.raises(stoker.UnavailableError, match="too old for seeding='once'"):
            next(iter(ds))
    assert asked == []


@pytest.mark.parametrize("seeding", SEEDINGS["torch"])
def test_a_hint_knows_the_seedings(shared_daemon: Daemon, seeding: str) -> None:
    sampler = {"kind": "torch", "seed": 5, "seeding": seeding, "epochs": 2}
    with stoker.hint("tokens", sampler=sampler, block_size=BLOCK, runtime_dir=shared_daemon.runtime_dir) as hint:
        assert hint.info.samples == 2 * ROWS

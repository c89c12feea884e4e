"""order="torch" and "numpy": the golden vectors are those of the libraries, and batches are those of a DataLoader."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest
from conftest import BLOCK, REPOSITORY, ROWS, Daemon
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

import stoker

TESTDATA = REPOSITORY / "loader" / "order" / "testdata"
CASES: list[dict[str, Any]] = json.loads((TESTDATA / "samplers.json").read_text())["cases"]
WORLDS = [(world, rank) for world in (1, 2, 3) for rank in range(world)]


def load_oracle() -> Any:
    """The program that asks torch and numpy, as a module."""
    spec = importlib.util.spec_from_file_location("oracle", TESTDATA / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dataset(daemon: Daemon, order: str = "torch", **arguments: Any) -> stoker.Dataset:
    return daemon.dataset("tokens", order=order, **{"batch_size": 48, "block_size": BLOCK, "seed": 3, **arguments})


def torch_batches(epoch: int, world: int, rank: int, drop_last: bool) -> list[list[int]]:
    """What torch gives a rank of the dataset's sample numbers."""
    numbers: Any = range(ROWS)
    sampler: DistributedSampler[int] = DistributedSampler(
        numbers, num_replicas=world, rank=rank, shuffle=True, seed=3, drop_last=drop_last
    )
    sampler.set_epoch(epoch)
    loader: DataLoader[int] = DataLoader(numbers, batch_size=48, sampler=sampler, drop_last=drop_last)
    return [batch.tolist() for batch in loader]


def batches_of(batches: Any) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


def test_the_golden_vectors_are_those_of_the_libraries() -> None:
    oracle = load_oracle()
    assert len(CASES) > 300
    requests = [{key: case[key] for key in ("spec", "epoch", "share") if key in case} for case in CASES]
    assert requests == oracle.requests()
    for request, case in zip(requests, CASES, strict=True):
        assert oracle.golden(request) == case


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("world", "rank"), WORLDS)
def test_batches_are_those_of_a_dataloader(shared_daemon: Daemon, world: int, rank: int, drop_last: bool) -> None:
    ds = dataset(shared_daemon, world_size=world, rank=rank, drop_last=drop_last)
    for epoch in (0, 1, 2, 40):
        ds.set_epoch(epoch)
        expected = torch_batches(epoch, world, rank, drop_last)
        assert len(ds) == len(expected)
        assert batches_of(ds) == expected
    ds.close()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("world", "rank"), WORLDS)
def test_a_state_continues_torch_s_order(shared_daemon: Daemon, world: int, rank: int, drop_last: bool) -> None:
    places: dict[str, Any] = {"world_size": world, "rank": rank, "drop_last": drop_last}
    expected = torch_batches(1, world, rank, drop_last)
    for stop in (1, len(expected) // 2, len(expected)):
        ds = dataset(shared_daemon, **places)
        ds.set_epoch(1)
        iterator = iter(ds)
        seen = batches_of(next(iterator) for _ in range(stop))
        state = json.loads(json.dumps(ds.state_dict()))
        ds.close()
        resumed = dataset(shared_daemon, **places)
        resumed.load_state_dict(state)
        assert seen + batches_of(resumed) == expected
        assert batches_of(resumed) == torch_batches(2, world, rank, drop_last)
        resumed.close()


def test_another_world_size_cannot_continue_torch_s_order(shared_daemon: Daemon) -> None:
    ds = dataset(shared_daemon, world_size=2, rank=0)
    next(iter(ds))
    state = ds.state_dict()
    ds.close()
    other = dataset(shared_daemon, world_size=3, rank=0)
    with pytest.raises(stoker.InvalidError, match=r"(?s)world_size=2.*make the Dataset with the same world_size"):
        other.load_state_dict(state)
    smaller = dataset(shared_daemon, world_size=2, rank=1, batch_size=10)
    smaller.load_state_dict(state)
    rest = [number for batch in torch_batches(0, 2, 1, False)[1:] for number in batch]
    assert [number for batch in smaller for number in batch.index.tolist()] == rest
    smaller.close()


def test_numpy_s_order_is_that_of_its_shuffle(shared_daemon: Daemon) -> None:
    ds = dataset(shared_daemon, "numpy")
    for epoch in range(3):
        np.random.seed(3 + epoch)
        numbers = list(range(ROWS))
        np.random.shuffle(numbers)
        assert [number for batch in ds for number in batch.index.tolist()] == numbers
    ds.close()


def test_other_worlds_continue_numpy_s_order(shared_daemon: Daemon) -> None:
    one = dataset(shared_daemon, "numpy")
    iterator = iter(one)
    seen = next(iterator).index.tolist()
    state = one.state_dict()
    one.close()
    for rank in range(3):
        ds = dataset(shared_daemon, "numpy", world_size=3, rank=rank)
        ds.load_state_dict(state)
        seen += [number for batch in ds for number in batch.index.tolist()]
        ds.close()
    assert sorted(seen) == list(range(ROWS))


def test_a_seed_that_numpy_lacks_is_refused(shared_daemon: Daemon) -> None:
    ds = dataset(shared_daemon, "numpy", seed=2**32)
    with pytest.raises(stoker.InvalidError, match="numpy takes seeds from 0 to 4294967295"):
        next(iter(ds))

"""Arguments, the environment, and the numbers that follow from them."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stoker
from stoker import _places
from stoker.errors import InvalidError


def options(**arguments: Any) -> Any:
    return stoker.Dataset("n", **{"batch_size": 4, **arguments})._options


def test_shuffle_means_the_global_order_and_nothing_means_sequential() -> None:
    assert options().order == "sequential"
    assert options(shuffle=True).order == "global"
    assert options(shuffle=True, order="windowed").order == "windowed"


def test_a_window_belongs_to_the_windowed_order() -> None:
    assert options(order="windowed").window == options(window=None).window == 65536
    assert options(order="windowed", window=9).window == 9


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"batch_size": 0}, "batch_size=0 is no whole number from 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1 << 64}, "seed="),
        ({"window": 0}, "window=0"),
        ({"window": 65536}, "window=65536 is about order='windowed', and the order is 'sequential'"),
        ({"window": 9, "shuffle": True}, "the order is 'global'"),
        ({"order": "x" * 9999}, r"order='x{1,80} is not one of"),
        ({"block_size": 0}, "block_size=0"),
        ({"order": "random"}, "order='random' is not one of 'global'"),
        ({"order": "sequential", "shuffle": True}, "contradicts"),
        ({"transport": "carrier pigeon"}, "transport="),
        ({"return_tensors": "jax"}, "return_tensors='jax'"),
        ({"slots": 3}, "3 slots are too few"),
        ({"slots": -1}, "slots=-1"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2 does not exist"),
        ({"rank": -1, "world_size": 2}, "rank -1"),
        ({"world_size": 2}, "which of those ranks"),
        ({"rank": 1}, "not of how many"),
        ({"world_size": 0, "rank": 0}, "world_size 0"),
    ],
    ids=str,
)
def test_an_impossible_argument_is_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidError, match=complaint) as raised:
        options(**arguments)
    assert raised.value.remedy


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_needed(name: Any) -> None:
    with pytest.raises(InvalidError, match="no dataset name"):
        stoker.Dataset(name, batch_size=1)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    import numpy as np

    assert options(batch_size=np.int32(8)).batch_size == 8


def test_rank_and_world_size_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (options().rank, options().world_size) == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (options().rank, options().world_size) == (3, 8)
    assert (options(rank=1, world_size=2).rank, options(rank=1, world_size=2).world_size) == (1, 2)
    assert (options(world_size=1).rank, options(world_size=1).world_size) == (0, 1)
    monkeypatch.setenv("RANK", "three")
    with pytest.raises(InvalidError, match="RANK is 'three'"):
        options()


def test_job_id_comes_from_the_launcher() -> None:
    group = f"process-group-{os.getpgid(0)}"
    assert _places.job_identity("mine", {"SLURM_JOB_ID": "7"}) == "mine"
    assert _places.job_identity(None, {"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "x"}) == "torchelastic-x"
    assert _places.job_identity(None, {"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "none"}) == "slurm-7"
    assert _places.job_identity(None, {"TORCHELASTIC_RUN_ID": "none"}) == group
    assert _places.job_identity(None, {}) == group


def steps_by_the_rule(samples: int, world: int, batch: int, drop_last: bool) -> int:
    """The rule of who reads what, one step at a time: the oracle for the closed form."""
    step, rest, steps = world * batch, samples, 0
    if drop_last:
        return samples // step
    while rest > 0:
        if rest == step or rest >= step + world:
            rest -= step
        elif rest > step and rest - world >= world:
            rest = world
        elif rest > step:
            rest -= step
        else:
            rest = 0
        steps += 1
    return steps


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_length_is_the_number_of_steps_of_the_rule(samples: int, world: int, batch: int, drop_last: bool) -> None:
    made = options(batch_size=batch, world_size=world, rank=0, drop_last=drop_last)
    assert made.batches(samples) == steps_by_the_rule(samples, world, batch, drop_last)


def raised_errors() -> list[tuple[str, ast.Call]]:
    """Each place in the package where an error is made, with the file and line it is at."""
    found = []
    for path in sorted(Path(stoker.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = getattr(stoker.errors, node.func.id, None)
                if isinstance(kind, type) and issubclass(kind, stoker.StokerError):
                    found.append((f"{path.name}:{node.lineno} {node.func.id}", node))
    return found


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in raised_errors()])
def test_every_error_says_what_to_do(call: ast.Call) -> None:
    assert isinstance(call.func, ast.Name)
    if len(call.args) < 3:
        assert call.func.id == "ProtocolError", "only these have a remedy that fits all of them"
        assert stoker.ProtocolError("what").remedy
        return
    remedy = call.args[2]
    assert not isinstance(remedy, ast.Constant) or remedy.value, "an empty remedy"


def test_an_error_of_the_daemon_without_a_remedy_gets_one() -> None:
    error = stoker.errors.error_from_answer({"code": "internal", "what": "a fault"})
    assert "log of stokerd" in error.remedy


@pytest.mark.parametrize("argument", ["timeout", "reconnect_timeout"])
@pytest.mark.parametrize("value", [-1, "soon", float("nan"), []])
def test_a_time_that_is_none_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(InvalidError, match=f"{argument}=") as raised:
        options(**{argument: value})
    assert raised.value.remedy

"""What a trainer waited on is told by the daemon, its own transforms included."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import BLOCK, ROWS, Daemon, eventually, write_tokens

import stoker

THREADS = 2


def slow(batch: stoker.Batch) -> list[int]:
    """A transform that takes longer than anything the daemon does."""
    time.sleep(0.02)
    numbers: list[int] = batch.index.tolist()
    return numbers


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_waits_for_transforms_are_a_cause_that_the_daemon_tells(daemon: Daemon, tmp_path: Path, transport: str) -> None:
    daemon.add("tokens", write_tokens(tmp_path / "tokens", ROWS, BLOCK))
    ds = daemon.dataset(
        "tokens",
        batch_size=16,
        block_size=BLOCK,
        transport=transport,
        batch_transform=slow,
        transform_threads=THREADS,
        transform_ahead=3,
    )
    batches = [tuple(numbers) for numbers in ds]
    assert len(set(batches)) == len(batches)
    mine = ds.stats()
    assert mine.causes["transform"] > 0.02
    (told,) = daemon.get("/v1/stalls")["sessions"]
    sums, wall = told["stall"], told["wall_seconds"]
    named = [seconds for name, seconds in sums.items() if name != "total_seconds"]
    assert sum(named) <= sums["total_seconds"] + 1e-6 <= wall + 1e-6
    # Over the socket the daemon learns of the last waits with the next batch that is asked for.
    unknown = 0.0 if transport == "ring" else sum(slow.causes["transform"] for slow in mine.worst)
    assert mine.causes["transform"] - unknown - 1e-6 <= sums["transform_seconds"] <= mine.causes["transform"] + 1e-6
    assert told["worst"]
    worst = max(told["worst"], key=lambda batch: batch["causes"]["transform_seconds"])
    assert worst["causes"]["transform_seconds"] > 0.001
    assert worst["causes"]["transform_seconds"] <= worst["seconds"] + 1e-6
    position = worst["position"]
    assert position % 16 == 0
    ds.close()
    assert eventually(lambda: not daemon.sessions(), 10)
    assert daemon.get("/v1/stalls")["sessions"][0]["stall"]["transform_seconds"] == sums["transform_seconds"]
    assert 'stoker_stall_seconds_total{cause="transform"}' in daemon.get("/metrics")

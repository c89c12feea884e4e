"""Trainers that end badly; run as a program, so that they may fork and be killed.

``trainers.py killed N FORK`` starts N trainers one after the other, lets each
take a few batches, and kills it with SIGKILL; with FORK=1 each has a forked child
that lives on, with everything the trainer had, until all are through. Prints one
JSON line when the trainers are gone and the children still live, and ends when
its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys

sys.modules["torch"] = None  # type: ignore[assignment] # numpy is enough, and hundreds of torches are many

from stoker.dataset import Dataset  # noqa: E402


def train(fork: bool, ready: int, parent_gone: int) -> None:
    """Be a trainer: take batches, keep some, say so, and wait to be killed."""
    ds = Dataset("tokens", batch_size=16, block_size=16, shuffle=True)
    iterator = iter(ds)
    kept = [next(iterator) for _ in range(3)]
    if fork:
        child = os.fork()
        if child == 0:
            os.close(ready)
            os.read(parent_gone, 1)  # until the last holder of the other end is gone
            assert kept[0].rows == 16
            os._exit(0)
        os.write(ready, child.to_bytes(4, "little"))
    else:
        os.write(ready, (0).to_bytes(4, "little"))
    while True:
        signal.pause()


def killed(count: int, fork: bool) -> list[int]:
    """Run and kill trainers; returns the process ids of their children."""
    children = []
    parent_gone, hold = os.pipe()
    for _ in range(count):
        readable, ready = os.pipe()
        trainer = os.fork()
        if trainer == 0:
            os.close(hold)
            os.close(readable)
            train(fork, ready, parent_gone)
        os.close(ready)
        answer = os.read(readable, 4)
        os.close(readable)
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)
        if len(answer) != 4:
            raise SystemExit("a trainer ended by itself")
        if fork:
            children.append(int.from_bytes(answer, "little"))
    return children


if __name__ == "__main__":
    # Nothing is opened here: each trainer is a fork of a process that never had a connection.
    found = killed(int(sys.argv[2]), sys.argv[3] == "1")
    print(json.dumps({"children": found}), flush=True)
    sys.stdin.read()

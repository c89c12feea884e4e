"""Time from ``Dataset(...)`` to its first batch in a new process.

torch and stoker are imported once; then each measurement runs in a forked child
that has done nothing else yet, so that the imports are paid once and shared by none
of the times.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any

import stoker

with contextlib.suppress(ImportError):
    import torch  # noqa: F401  (a user has it imported)


def first_batch_ms(case: dict[str, Any], config: dict[str, Any]) -> float:
    """Open the dataset, take a batch, leave."""
    begin = time.perf_counter_ns()
    dataset = stoker.Dataset(
        case["dataset"],
        batch_size=config["batch_size"],
        shuffle=True,
        seed=config["seed"],
        **case["options"],
    )
    batches = iter(dataset)
    batch = next(batches)
    took = (time.perf_counter_ns() - begin) / 1e6
    del batch, batches
    dataset.close()
    return took


def in_a_child(case: dict[str, Any], config: dict[str, Any]) -> float:
    """Return what ``first_batch_ms`` says in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, repr(first_batch_ms(case, config)).encode())
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        content = answer.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not content:
        raise RuntimeError(f"the measuring process ended with status {status}")
    return float(content)


def main() -> None:
    """Measure each case as often as asked, in turn, and print the times by case."""
    config = json.loads(sys.argv[1])
    stoker.Dataset  # noqa: B018  (its module, and with it torch, is imported on first use)
    times: list[list[float]] = [[] for _ in config["cases"]]
    for _ in range(config["repeats"]):
        for case, taken in zip(config["cases"], times, strict=True):
            taken.append(in_a_child(case, config))
    print(json.dumps(times))


if __name__ == "__main__":
    main()

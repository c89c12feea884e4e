"""A consumer process: ``python main.py '{"loader": ..., "case": ..., ...}'``.

It says ``ready`` once its imports are done and then does what each line of
standard input asks, answering with one line of JSON on standard output:

``{"cmd": "run", "seconds": 1.0, "daemon_pid": 123}``
    open the source, wait for its first batch, warm up, take batches for so long,
    close. Between two runs the process sleeps in read(2) and costs nothing, so
    all rows' processes can be alive at once and none pays its start in a timed
    section.
``{"cmd": "verify", "batches": 4}``
    take batches and say how many rows do not hold the dataset's bytes.

End of input ends the process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from source import Source
from touch import touch
from usage import cpu_ns_of_all, pss_bytes
from verify import numbers_of

WARM_UP_SHARE = 0.15  # of the timed section's length


def source_for(config: dict[str, Any]) -> Source:
    """Import only what the row needs, so that memory is the row's own."""
    loader = config["loader"]
    if loader == "stoker":
        from stoker_rows import StokerRow

        return StokerRow(config)
    if loader == "dataloader":
        from dataloader_rows import DataLoaderRow

        return DataLoaderRow(config)
    if loader == "tarfile":
        from tarfile_rows import TarfileRow

        return TarfileRow(config)
    if loader == "webdataset":
        from webdataset_rows import WebDatasetRow

        return WebDatasetRow(config)
    if loader == "memmap":
        from memmap_rows import MemmapRow

        return MemmapRow(config)
    if loader == "resident":
        from touch import Resident

        return Resident(config)
    raise ValueError(f"unknown loader {loader!r}")


def timed(batches: Iterator[Any], seconds: float, limit: int) -> dict[str, Any]:
    """Take batches for so long (or so many), touching each; times in nanoseconds."""
    rows = taken = waited = checksum = 0
    now = begin = time.perf_counter_ns()
    deadline = begin + int(seconds * 1e9)
    while now < deadline and taken < limit:
        batch = next(batches)
        waited += time.perf_counter_ns() - now
        checksum ^= touch(batch)
        rows += len(batch[0])
        taken += 1
        now = time.perf_counter_ns()
    return {
        "rows": rows,
        "batches": taken,
        "wall_ns": now - begin,
        "wait_ns": waited,
        "checksum": checksum,
    }


def run(source: Source, request: dict[str, Any]) -> dict[str, Any]:
    """Measure one section."""
    seconds, limit = float(request["seconds"]), int(request.get("batches", 1 << 62))
    begin = time.perf_counter_ns()
    batches = source.open()
    touch(next(batches))
    first_batch_ns = time.perf_counter_ns() - begin
    timed(batches, seconds * WARM_UP_SHARE, limit)
    timed(batches, 10.0, source.warm_up_batches)
    pids = [os.getpid(), *source.worker_pids()]
    if request.get("daemon_pid"):
        pids.append(int(request["daemon_pid"]))
    cpu = cpu_ns_of_all(pids)
    result = timed(batches, seconds, limit)
    result["cpu_ns"] = cpu_ns_of_all(pids) - cpu
    result["first_batch_ns"] = first_batch_ns
    result["pss"] = {str(pid): pss_bytes(pid) for pid in pids}
    result["details"] = source.details()
    return result


def verify(source: Source, request: dict[str, Any]) -> dict[str, Any]:
    """Check the bytes of some batches."""
    batches = source.open()
    numbers: list[int] = []
    for _ in range(int(request["batches"])):
        numbers += numbers_of(next(batches), source.config)
    right = [n for n in numbers if n >= 0]
    return {"rows": len(numbers), "wrong": len(numbers) - len(right), "distinct": len(set(right))}


def answer(source: Source, line: str) -> dict[str, Any]:
    """Do what one line asks."""
    try:
        request = json.loads(line)
        action = {"run": run, "verify": verify}[request["cmd"]]
        try:
            return {"event": "result", **action(source, request)}
        finally:
            source.close()
    except Exception:
        return {"event": "error", "error": traceback.format_exc(limit=8)}


def versions() -> dict[str, str]:
    """Return what runs here; packages are looked up, not imported."""
    found = {name: getattr(sys.modules.get(name), "__version__", "") for name in ("torch", "webdataset")}
    return {"python": platform.python_version(), "numpy": np.__version__, **found}


def main() -> None:
    """Serve requests until the end of input."""
    faulthandler.enable()  # says where we were if we have to be aborted
    config = json.loads(sys.argv[1])
    # Nothing but answers may reach the pipe that we answer on.
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    # Views of read-only memory maps are what the peers are about.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    try:
        source = source_for(config)
    except Exception:
        print(json.dumps({"event": "error", "error": traceback.format_exc(limit=8)}), file=out)
        return
    print(json.dumps({"event": "ready", "pid": os.getpid(), **versions()}), file=out)
    for line in sys.stdin:
        print(json.dumps(answer(source, line)), file=out)
    # All is closed; torch's interpreter takes a second of CPU time to tear down.
    os._exit(0)


if __name__ == "__main__":
    main()

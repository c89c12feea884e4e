"""A program: read a file into GPU memory through a Python package, and print how fast.

reads.py torch.cuda.gds|kvikio FILE BYTES REPEATS
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def gds(path: str, into: torch.Tensor) -> Callable[[], object]:
    """torch's own, into registered memory; it opens the file with O_DIRECT."""
    module: Any = importlib.import_module("torch.cuda.gds")
    module.gds_register_buffer(into.untyped_storage())
    file = module.GdsFile(path, os.O_RDONLY)
    return lambda: file.load_storage(into.untyped_storage(), 0)


def kvikio(path: str, into: torch.Tensor) -> Callable[[], object]:
    """RAPIDS', which reads with several threads."""
    file = importlib.import_module("kvikio").CuFile(path, "r")
    return lambda: file.read(into)


def main() -> None:
    """Print the speeds of all turns but the first, in GB/s, and whether the bytes are right."""
    way, path, count, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    into = torch.zeros(count, dtype=torch.uint8, device="cuda")
    read = {"torch.cuda.gds": gds, "kvikio": kvikio}[way](path, into)
    torch.cuda.synchronize()
    speeds = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        read()
        torch.cuda.synchronize()
        if turn:
            speeds.append(count / (time.perf_counter() - began) / 1e9)
    right = bool(np.array_equal(into.cpu().numpy(), np.fromfile(path, np.uint8)))
    print(json.dumps({"speeds": speeds, "right": right}), flush=True)
    os._exit(0)  # the library may crash when a process ends in order


if __name__ == "__main__":
    main()

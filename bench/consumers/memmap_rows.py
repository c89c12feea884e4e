"""The peer for tokens: the loop that nanoGPT's train.py made common.

Random start positions, one slice of a memory map a row, torch.stack. The map is
made anew for each batch, as nanoGPT does (a map that lives on counts every page
it ever touched as the process's memory), or kept, which is quicker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from source import Source


class MemmapRow(Source):
    """nanoGPT's get_batch in the source dtype or, as there, in int64."""

    def open(self) -> Iterator[tuple[Any, ...]]:
        """Yield (x, y), each [batch_size, block_size], for ever."""
        torch.manual_seed(self.seed)
        path, size = self.config["path"], int(self.config["block_size"])
        keep = bool(self.config.get("keep_map"))
        wide = self.config["dtype"] == "int64"
        data = np.memmap(path, dtype=np.uint16, mode="r")
        while True:
            if not keep:
                data = np.memmap(path, dtype=np.uint16, mode="r")
            starts = torch.randint(len(data) - size, (self.batch_size,))
            if wide:
                x = torch.stack([torch.from_numpy(data[i : i + size].astype(np.int64)) for i in starts])
                y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + size].astype(np.int64)) for i in starts])
            else:
                x = torch.stack([torch.from_numpy(data[i : i + size]) for i in starts])
                y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + size]) for i in starts])
            yield x, y

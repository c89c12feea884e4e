"""The peer for tar shards that most people use: webdataset, reading sequentially.

As its documentation advises for training: shards are drawn at random without end
(``resampled=True``), samples pass through a shuffle buffer, and batches are made
inside the worker. Nothing is decoded. The collate function fills the batch directly,
in a worker in shared memory, which DataLoader passes on without another copy.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from dataloader_rows import READY_BATCHES_PER_WORKER
from source import Source
from tarfile_rows import batch_memory
from torch.utils.data import DataLoader

try:
    import webdataset
except ImportError as error:
    raise ImportError(
        "this row measures webdataset: pip install webdataset==1.0.2, or leave the tar cases out: --cases raw,tokens"
    ) from error

SHUFFLE_BUFFER = 1000  # samples, as in the documentation


def stacked(samples: Sequence[tuple[bytes]]) -> torch.Tensor:
    """Return the parts, all of one size, as uint8 of [samples, bytes] (a collate function)."""
    size = len(samples[0][0])
    out = batch_memory(len(samples), size)
    flat: Any = out.numpy().reshape(-1)
    rows = memoryview(flat)
    for row, (part,) in enumerate(samples):
        rows[row * size : (row + 1) * size] = part
    return out


class WebDatasetRow(Source):
    """``webdataset.WebDataset`` in a DataLoader with 0 or more workers."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.workers = int(config["workers"])
        directory = config["path"]
        self.urls = sorted(f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(".tar"))
        self.iterator: Any = None
        # Until a worker's buffer is full, it reads two samples for each that it yields.
        self.warm_up_batches += max(self.workers, 1) * -(-SHUFFLE_BUFFER // self.batch_size)

    def open(self) -> Iterator[tuple[Any, ...]]:
        """Make pipeline and loader, start the workers."""
        dataset = (
            webdataset.WebDataset(self.urls, resampled=True, shardshuffle=False, seed=self.seed)
            .shuffle(SHUFFLE_BUFFER)
            .to_tuple(self.config["part"])
            .batched(self.batch_size, collation_fn=stacked, partial=False)
        )
        options: dict[str, Any] = {"num_workers": self.workers, "batch_size": None}
        if self.workers:
            options |= {"prefetch_factor": READY_BATCHES_PER_WORKER, "persistent_workers": True}
        self.iterator = iter(DataLoader(dataset, **options))
        return ((batch,) for batch in self.iterator)

    def worker_pids(self) -> list[int]:
        """Return DataLoader's workers."""
        return [child.pid for child in multiprocessing.active_children() if child.pid]

    def close(self) -> None:
        """End the workers, as DataLoader does when its iterator is dropped."""
        if self.workers and self.iterator is not None:
            self.iterator._shutdown_workers()
        self.iterator = None

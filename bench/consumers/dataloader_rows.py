"""The peer: torch's DataLoader with 0 or more workers, default and best collate.

The peer is meant to be fast. It gets its list of files ready-made, an endless
sampler (so that it never drains its pipeline at the end of an epoch), and for
"best" the quickest way found of filling a batch inside a DataLoader.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from source import Source
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

READY_BATCHES_PER_WORKER = 2  # DataLoader's own default prefetch_factor


class EndlessShuffle(Sampler[Any]):
    """Epoch after epoch in random order: single indices, or whole batches of them."""

    def __init__(self, samples: int, seed: int, batch_size: int = 0) -> None:
        self.samples, self.seed, self.batch_size = samples, seed, batch_size

    def __iter__(self) -> Iterator[Any]:
        """Yield ints, or lists of batch_size ints."""
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while True:
            order = torch.randperm(self.samples, generator=generator).tolist()
            if self.batch_size == 0:
                yield from order
                continue
            for start in range(0, self.samples - self.batch_size + 1, self.batch_size):
                yield order[start : start + self.batch_size]


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return an empty tensor in shared memory, as torch's default collate makes one."""
    count = int(np.prod(shape))
    size = count * torch.empty((), dtype=dtype).element_size()
    new_shared: Any = torch.UntypedStorage._new_shared
    tensor: Any = torch.empty(0, dtype=dtype)
    shared: torch.Tensor = tensor.set_(new_shared(size), 0, (count,)).reshape(shape)
    return shared


class RawFiles(Dataset[torch.Tensor]):
    """One file, one uint8 tensor."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __getitem__(self, index: int) -> torch.Tensor:
        """Read a file."""
        return torch.from_numpy(np.fromfile(self.paths[index], dtype=np.uint8))

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)


class RawBatches(Dataset[torch.Tensor]):
    """A list of files, one uint8 tensor of [files, file bytes], with no copy in between.

    In a worker the tensor is new shared memory, which DataLoader passes on as a
    descriptor; what it costs is mostly page faults on that new memory. Writing
    it with pwrite or allocating it beforehand was tried and is no faster. Without
    workers it is plain memory, which malloc finds again after each batch.
    """

    def __init__(self, paths: list[str], file_bytes: int) -> None:
        self.paths, self.file_bytes = paths, file_bytes

    def __getitem__(self, indices: list[int]) -> torch.Tensor:
        """Read files straight into the rows of a batch."""
        out = self._memory(len(indices))
        flat: Any = out.numpy().reshape(-1)
        rows = memoryview(flat)
        for row, index in enumerate(indices):
            start = row * self.file_bytes
            fd = os.open(self.paths[index], os.O_RDONLY | os.O_CLOEXEC)
            try:
                got = os.readv(fd, [rows[start : start + self.file_bytes]])
            finally:
                os.close(fd)
            if got != self.file_bytes:
                raise OSError(f"{self.paths[index]}: read {got} of {self.file_bytes} bytes")
        return out

    def _memory(self, count: int) -> torch.Tensor:
        if get_worker_info() is not None:
            return shared_tensor((count, self.file_bytes), torch.uint8)
        return torch.empty((count, self.file_bytes), dtype=torch.uint8)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)


class RawPool(RawBatches):
    """As RawBatches, into shared memory that parent and workers mapped before the fork.

    This is no collate any more but a ring made by hand: only slot numbers pass
    through DataLoader, and a batch that the user keeps is overwritten without
    a word. It is shown as the upper bound of what can be had with workers.
    """

    def __init__(self, paths: list[str], file_bytes: int, workers: int, batch_size: int) -> None:
        super().__init__(paths, file_bytes)
        self.slots_per_worker = READY_BATCHES_PER_WORKER + 2
        count = self.slots_per_worker * max(workers, 1)
        self.pool = [shared_tensor((batch_size, file_bytes), torch.uint8) for _ in range(count)]
        self.turn = 0

    def __getitem__(self, indices: list[int]) -> Any:
        """Fill the next slot of this worker and return its number."""
        super().__getitem__(indices)
        return self._slot_and_advance()

    def _slot(self) -> int:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        return worker * self.slots_per_worker + self.turn % self.slots_per_worker

    def _slot_and_advance(self) -> int:
        slot = self._slot()
        self.turn += 1
        return slot

    def _memory(self, count: int) -> torch.Tensor:
        return self.pool[self._slot()][:count]


class TokenRows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Row i of a token file as (x, y), views of a memory map."""

    def __init__(self, path: str, block_size: int) -> None:
        self.block_size = block_size
        self.data = np.memmap(path, dtype=np.uint16, mode="r")

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and y, uint16 of [block_size]; nothing is copied yet."""
        start, size = index * self.block_size, self.block_size
        row = self.data[start : start + size + 1]
        return torch.from_numpy(row[:-1]), torch.from_numpy(row[1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return (len(self.data) - 1) // self.block_size


class TokenBatches(TokenRows):
    """A batch in one gather: rows [B, block_size + 1], of which x and y are views."""

    def __init__(self, path: str, block_size: int) -> None:
        super().__init__(path, block_size)
        self.rows = np.lib.stride_tricks.as_strided(
            self.data,
            shape=(len(self), block_size + 1),
            strides=(block_size * self.data.itemsize, self.data.itemsize),
            writeable=False,
        )

    def __getitem__(self, indices: Any) -> Any:
        """Gather the rows; in a worker straight into shared memory."""
        if get_worker_info() is None:
            return torch.from_numpy(self.rows[indices])
        out = shared_tensor((len(indices), self.block_size + 1), torch.uint16)
        # Not np.take(..., out=...): it copies the whole file first to make it contiguous.
        out.numpy()[:] = self.rows[indices]
        return out


def as_is(batch: Any) -> Any:
    """Return the batch: the dataset made it whole (a collate function)."""
    return batch


class DataLoaderRow(Source):
    """DataLoader over the raw files or the token file, as ``config`` says."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.workers = int(config["workers"])
        self.collate = str(config["collate"])
        self.is_raw = str(config["case"]).startswith("raw")
        # Otherwise the dataset makes whole batches.
        self.sample_by_sample = self.collate in ("default", "extractfile")
        self.iterator: Any = None
        if self.is_raw:
            with open(config["files"], encoding="utf-8") as listing:
                root = config["path"]
                self.paths = [f"{root}/{line.rstrip()}" for line in listing]

    def open(self) -> Iterator[tuple[Any, ...]]:
        """Make dataset and loader, start the workers."""
        dataset = self._dataset()
        options: dict[str, Any] = {"num_workers": self.workers}
        if self.workers:
            options |= {"prefetch_factor": READY_BATCHES_PER_WORKER, "persistent_workers": True}
        if self.sample_by_sample:
            options |= {
                "batch_size": self.batch_size,
                "sampler": EndlessShuffle(len(dataset), self.seed),
            }
        else:
            options |= {
                "batch_size": None,
                "sampler": EndlessShuffle(len(dataset), self.seed, self.batch_size),
                "collate_fn": as_is,
            }
        self.iterator = iter(DataLoader(dataset, **options))
        return self._batches(dataset)

    def _dataset(self) -> Any:
        if not self.is_raw:
            kind = TokenRows if self.collate == "default" else TokenBatches
            return kind(self.config["path"], int(self.config["block_size"]))
        if self.collate == "default":
            return RawFiles(self.paths)
        file_bytes = int(self.config["file_bytes"])
        if self.collate == "pool":
            return RawPool(self.paths, file_bytes, self.workers, self.batch_size)
        return RawBatches(self.paths, file_bytes)

    def _batches(self, dataset: Any) -> Iterator[tuple[Any, ...]]:
        for batch in self.iterator:
            if self.collate == "pool":
                yield (dataset.pool[batch],)
            elif self.is_raw:
                yield (batch,)
            elif self.collate == "default":
                yield tuple(batch)
            else:
                yield batch[:, :-1], batch[:, 1:]

    def worker_pids(self) -> list[int]:
        """Return DataLoader's workers."""
        return [child.pid for child in multiprocessing.active_children() if child.pid]

    def close(self) -> None:
        """End the workers, as DataLoader does when its iterator is dropped."""
        if self.workers and self.iterator is not None:
            self.iterator._shutdown_workers()
        self.iterator = None

"""The peer for tar shards: random access through a list that Python's tarfile made.

The peer is meant to be fast. It gets its list (shard, offset of the data, size) of all
members ready-made, opens each shard once a worker, and reads a member with one
system call, for "best" straight into the batch. "mapped" copies out of maps of the
shards instead: quicker once their pages are mapped, and they count as the workers'
memory. "extractfile" asks tarfile itself for each member, as is often written; it gets
the list too, for without it tarfile reads all headers of a shard first.
"""

from __future__ import annotations

import mmap
import os
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from dataloader_rows import DataLoaderRow, shared_tensor
from torch.utils.data import Dataset, get_worker_info


class Shards:
    """The shards of a dataset and where their members lie.

    The list is a text file of three numbers a line: shard, offset, size; shards are
    numbered in the order of their names.
    """

    def __init__(self, directory: str, members: str) -> None:
        self.paths = sorted(f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(".tar"))
        table = np.fromfile(members, dtype=np.int64, sep=" ").reshape(-1, 3)
        # Lists: one number out of an array costs more than reading 4 KB.
        self.shards, self.offsets, self.sizes = (table[:, column].tolist() for column in range(3))


class Members(Dataset[torch.Tensor]):
    """Member i as one uint8 tensor."""

    def __init__(self, shards: Shards) -> None:
        self.list = shards
        self.descriptors = [-1] * len(shards.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Read a member."""
        size = self.list.sizes[index]
        content = bytearray(size)
        self._read(index, content)
        return torch.frombuffer(content, dtype=torch.uint8)

    def _read(self, index: int, into: Any) -> None:
        shard = self.list.shards[index]
        fd = self.descriptors[shard]
        if fd < 0:
            fd = self.descriptors[shard] = os.open(self.list.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        got = os.preadv(fd, [into], self.list.offsets[index])
        if got != self.list.sizes[index]:
            raise OSError(f"{self.list.paths[shard]}: read {got} of {self.list.sizes[index]} bytes")

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.list.sizes)

    def close(self) -> None:
        """Close what this process has opened."""
        for shard, fd in enumerate(self.descriptors):
            if fd >= 0:
                os.close(fd)
                self.descriptors[shard] = -1


class MemberBatches(Members):
    """A list of members, one uint8 tensor of [members, member bytes], with no copy in between.

    In a worker the tensor is new shared memory, as in ``dataloader_rows.RawBatches``.
    """

    def __getitem__(self, indices: Any) -> torch.Tensor:
        """Read members straight into the rows of a batch; all are of one size."""
        size = self.list.sizes[indices[0]]
        out = batch_memory(len(indices), size)
        flat: Any = out.numpy().reshape(-1)
        rows = memoryview(flat)
        for row, index in enumerate(indices):
            self._read(index, rows[row * size : (row + 1) * size])
        return out


class MappedBatches(MemberBatches):
    """As MemberBatches, copied from memory maps of the shards, made once a worker."""

    def __init__(self, shards: Shards) -> None:
        super().__init__(shards)
        self.maps: list[memoryview | None] = [None] * len(shards.paths)

    def _read(self, index: int, into: Any) -> None:
        shard, offset = self.list.shards[index], self.list.offsets[index]
        view = self.maps[shard]
        if view is None:
            with open(self.list.paths[shard], "rb") as archive:
                view = self.maps[shard] = memoryview(mmap.mmap(archive.fileno(), 0, prot=mmap.PROT_READ))
        into[:] = view[offset : offset + self.list.sizes[index]]

    def close(self) -> None:
        """Drop this process's maps."""
        self.maps = [None] * len(self.maps)


class ExtractedMembers(Members):
    """Member i through ``TarFile.extractfile``; each worker keeps the shards open."""

    def __init__(self, shards: Shards) -> None:
        super().__init__(shards)
        self.archives: dict[int, tarfile.TarFile] = {}

    def __getitem__(self, index: int) -> torch.Tensor:
        """Read a member."""
        shard = self.list.shards[index]
        archive = self.archives.get(shard)
        if archive is None:
            archive = self.archives[shard] = tarfile.open(self.list.paths[shard], "r:")  # noqa: SIM115  (kept open)
        member = tarfile.TarInfo()
        member.offset_data, member.size = self.list.offsets[index], self.list.sizes[index]
        content = archive.extractfile(member)
        assert content is not None
        return torch.from_numpy(np.frombuffer(content.read(), dtype=np.uint8))

    def close(self) -> None:
        """Close what this process has opened."""
        for archive in self.archives.values():
            archive.close()
        self.archives.clear()


def batch_memory(count: int, size: int) -> torch.Tensor:
    """Return [count, size] uint8 of shared memory in a worker, else of plain memory."""
    if get_worker_info() is not None:
        return shared_tensor((count, size), torch.uint8)
    return torch.empty((count, size), dtype=torch.uint8)


KINDS: dict[str, type[Members]] = {
    "default": Members,
    "best": MemberBatches,
    "mapped": MappedBatches,
    "extractfile": ExtractedMembers,
}


class TarfileRow(DataLoaderRow):
    """DataLoader over tar shards with a ready list of their members."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.shards = Shards(config["path"], config["members"])
        self.members: Any = None

    def _dataset(self) -> Any:
        self.members = KINDS[self.collate](self.shards)
        return self.members

    def _batches(self, dataset: Any) -> Iterator[tuple[Any, ...]]:
        for batch in self.iterator:
            yield (batch,)

    def close(self) -> None:
        """End the workers and close the shards."""
        super().close()
        if self.members is not None:
            self.members.close()

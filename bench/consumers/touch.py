"""The consumer: touches every cache line of every batch, the same way in all rows.

One load a cache line of 64 bytes, xor-ed together: no cast, no temporary array,
cheap enough to leave the loader as the bottleneck, and impossible to skip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from source import Source

CACHE_LINE_BYTES = 64
# More than the last-level cache of most machines holds for one core, so that a
# resident batch is as cold as one that has just been handed over.
RESIDENT_BYTES = 64 << 20


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a numpy view of a torch tensor or of an array; copies nothing."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()


def touch(batch: Sequence[Any]) -> int:
    """Load one element of each cache line of every tensor of the batch."""
    result = 0
    for tensor in batch:
        array = array_of(tensor)
        if array.dtype == np.uint8 and array.flags.c_contiguous and array.size % 8 == 0:
            array = array.reshape(-1).view(np.uint64)
        step = CACHE_LINE_BYTES // array.itemsize
        result ^= int(np.bitwise_xor.reduce(array[..., ::step], axis=None))
        # A row that is not aligned to cache lines ends in one more line.
        result ^= int(np.bitwise_xor.reduce(array[..., -1], axis=None))
    return result


class Resident(Source):
    """The consumer alone: batches that lie in memory already, taken in turn.

    What this row costs is what the consumer adds to every other row; it is taken
    out of their CPU seconds.
    """

    def open(self) -> Iterator[tuple[np.ndarray[Any, Any], ...]]:
        """Yield resident batches for ever."""
        shapes = [(self.batch_size, *shape) for shape in self.config["shapes"]]
        dtype = np.dtype(self.config["dtype"])
        batch_bytes = sum(int(np.prod(shape)) for shape in shapes) * dtype.itemsize
        count = max(2, RESIDENT_BYTES // batch_bytes)
        batches = [tuple(np.ones(shape, dtype) for shape in shapes) for _ in range(count)]
        while True:
            yield from batches

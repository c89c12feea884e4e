"""What every row is made of: a source of batches that can be opened and closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Source:
    """A loader under test.

    ``open`` does all that a user's script does between having its imports and
    calling ``next`` for the first time, and is timed as such. ``close`` ends
    worker processes and sessions. One source is opened and closed many times.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.batch_size = int(config["batch_size"])
        self.seed = int(config.get("seed", 0))
        # Batches before the timed section: more than any loader here keeps ready.
        self.warm_up_batches = 8

    def open(self) -> Iterator[tuple[Any, ...]]:
        """Return an endless iterator of batches, each a tuple of [batch_size, ...] tensors."""
        raise NotImplementedError

    def worker_pids(self) -> list[int]:
        """Return the processes that work for this source, besides our own and the daemon."""
        return []

    def details(self) -> dict[str, Any]:
        """Return what else is worth knowing of the section that just ran."""
        return {}

    def close(self) -> None:
        """End what ``open`` started; the source may be opened again."""

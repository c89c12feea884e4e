"""Stoker as a user would write it: a Dataset, a for loop, tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from source import Source

import stoker


class StokerRow(Source):
    """A session of a running stokerd; all tensors lie in its ring."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        # The column of whole files, "" for tokens.
        self.column = str(config.get("column", ""))
        self.dataset: Any = None
        self.batches: Any = None

    def open(self) -> Iterator[tuple[Any, ...]]:
        """Open the dataset; the session begins with the first batch."""
        options: dict[str, Any] = {}
        if not self.column:
            options["block_size"] = int(self.config["block_size"])
        if self.config.get("select"):
            options["select"] = self.config["select"]
        if self.config["dtype"] == "int64":
            options["dtype"] = torch.int64
        if self.config.get("transport"):
            options["transport"] = self.config["transport"]
        if self.config.get("order"):
            options["order"] = self.config["order"]
        self.dataset = stoker.Dataset(
            self.config["dataset"],
            batch_size=self.batch_size,
            shuffle=True,
            seed=self.seed,
            drop_last=True,
            **options,
        )
        self.batches = self._epochs()
        return self.batches  # type: ignore[no-any-return]

    def _epochs(self) -> Iterator[tuple[Any, ...]]:
        while True:
            for batch in self.dataset:
                if self.column:
                    yield (batch[self.column].dense(),)
                else:
                    yield batch["x"], batch["y"]

    def details(self) -> dict[str, Any]:
        """Return what the session counted of itself."""
        stats = self.dataset.stats()
        return {"stats": stats if isinstance(stats, dict) else vars(stats)}

    def close(self) -> None:
        """Close the session, so that the next row has the daemon to itself."""
        if self.batches is not None:
            self.batches.close()
        if self.dataset is not None:
            self.dataset.close()
        self.batches = self.dataset = None

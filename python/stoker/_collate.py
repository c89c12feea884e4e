"""What torch's DataLoader may not do with batches: collate them.

``DataLoader(ds)`` has ``batch_size=1`` and would make a new batch out of one whole
batch: a copy, with a dimension nobody wants. torch has a table of collate
functions by type, which it documents as the way to teach it a type; ours say what
to do instead. The table lies in a private module, so its absence is no error.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

from .batch import Batch, Ragged
from .errors import InvalidError


def refuse_collating() -> None:
    """Enter :class:`Batch` and :class:`Ragged` into torch's table, if there is one."""
    try:
        table = importlib.import_module("torch.utils.data._utils.collate").default_collate_fn_map
    except (ImportError, AttributeError):  # torch before 2.0
        return
    table[Batch] = table[Ragged] = _refuse


def _refuse(batch: Any, *, collate_fn_map: Any = None) -> NoReturn:
    """Stand where a collate function would: called with the elements that torch wants to make a batch of."""
    raise InvalidError(
        f"DataLoader wants to collate {len(batch)} of stoker's {type(batch[0]).__name__} objects, but a stoker.Dataset "
        "yields whole batches already",
        "DataLoader",
        "use DataLoader(ds, batch_size=None); how many samples a batch has is batch_size= of the Dataset",
    )

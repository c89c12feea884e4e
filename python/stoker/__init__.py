"""Stoker's Python package: batches from ``stokerd`` over shared memory, with no copy.

>>> import stoker
>>> stoker.add_dataset("photos", "/data/photos", include=["**/*.{jpg,png}"])
>>> for batch in stoker.Dataset("photos", batch_size=64, shuffle=True): ...

numpy is enough; torch is used where it can be imported, and imported only when
``Dataset`` is first looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .batch import Batch, Ragged
from .catalog import DatasetInfo, Progress, add_dataset, dataset_info, list_datasets
from .errors import (
    BatchTimeoutError,
    ChangedError,
    ConflictError,
    CorruptError,
    DaemonGoneError,
    DaemonNotRunningError,
    ForkedError,
    InternalError,
    InvalidError,
    LimitError,
    NoSpaceError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ProtocolError,
    StaleIteratorError,
    StokerError,
    StokerWarning,
    UnavailableError,
    VersionError,
    WorkerError,
)
from .stats import SlowBatch, Stats, Waited

if TYPE_CHECKING:
    from .dataset import BatchIterator, Dataset, Sample

__all__ = [
    "Batch",
    "BatchIterator",
    "BatchTimeoutError",
    "ChangedError",
    "ConflictError",
    "CorruptError",
    "DaemonGoneError",
    "DaemonNotRunningError",
    "Dataset",
    "DatasetInfo",
    "ForkedError",
    "InternalError",
    "InvalidError",
    "LimitError",
    "NoSpaceError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Progress",
    "ProtocolError",
    "Ragged",
    "Sample",
    "SlowBatch",
    "StaleIteratorError",
    "Stats",
    "StokerError",
    "StokerWarning",
    "UnavailableError",
    "VersionError",
    "Waited",
    "WorkerError",
    "__version__",
    "add_dataset",
    "dataset_info",
    "list_datasets",
]

_LAZY = ("BatchIterator", "Dataset", "Sample")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from . import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

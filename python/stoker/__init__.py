"""Stoker's Python package: batches from ``stokerd`` over shared memory, with no copy.

>>> import stoker
>>> stoker.add_dataset("photos", "/data/photos", include=["**/*.{jpg,png}"])
>>> for batch in stoker.Dataset("photos", batch_size=64, shuffle=True): ...

numpy is enough; torch is used where it can be imported, and imported only when
``Dataset`` is first looked at.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._prefetching import prefetching
from ._version import __version__
from .batch import Batch, Ragged
from .catalog import DatasetInfo, PartInfo, Progress, add_dataset, dataset_info, list_datasets, rebuild_dataset
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
    TransformError,
    UnavailableError,
    VersionError,
    WorkerError,
)
from .hints import Hint, HintInfo, hint
from .lint import Finding, LintSummary, lint_dataset
from .sample import Sample
from .stats import FailedSample, SlowBatch, Stats, Waited
from .transforms import SKIP

if TYPE_CHECKING:
    from .dataset import Dataset
    from .iterators import BatchIterator

__all__ = [
    "SKIP",
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
    "FailedSample",
    "Finding",
    "ForkedError",
    "Hint",
    "HintInfo",
    "InternalError",
    "InvalidError",
    "LimitError",
    "LintSummary",
    "NoSpaceError",
    "NotFoundError",
    "OutOfRangeError",
    "PartInfo",
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
    "TransformError",
    "UnavailableError",
    "VersionError",
    "Waited",
    "WorkerError",
    "__version__",
    "add_dataset",
    "dataset_info",
    "hint",
    "lint_dataset",
    "list_datasets",
    "prefetching",
    "rebuild_dataset",
]

_LAZY = {"BatchIterator": "iterators", "Dataset": "dataset"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

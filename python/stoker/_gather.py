"""The default ``collate=``: what transforms returned for the samples of a batch, as one batch.

Dictionaries become one dictionary of columns, tuples one tuple, lists one list.
A column of arrays or numbers becomes one array: with torch as DataLoader's
``default_collate`` does it, else with numpy. A column of text or bytes stays a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._arrays import Arrays
from ._shown import shown_names

_KEPT: Final = (str, bytes, bytearray, memoryview, type(None))


class Gather:
    """See the module.

    Parameters
    ----------
    arrays : Arrays
        torch or numpy.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __call__(self, samples: list[Any]) -> Any:
        """One batch of samples that are alike.

        Raises
        ------
        ValueError, TypeError, RuntimeError, KeyError
            They are not: of different keys, lengths or shapes, or of a type that cannot be stacked.
        """
        if not samples:
            return {}
        first = samples[0]
        if isinstance(first, Mapping):
            odd = next((sample for sample in samples if sample.keys() != first.keys()), first)
            if odd is not first:
                raise ValueError(f"samples have different columns: {shown_names(first)}, and {shown_names(odd)}")
            return {key: self([sample[key] for sample in samples]) for key in first}
        if isinstance(first, (tuple, list)):
            if any(len(sample) != len(first) for sample in samples):
                raise ValueError("samples are sequences of different lengths")
            columns = [self(list(column)) for column in zip(*samples, strict=True)]
            if isinstance(first, list):
                return columns
            return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
        if all(isinstance(sample, _KEPT) for sample in samples):
            return samples
        return self._arrays.stack(samples)

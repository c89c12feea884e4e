"""``stoker.Dataset``: what a training script uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ._collate import refuse_collating
from .batch import Batch, Column, check_conversion, read_columns
from .catalog import Control, Found
from .errors import InvalidError, ProtocolError, WorkerError
from .options import make_options
from .stats import Stats
from .stream import Stream

try:
    from torch.utils.data import IterableDataset, get_worker_info
except (ImportError, OSError):  # OSError: an installation with missing libraries
    HAVE_TORCH = False
else:
    HAVE_TORCH = True
    refuse_collating()

if TYPE_CHECKING or HAVE_TORCH:

    class _Base(IterableDataset[Any]):
        """What DataLoader recognises."""

else:

    class _Base:
        """Nothing: numpy alone is enough."""


class Sample(dict[str, Any]):
    """One sample: ``x`` and ``y``, or ``data`` (bytes) and ``label`` (int), in memory of its own.

    Attributes
    ----------
    key : str
        Where it comes from, for example the path of its file in the dataset.
    index : int
        Its number in the dataset.
    """

    key: str = ""
    index: int = -1


class Dataset(_Base):
    """A dataset of the node's daemon, as whole batches.

    Use it as ``DataLoader(ds, batch_size=None, num_workers=0)``, with torchdata's
    StatefulDataLoader, or simply ``for batch in ds``. Each ``iter()`` is one epoch.
    Nothing is opened before the first ``iter()``, ``len()`` or ``ds[i]``.

    Parameters
    ----------
    name : str
        A dataset's name; see :func:`stoker.add_dataset`.
    batch_size : int
        Samples a batch and rank.
    shuffle : bool
        Short for ``order="global"``.
    order : "global", "windowed", "sequential", optional
        A permutation of the whole dataset; one that moves a sample by about
        ``window`` places; the dataset's own order. All of them are functions of
        (seed, epoch, position).
    window : int
        In samples, for "windowed".
    seed : int
        Of the order. Equal on all ranks.
    drop_last : bool
        Leave out the samples that do not fill a batch on every rank. Otherwise
        the tail is shared evenly, and all ranks have equally many batches.
    block_size : int
        Token datasets only, and needed there: the length of x and y.
    dtype : optional
        Token datasets only: element type of x and y, for example ``torch.int64``.
        The files' own by default; a conversion copies each batch.
    rank, world_size : int, optional
        Else RANK and WORLD_SIZE, else 0 of 1.
    job_id : str, optional
        Sessions of one job share it; else torchelastic's or SLURM's, else the process group's.
    return_tensors : "torch", "numpy", optional
        None: torch if it can be imported.
    reconnect : bool
        When the daemon ends, wait for a new one and continue where this was. Also
        wait for one if none runs when it is first needed; otherwise that is a
        DaemonNotRunningError at once.
    reconnect_timeout : float
        Seconds to wait for it, each time.
    timeout : float, optional
        Seconds that a batch or an answer may take; None: no limit.
    transport : "auto", "ring", "socket"
        Shared memory, or copies over the socket where shared memory is not possible.
    runtime_dir : path, optional
        Of the daemon; else STOKER_RUNTIME_DIR, else the usual places.
    slots : int
        Batches in the ring; 0 for the daemon's default.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        shuffle: bool = False,
        order: str | None = None,
        window: int = 65536,
        seed: int = 0,
        drop_last: bool = False,
        block_size: int | None = None,
        dtype: Any = None,
        rank: int | None = None,
        world_size: int | None = None,
        job_id: str | None = None,
        return_tensors: str | None = None,
        reconnect: bool = False,
        reconnect_timeout: float = 60.0,
        timeout: float | None = 300.0,
        transport: str = "auto",
        runtime_dir: str | os.PathLike[str] | None = None,
        slots: int = 0,
    ) -> None:
        self._options = make_options(
            name,
            batch_size=batch_size,
            shuffle=shuffle,
            order=order,
            window=window,
            seed=seed,
            drop_last=drop_last,
            block_size=block_size,
            dtype=dtype,
            rank=rank,
            world_size=world_size,
            job_id=job_id,
            return_tensors=return_tensors,
            reconnect=reconnect,
            reconnect_timeout=reconnect_timeout,
            timeout=timeout,
            transport=transport,
            runtime_dir=runtime_dir,
            slots=slots,
        )
        if return_tensors == "torch" and not HAVE_TORCH:
            raise InvalidError(
                "return_tensors='torch', but torch cannot be imported here",
                "return_tensors",
                "install torch, or pass return_tensors='numpy'",
            )
        self._use_torch = HAVE_TORCH and return_tensors != "numpy"
        self._connectionless()

    def _connectionless(self) -> None:
        self._stream = Stream(self._options, self._use_torch)
        self._control = Control(self._stream.connect)

    # Iterating.

    def __iter__(self) -> BatchIterator:
        self._refuse_worker()
        return BatchIterator(self._stream)

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch; the same for all ranks."""
        return self._options.batches(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample by its number in the dataset, in memory of its own; also in workers and forked children."""
        found = self._control.sample(self._options.name, int(index), self._options.block_size)
        sample = Sample(self._columns(found))
        sample.key, sample.index = found.key, int(index)
        return sample

    # State.

    def state_dict(self) -> dict[str, Any]:
        """Where this is, in about 200 bytes: what was yielded, not what was prepared."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state: the next ``iter()`` gives the rest of its epoch.

        Another batch_size or world_size is fine: together the ranks get each
        remaining sample exactly once.

        Raises
        ------
        InvalidError
            The state is of another dataset, order or seed.
        """
        self._stream.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch at the next ``iter()``; keeps a position within it that was loaded."""
        self._stream.set_epoch(epoch)

    # Information.

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self._options.name

    @property
    def samples(self) -> int:
        """Samples in the dataset: rows of ``block_size + 1`` tokens, or files."""
        if self._stream.samples is None:
            self._describe()
        assert self._stream.samples is not None
        return self._stream.samples

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, in their order; empty if there are none."""
        if self._stream.samples is None:
            self._describe()
        return self._stream.classes

    def stats(self, *, daemon: bool = False) -> Stats:
        """What was delivered and waited for so far.

        ``daemon=True`` asks the daemon for its view as well; call that from the thread that iterates.
        """
        return self._stream.stats(daemon)

    def close(self) -> None:
        """End the session and close the connections. Batches stay valid; iterating opens a new session."""
        self._stream.close()
        self._control.close()

    def __repr__(self) -> str:
        options = self._options
        return f"stoker.Dataset({options.name!r}, batch_size={options.batch_size}, order={options.order!r})"

    # Pickling: settings and position travel, connections do not.

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options, "use_torch": self._use_torch, "position": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["options"]
        self._use_torch = state["use_torch"] and HAVE_TORCH
        self._connectionless()
        self._stream.load_state_dict(state["position"])

    def _refuse_worker(self) -> None:
        worker = get_worker_info() if HAVE_TORCH else None
        if worker is not None:
            raise WorkerError(
                f"a stoker.Dataset cannot be iterated inside DataLoader worker {worker.id} of {worker.num_workers}: "
                "the daemon already reads ahead in parallel, and every worker would read the same samples again",
                self._options.name,
                "use DataLoader(ds, batch_size=None, num_workers=0); ds[i] works inside workers",
            )

    def _describe(self) -> None:
        if HAVE_TORCH and get_worker_info() is not None:
            self._stream.describe_only()  # a worker never iterates, so it keeps no session
        else:
            self._stream.describe()

    def _columns(self, found: Found) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        columns = read_columns(found.columns)
        check_conversion(columns, self._options.dtype, self._options.name)
        for column, described in zip(columns, found.columns, strict=True):
            array = _sample_array(column, described, found)
            if column.name == "tokens":
                tokens = self._tokens(column, array)
                sample["x"], sample["y"] = tokens[:-1], tokens[1:]
            elif column.shape:
                sample[column.name] = array.tobytes() if column.dtype == "uint8" else array
            else:
                sample[column.name] = array.item()
        return sample

    def _tokens(self, column: Column, array: np.ndarray[Any, Any]) -> Any:
        arrays = self._stream.arrays()
        if self._options.dtype is not None:
            target = arrays.target(self._options.dtype)
            return arrays.convert(array, column.dtype, array.shape, 0, target)
        arrays.check(column.dtype)
        return arrays.over(array, column.dtype, array.shape, 0)


def _sample_array(column: Column, described: dict[str, Any], found: Found) -> np.ndarray[Any, Any]:
    offset, kind = described.get("offset"), np.dtype(column.dtype)
    if not isinstance(offset, int) or offset < 0:
        offset = len(found.data) + 1
    shape = column.shape
    if column.ragged:
        shape = (int(described.get("bytes") or 0) // kind.itemsize,)
    if offset + prod(shape) * kind.itemsize > len(found.data):
        raise ProtocolError(f"column {column.name} of a sample lies outside of its {len(found.data)} bytes", found.key)
    array: np.ndarray[Any, Any] = np.ndarray(shape, kind, found.data, offset)
    return array


class BatchIterator(Iterator[Batch]):
    """One epoch of a Dataset. Made by ``iter(dataset)``, which makes an older one stale."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._token = stream.begin()

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Batch:
        return self._stream.next_batch(self._token)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`Dataset.state_dict`."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As :meth:`Dataset.load_state_dict`; this iterator goes on from there."""
        self._stream.load_state_dict(state)
        self._token = self._stream.begin()

"""``stoker.Dataset``: what a training script uses."""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._collate import refuse_collating
from ._decode import Parts
from ._retry import connect
from .batch import Batch, Column, check_conversion, read_columns
from .catalog import Control, Found, refuse_lacking
from .errors import CorruptError, InvalidError, WorkerError
from .iterators import BatchIterator, PartsIterator, PooledIterator
from .options import make_options
from .pool import Failures
from .sample import AskNames, Sample, describe, found_columns, found_values, make_sample
from .stats import Stats
from .stream import Stream
from .transforms import OnError, make_plan

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
    order : "global", "windowed", "sequential", "torch", "numpy", optional
        A permutation of the whole dataset; one that moves a sample by about
        ``window`` places; the dataset's own order; bit for bit the batches of a
        DataLoader with ``DistributedSampler(seed=seed, drop_last=drop_last)`` after
        ``set_epoch``, which pads; the order of numpy's legacy ``shuffle`` after
        ``np.random.seed(seed + epoch)``. All of them are functions of (seed, epoch,
        position); the last two take the daemon 8 bytes a sample.
    window : int, optional
        In samples, for "windowed" only; None: 65536.
    seed : int
        Of the order. Equal on all ranks.
    seeding : str, optional
        How the epochs of "torch" and "numpy" get their random numbers; None: each is seeded
        with ``seed + epoch``, as above. ``"once"``: one generator seeded with ``seed`` draws all
        epochs, as ``RandomSampler(generator=g)`` or one ``permutation`` an epoch. Torch only:
        ``"loader"``, as ``DataLoader(shuffle=True)`` after ``torch.manual_seed(seed)``;
        ``"loader_persistent"``, the same with ``persistent_workers=True``;
        ``"loader_generator"``, as ``DataLoader(shuffle=True, generator=g)``. Numpy only:
        ``"in_place"``, each epoch shuffles the list that the one before left.
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
    select : list of str or dict, optional
        Tar datasets: the parts that are columns, ``["jpg;png", "cls"]`` (the first of
        ``jpg`` and ``png`` that a sample has is the column ``jpg``) or
        ``{"image": "jpg;png"}``. None: all that any sample has.
    missing : "error", "empty", optional
        Tar datasets: whether a sample may lack a column. None: not if there is a
        selection. What is lacking is None or empty bytes; see :meth:`Batch.present`.
    decode : bool
        Tar datasets: give parts by their types: ``txt`` and its like as str, ``cls`` and
        its like as numbers, ``json``, ``npy``, ``npz``; all others as bytes. False: all bytes.
    allow_pickle : bool
        Read ``pkl``, ``pickle``, ``pyd``, ``pth`` and arrays of objects. That runs
        whatever code they name, so only if you trust whoever wrote the dataset.
    transform : callable, optional
        Called with each :class:`stoker.Sample` in a pool of threads beside the training loop;
        what it returns goes to ``collate``, in order. :data:`stoker.SKIP` leaves the sample out.
    batch_transform : callable, optional
        Instead: called with each :class:`stoker.Batch` there; what it returns is yielded.
    collate : callable, optional
        Called there with the list of a batch's results; what it returns is yielded. None: columns
        of stacked tensors (``default_collate``) or arrays, and lists of text and bytes.
    transform_threads : int, optional
        Of the pool. None: this rank's share of the CPUs, at most 16.
    transform_ahead : int, optional
        Batches that may be in the pool. None: 4, and one more than threads for
        ``batch_transform``. Those that the ring has no slots for are copied.
    on_error : "raise", "skip" or callable
        What to do when a transform fails: raise a TransformError where the batch would have come
        (``next()`` goes on after it); leave the sample out (a batch without samples is not
        yielded; ranks may then differ); or call ``on_error(error, key, index)`` for a
        replacement or :data:`stoker.SKIP`. :meth:`stats` counts and lists failures.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        shuffle: bool = False,
        order: str | None = None,
        window: int | None = None,
        seed: int = 0,
        seeding: str | None = None,
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
        select: Sequence[str] | Mapping[str, str] | None = None,
        missing: str | None = None,
        decode: bool = True,
        allow_pickle: bool = False,
        transform: Callable[[Sample], Any] | None = None,
        batch_transform: Callable[[Batch], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        transform_threads: int | None = None,
        transform_ahead: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self._options = make_options(
            name,
            batch_size=batch_size,
            shuffle=shuffle,
            order=order,
            window=window,
            seed=seed,
            seeding=seeding,
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
            select=select,
            missing=missing,
            decode=decode,
            allow_pickle=allow_pickle,
        )
        self._plan = make_plan(transform, batch_transform, collate, transform_threads, transform_ahead, on_error)
        self._use_torch = _want_torch(return_tensors)
        self._connectionless()

    def _connectionless(self) -> None:
        self._stream = Stream(self._options, self._use_torch)
        self._control = Control(partial(connect, self._options))
        self._failures = Failures()
        self._newest: Callable[[], BatchIterator | None] = _nothing  # a weak reference on the newest
        self._complete = ""  # the index in which no sample lacks a number

    # Iterating.

    def __iter__(self) -> BatchIterator:
        self._refuse_worker()
        self._drop_ahead()
        stream = self._stream
        token = stream.begin()
        iterator: BatchIterator
        if self._plan is not None:
            iterator = PooledIterator(stream, token, self._plan, self._failures, self._ask_names())
        elif stream.parts is not None:
            self._refuse_lacking_numbers(stream.parts)
            iterator = PartsIterator(stream, token, self._ask_names())
        else:
            iterator = BatchIterator(stream, token)
        self._newest = weakref.ref(iterator)
        return iterator

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch; the same for all ranks."""
        return self._options.batches(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample by its number in the dataset, in memory of its own; also in workers and forked children.

        Parts are decoded as in batches; ``transform=`` is not applied.
        """
        number = int(index)
        found = self._control.sample(self._options.name, number, {**self._block(), **self._options.selection()})
        try:
            return make_sample(self._values(found), number, found.name)
        except (CorruptError, InvalidError) as error:
            if error.where:
                raise
            raise type(error)(error.what, describe(number, found.name), error.remedy) from error.__cause__

    def keys(self, samples: Batch | Iterable[int]) -> list[str]:
        """Keys of the samples of a batch, or of these numbers: ``__key__`` of tar samples, else paths."""
        numbers = samples.index if isinstance(samples, Batch) else samples
        numbers = numbers.tolist() if hasattr(numbers, "tolist") else [operator.index(number) for number in numbers]
        return [name.key for name in self._ask_names()(numbers)]

    # State.

    def state_dict(self) -> dict[str, Any]:
        """Where this is, in about 200 bytes: what was yielded, not what was prepared."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state: the next ``iter()`` gives the rest of its epoch.

        Another batch_size or world_size is fine: together the ranks get each
        remaining sample exactly once. With ``order="torch"`` the world_size must be
        the same.

        Raises
        ------
        InvalidError
            The state is of another dataset, order or seed.
        """
        self._stream.load_state_dict(state)
        self._drop_ahead()

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
        failures = self._failures
        return replace(
            self._stream.stats(daemon),
            transform_errors=failures.errors,
            transform_skipped=failures.skipped,
            transform_failures=tuple(failures.listed),
        )

    def close(self) -> None:
        """End the session, the threads of a pool and the connections.

        Batches stay valid; iterating opens a new session, and reads again what was
        not yielded.
        """
        self._drop_ahead()
        self._stream.close()
        self._control.close()

    def __repr__(self) -> str:
        options = self._options
        return f"stoker.Dataset({options.name!r}, batch_size={options.batch_size}, order={options.order!r})"

    # Pickling: settings and position travel, connections do not.

    def __getstate__(self) -> dict[str, Any]:
        position = self.state_dict()
        return {"options": self._options, "plan": self._plan, "use_torch": self._use_torch, "position": position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options, self._plan = state["options"], state["plan"]
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

    def _refuse_lacking_numbers(self, parts: Parts) -> None:
        """Refuse at once what would fail in the middle of an epoch: numbers that samples lack, without a transform.

        Where only the samples themselves could tell, because a column is made of several parts, nothing is refused.
        """
        stream, options = self._stream, self._options
        numbers = parts.numbers(options.select)
        if not numbers or self._complete == stream.index_id:
            return
        try:
            info = self._control.info(options.name)
            if info.index_id == stream.index_id:  # else it was replaced since: what it has says nothing of this one
                refuse_lacking(numbers, info)
        except BaseException:
            stream.drop_session()
            raise
        self._complete = stream.index_id

    def _describe(self) -> None:
        if HAVE_TORCH and get_worker_info() is not None:
            self._stream.describe_only()  # a worker never iterates, so it keeps no session
        else:
            self._stream.describe()

    def _drop_ahead(self) -> None:
        """Stop what the newest iterator prepares."""
        iterator = self._newest()
        if iterator is not None:
            iterator._drop()

    def _block(self) -> dict[str, Any]:
        block_size = self._options.block_size
        return {} if block_size is None else {"block_size": block_size}

    def _ask_names(self) -> AskNames:
        """Asks for names of the samples of the index in use; refers to no session."""
        index = {"index_id": self._stream.index_id} if self._stream.index_id else {}
        return partial(self._control.names, self._options.name, {**self._block(), **index})

    def _values(self, found: Found) -> dict[str, Any]:
        columns = read_columns(found.columns)
        check_conversion(columns, self._options.dtype, self._options.name)
        if columns[0].name == "tokens" and self._options.block_size is not None:
            tokens = self._tokens(columns[0], found_columns(columns, found)["tokens"])
            return {"x": tokens[:-1], "y": tokens[1:]}
        return found_values(columns, found, self._options)

    def _tokens(self, column: Column, array: np.ndarray[Any, Any]) -> Any:
        arrays = self._stream.arrays()
        if self._options.dtype is not None:
            target = arrays.target(self._options.dtype)
            return arrays.convert(array, column.dtype, array.shape, 0, target)
        arrays.check(column.dtype)
        return arrays.over(array, column.dtype, array.shape, 0)


def _want_torch(return_tensors: str | None) -> bool:
    if return_tensors == "torch" and not HAVE_TORCH:
        raise InvalidError(
            "return_tensors='torch', but torch cannot be imported here",
            "return_tensors",
            "install torch, or pass return_tensors='numpy'",
        )
    return HAVE_TORCH and return_tensors != "numpy"


def _nothing() -> None:
    """A weak reference on nothing."""

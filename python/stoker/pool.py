"""What the threads of a pool do to one batch: transforms, and their errors.

Who does what
    The thread that iterates takes batches and submits each as a :class:`Work`. A
    work is one or more calls, which any thread of the pool runs; the one that
    finishes last puts the results together. The iterating thread waits for the
    oldest work, so results come in order. Nobody else touches ring or socket.

Memory
    A work refers to its batch, and so to its slot, until its last call has ended;
    afterwards only results do. A thread that has nothing to do refers to nothing.

Errors
    What a transform raises is its sample's, whatever it is; also StopIteration,
    which would end an epoch in silence. What is no Exception (KeyboardInterrupt,
    SystemExit) is raised by the iterating thread at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from ._gather import Gather
from ._layout import Entry
from ._shown import shown_text
from ._threads import Shared
from .batch import Batch
from .errors import StokerError, TransformError
from .sample import Names, Rows, SampleName, describe
from .stats import FailedSample
from .transforms import LEAVE_OUT, RAISE, SKIP, Plan

FAILURES_LISTED: Final = 100
_REMEDY: Final = (
    "look at the cause, which is shown above; on_error='skip' leaves such samples out, next() goes on after"
)
_REMEDIES: Final = {
    "collate": "return values of one shape and type for all samples, or pass a collate= that can put them together",
    "on_error": "correct the function that was passed as on_error=",
}
_STOP: Final = object()  # in place of a result: there is an error to be raised


class Failures:
    """Samples that transforms failed on, over the life of a Dataset. One thread records."""

    def __init__(self) -> None:
        self.errors = 0
        self.skipped = 0
        self.listed: list[FailedSample] = []

    def add(self, work: Work) -> None:
        """Count what happened in a work that is done."""
        self.errors += work.errors
        self.skipped += work.skipped
        self.listed += work.failed[: FAILURES_LISTED - len(self.listed)]


class _Raised(NamedTuple):
    """What has to be raised for a row: where in the work the error came from."""

    row: int
    step: str
    error: BaseException


def _words(error: BaseException, length: int) -> str:
    """An error's type and at most ``length`` characters of what it says."""
    try:
        text = f"{error.where}: {error.what}" if isinstance(error, StokerError) else str(error)
    except Exception:  # a __str__ of the user's
        text = "(it cannot be shown)"
    return f"{type(error).__name__}: {shown_text(text[:length])}"


class Work:
    """One batch on its way through a pool.

    Attributes
    ----------
    entry : Entry
        The batch's.
    done : bool
        The rest is known.
    value : Any
        What is to be yielded, unless ``error`` or ``empty``.
    error : TransformError or None
        What is to be raised instead.
    empty : bool
        All samples were left out.
    errors, skipped : int
        Samples that the transform failed on; samples that were left out.
    failed : list of FailedSample
        The former, in their order, at most 100. Of a batch that is to be raised it is
        the one sample, however many failed before the others were stopped.
    """

    def __init__(self, plan: Plan, entry: Entry, names: Names, dataset: str) -> None:
        self.entry = entry
        self.done = False
        self.value: Any = None
        self.error: TransformError | None = None
        self.empty = False
        self.errors = 0
        self.skipped = 0
        self.failed: list[FailedSample] = []
        self._plan = plan
        self._names = names
        self._numbers = names.numbers
        self._dataset = dataset
        self._raised: list[_Raised] = []
        self._failures: list[tuple[int, FailedSample]] = []  # by row

    def calls(self, shared: Shared) -> list[Callable[[], None]]:
        """What has to be called, by any threads, for the work to be done."""
        raise NotImplementedError

    def _fail(self, shared: Shared, row: int, step: str, error: BaseException) -> Any:
        """Handle what a transform raised; returns a replacement, SKIP, or _STOP if it is to be raised."""
        if not isinstance(error, Exception):
            return self._raise(shared, row, step, error)
        self._list(row, error)
        on_error = self._plan.on_error
        if on_error == LEAVE_OUT:
            return SKIP
        if isinstance(on_error, str):
            return self._raise(shared, row, step, error)
        try:
            name, number = self._sample(row)
            return on_error(error, name.key, number)
        except BaseException as own:
            return self._raise(shared, row, "on_error", own)

    def _raise(self, shared: Shared, row: int, step: str, error: BaseException) -> Any:
        frames = error.__traceback__
        error = error.with_traceback(frames.tb_next if frames else None)  # without ours, which refers to this work
        self._raised.append(_Raised(row, step, error))
        if not isinstance(error, Exception):
            shared.interrupt(error)
        return _STOP

    def _list(self, row: int, error: Exception) -> None:
        if len(self._failures) < FAILURES_LISTED:
            name, number = self._sample(row)
            self._failures.append((row, FailedSample(name.key, name.file, number, _words(error, 300))))

    def _sample(self, row: int) -> tuple[SampleName, int]:
        """Name and number of a row; nothing if the batch has none."""
        return (self._names.try_row(row), self._numbers[row]) if self._numbers else (SampleName("", ""), -1)

    def _end(self, shared: Shared) -> None:
        """Say that the work is done."""
        failures = sorted(self._failures, key=lambda failure: failure[0])
        if self._raised:
            first = min(self._raised, key=lambda raised: raised.row)
            self.error, self.skipped = self._transform_error(first), 0
            if first.step != "collate" and self._plan.on_error == RAISE:
                failures = [failure for failure in failures if failure[0] == first.row]
                self.errors = 1
        self.failed = [failed for _, failed in failures]
        self._raised, self._failures = [], []
        self.done = True
        shared.news.put(None)

    def _transform_error(self, raised: _Raised) -> TransformError:
        row, step, cause = raised
        name, number = self._sample(row)
        error = TransformError(
            f"{step} raised {_words(cause, 500)}",
            f"{self._dataset}: {describe(number, name)}",
            _REMEDIES.get(step, _REMEDY),
            key=name.key,
            file=name.file,
            index=number,
        )
        error.__cause__ = cause
        return error


class SampleWork(Work):
    """A batch whose samples are transformed one by one, and then put together."""

    def __init__(self, plan: Plan, entry: Entry, rows: Rows, gather: Gather, dataset: str) -> None:
        super().__init__(plan, entry, rows.names, dataset)
        self._rows: Rows | None = rows
        self._collate = plan.collate or gather
        self._results: list[list[Any]] = []
        self._left = 0

    def calls(self, shared: Shared) -> list[Callable[[], None]]:
        """See :class:`Work`. Each thread gets an equal share of the samples, in a row."""
        rows = len(self._numbers)
        share = max(1, -(-rows // shared.count))
        begins = range(0, max(1, rows), share)
        self._left = len(begins)
        self._results = [[] for _ in begins]
        return [
            partial(self._call, shared, results, begin, min(begin + share, rows))
            for results, begin in zip(self._results, begins, strict=True)
        ]

    def _call(self, shared: Shared, results: list[Any], begin: int, end: int) -> None:
        skipped = errors = 0
        try:
            skipped, errors = self._share(shared, results, begin, end)
        except BaseException as error:  # not a transform's: those are handled there
            self._raise(shared, begin, "handling an error", error)
        with shared.lock:
            self.skipped += skipped
            self.errors += errors
            self._left -= 1
            last = self._left == 0
        if last and not shared.stopped:
            self._rows = None  # the slot is free, but for what results refer to
            self._put_together(shared)
            self._end(shared)

    def _share(self, shared: Shared, results: list[Any], begin: int, end: int) -> tuple[int, int]:
        """Transform some rows, up to one that is to be raised; returns how many were left out, and how many failed."""
        rows, transform = self._rows, self._plan.transform
        assert rows is not None
        skipped = errors = 0
        for row in range(begin, end):
            if shared.stopped:
                break
            step = "reading it"
            try:
                sample = rows[row]
                step = "transform"
                result = sample if transform is None else transform(sample)
            except BaseException as error:
                errors += 1
                result = self._fail(shared, row, step, error)
            if result is _STOP:
                break
            if result is SKIP:
                skipped += 1
            else:
                results.append(result)
        return skipped, errors

    def _put_together(self, shared: Shared) -> None:
        results = [result for share in self._results for result in share]
        self._results = []
        if self._raised:
            return
        self.empty = not results and bool(self._numbers)
        if self.empty:
            return
        try:
            self.value = self._collate(results)
        except BaseException as error:
            self._raise(shared, 0, "collate", error)


class BatchWork(Work):
    """A batch that is transformed as a whole."""

    def __init__(
        self,
        plan: Plan,
        entry: Entry,
        batch: Batch,
        prepare: Callable[[Batch, Names], Batch],
        names: Names,
        dataset: str,
    ) -> None:
        super().__init__(plan, entry, names, dataset)
        self._batch: Batch | None = batch
        self._prepare = prepare

    def calls(self, shared: Shared) -> list[Callable[[], None]]:
        """See :class:`Work`."""
        return [partial(self._call, shared)]

    def _call(self, shared: Shared) -> None:
        if shared.stopped:
            return
        result = self._transform(shared)
        if result is SKIP:
            self.empty, self.skipped = True, len(self._numbers)
        elif result is not _STOP:
            self.value = result
        del result
        self._end(shared)

    def _transform(self, shared: Shared) -> Any:
        batch, self._batch, step = self._batch, None, "reading it"
        assert batch is not None
        assert self._plan.batch_transform is not None
        try:
            batch = self._prepare(batch, self._names)
            step = "batch_transform"
            return self._plan.batch_transform(batch)
        except BaseException as error:
            self.errors = 1
            return self._fail(shared, 0, step, error)

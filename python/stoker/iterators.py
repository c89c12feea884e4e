"""Iterators over one epoch of a Dataset: plain, with typed parts, and through a pool of transforms.

All of them move the Dataset's position when they yield, never before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NoReturn

from ._arrays import Arrays
from ._decode import Parts
from ._gather import Gather
from ._layout import Entry
from ._threads import Pool
from .batch import Batch
from .pool import BatchWork, Failures, SampleWork, Work
from .sample import AskNames, Names, Rows
from .source import SOCKET
from .stats import CAUSES
from .stream import Fetched, Stream
from .transforms import Plan

_LOOK_SECONDS: Final = 0.005  # how often a wait for the pool looks for more batches, while there is room


class BatchIterator(Iterator[Batch]):
    """One epoch of a Dataset. Made by ``iter(dataset)``, which makes an older one stale."""

    def __init__(self, stream: Stream, token: int) -> None:
        self._stream = stream
        self._token = token

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Batch:
        return self._stream.next_batch(self._token)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`Dataset.state_dict`."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As :meth:`Dataset.load_state_dict`; this iterator goes on from there."""
        self._drop()
        self._stream.load_state_dict(state)
        self._token = self._stream.begin()

    def _drop(self) -> None:
        """Forget what was prepared and not yielded, and stop the threads that did it; it is read again."""


def finish(parts: Parts | None, arrays: Arrays, batch: Batch, names: Names) -> Batch:
    """Make the columns of a batch what the user wants; raises CorruptError or InvalidError if one cannot be read."""
    return batch if parts is None else parts.finish(batch, arrays, names.describe)


class PartsIterator(BatchIterator):
    """Batches whose parts are typed. One that cannot be read is an error, and next() goes on after it."""

    def __init__(self, stream: Stream, token: int, ask: AskNames) -> None:
        super().__init__(stream, token)
        self._ask = ask
        self._arrays = stream.arrays()

    def __next__(self) -> Batch:
        batch = self._stream.next_batch(self._token)
        return finish(self._stream.parts, self._arrays, batch, Names(self._ask, batch._numbers()))


class _Stopped:
    """Stands where a work would, if an error came instead of a batch, or the entry that ends the epoch."""

    def __init__(self, error: Exception | None, entry: Entry | None) -> None:
        self.error = error
        self.entry = entry


class _Run:
    """What is under way: the oldest first, nothing after a _Stopped; and the threads, once there is something to do."""

    def __init__(self) -> None:
        self.ahead: deque[Work | _Stopped] = deque()
        self.pool: Pool | None = None


def _sum(causes: dict[str, int] | None, more: dict[str, int] | None) -> dict[str, int]:
    return {cause: (causes or {}).get(cause, 0) + (more or {}).get(cause, 0) for cause in CAUSES}


class PooledIterator(BatchIterator):
    """What transforms make of the batches of one epoch, in order.

    Parameters
    ----------
    stream : Stream
    token : int
        From :meth:`Stream.begin`.
    plan : Plan
    failures : Failures
        Where to count samples that a transform failed on.
    ask : callable
        As for :class:`Names`.
    """

    def __init__(self, stream: Stream, token: int, plan: Plan, failures: Failures, ask: AskNames) -> None:
        super().__init__(stream, token)
        self._plan = plan
        self._failures = failures
        self._ask = ask
        self._arrays = stream.arrays()
        self._gather = Gather(self._arrays)
        self._run = _Run()  # replaced as a whole, so that another thread may close the Dataset

    def __next__(self) -> Any:
        asked = time.monotonic_ns()
        causes: dict[str, int] | None = None  # of waiting, if anything was waited for
        try:
            self._stream.check(self._token)
        except BaseException:
            self._drop()
            raise
        while True:
            run = self._run
            while self._has_room(run) and self._fetch(run, block=False) is not None:
                pass
            if not run.ahead:
                causes = _sum(causes, self._fetch(run, block=True))
            head = run.ahead[0]
            if isinstance(head, _Stopped):
                self._end(run, head)
            if not head.done:
                causes = _sum(causes, None)
                if not self._wait(run, head, causes):
                    if run is self._run:  # stopped by the interpreter's end
                        self._drop()
                    continue
            if run.pool is not None:
                run.pool.passed()
            if head.error is None and not head.empty:
                return self._yield(run, head, asked, causes)
            self._pass(run, head)

    def _drop(self) -> None:
        """See :class:`BatchIterator`. Waits for the samples that the threads are at."""
        run, self._run = self._run, _Run()
        if run.pool is not None:
            run.pool.stop(join=True)

    # Taking batches.

    def _has_room(self, run: _Run) -> bool:
        ahead = run.ahead
        return len(ahead) < self._plan.ahead and not (ahead and isinstance(ahead[-1], _Stopped))

    def _fetch(self, run: _Run, block: bool) -> dict[str, int] | None:
        """Take a batch and give it to the pool; returns how long that waited, by cause, None if none was there.

        Errors and the end of the epoch come after what was taken before them.
        """
        try:
            fetched = self._stream.fetch(self._reached(run), block)
            if fetched is None:
                return None
            if fetched.batch is None:
                run.ahead.append(_Stopped(None, fetched.entry))
            else:
                self._submit(run, fetched, fetched.batch)
        except Exception as error:
            run.ahead.append(_Stopped(error, None))
            return {}
        return fetched.causes or {}

    def _reached(self, run: _Run) -> tuple[int, int]:
        """The position after what was taken."""
        if not run.ahead:
            return self._stream.epoch, self._stream.consumed
        last = run.ahead[-1]
        assert isinstance(last, Work)
        return last.entry.epoch, last.entry.samples_consumed

    def _submit(self, run: _Run, fetched: Fetched, batch: Batch) -> None:
        plan, stream = self._plan, self._stream
        work: Work
        if plan.batch_transform is None:
            rows = Rows(batch, stream.parts, self._ask)
            work = SampleWork(plan, fetched.entry, rows, self._gather, stream.options.name)
        else:
            names = Names(self._ask, batch._numbers())
            prepare = partial(finish, stream.parts, self._arrays)
            work = BatchWork(plan, fetched.entry, batch, prepare, names, stream.options.name)
        if run.pool is None:
            run.pool = Pool(plan.threads)
        # In this order: an interruption in between makes a batch be read again, never be missing.
        run.pool.submit(work.calls)
        run.ahead.append(work)

    def _wait(self, run: _Run, head: Work, causes: dict[str, int]) -> bool:
        """Wait for a work, and take batches as they come; returns False if it was dropped meanwhile.

        What is waited for otherwise meanwhile is added to ``causes``.
        """
        pool = run.pool
        assert pool is not None
        while not head.done and not pool.stopped:
            if not self._has_room(run):
                pool.wait(None)
            elif self._stream.transport == SOCKET:  # nothing is there before it is asked for
                for cause, nanoseconds in (self._fetch(run, block=True) or {}).items():
                    causes[cause] += nanoseconds
            elif self._fetch(run, block=False) is None:
                pool.wait(_LOOK_SECONDS)
        return head.done

    # Yielding.

    def _end(self, run: _Run, head: _Stopped) -> NoReturn:
        """Raise what came instead of a batch."""
        if head.entry is not None:
            self._stream.passed(head.entry)
            self._drop()
            raise StopIteration
        run.ahead.popleft()
        error, head.error = head.error, None
        try:
            assert error is not None
            raise error
        finally:
            del error  # its traceback refers to this frame

    def _pass(self, run: _Run, work: Work) -> None:
        """Go on after a work that gives no batch; raises its error if it has one."""
        self._failures.add(work)
        self._stream.passed(work.entry)
        run.ahead.popleft()
        error, work.error = work.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback refers to this frame

    def _yield(self, run: _Run, work: Work, asked: int, causes: dict[str, int] | None) -> Any:
        """What a work made; ``causes`` are those of waiting for batches, None if nothing was waited for."""
        waits = None
        if causes is not None:
            waited = time.monotonic_ns() - asked
            waits = waited, {**causes, "transform": waited - sum(causes.values())}
        value = work.value
        if isinstance(value, Batch):
            value._waits = waits
        self._failures.add(work)
        self._stream.record(work.entry, work.skipped, asked, waits)
        self._stream.passed(work.entry)
        run.ahead.popleft()
        return value

"""Wrapping a sampler so that what it yields is announced ahead.

The sampler is read ``ahead`` indices before they are yielded, in windows of half as many. A
thread of its own tells the daemon of each window, with the time within which it will be used
as its deadline, and ends the hints of windows that were yielded. Whatever goes wrong there
is said once, as a warning, and training goes on without it.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Any, Final, Generic, TypeVar

from .client import Client
from .errors import InvalidError, LimitError, StokerError, StokerWarning
from .hints import HintInfo, ask_hint, make_hint
from .options import whole

_RETRY_AFTER: Final = 10.0  # seconds until a daemon that failed is tried again
_WINDOWS_WAITING: Final = 4  # that the thread has not come to; more are not announced
_FASTEST: Final = 1e-3  # seconds; a deadline below it makes no sense

_Item = TypeVar("_Item")


class Prefetching(Generic[_Item]):
    """A sampler that yields what another one yields, and announces it ahead. See :func:`prefetching`.

    Attributes that it does not have are those of the sampler it wraps.
    """

    def __init__(self, sampler: Iterable[_Item], dataset: str, ahead: int, options: dict[str, Any]) -> None:
        self.sampler = sampler
        self.dataset = dataset
        self.ahead = ahead
        self._options = options
        self._warned = False

    def __iter__(self) -> Iterator[_Item]:
        announcer = _Announcer(self.dataset, self._options)
        try:
            yield from self._read(iter(self.sampler), announcer)
        finally:
            announcer.close()

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Tell the wrapped sampler, if it wants to know."""
        tell = getattr(self.sampler, "set_epoch", None)
        if tell is not None:
            tell(epoch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "sampler" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def _read(self, items: Iterator[_Item], announcer: _Announcer) -> Iterator[_Item]:
        waiting: deque[tuple[_Item, int]] = deque()  # with their numbers of indices
        window: list[int] = []
        buffered, over = 0, False
        clock = _Clock()
        while True:
            while not over and buffered < self.ahead:
                try:
                    item = next(items)
                except StopIteration:
                    over = True
                    break
                numbers = self._numbers(item)
                waiting.append((item, len(numbers)))
                window += numbers
                buffered += max(1, len(numbers))
                if len(window) >= max(1, self.ahead // 2):
                    announcer.announce(window, clock.until(buffered))
                    window = []
            if over and window:
                announcer.announce(window, clock.until(buffered))
                window = []
            self._complain(announcer.problem)
            if not waiting:
                return
            item, count = waiting.popleft()
            buffered -= max(1, count)
            yield item
            clock.took(count)
            announcer.taken += count

    def _numbers(self, item: Any) -> list[int]:
        """The indices of an item: itself, or what it lists; none if it is something else."""
        try:
            return [operator.index(item)]
        except TypeError:
            pass
        try:
            return [operator.index(index) for index in item]
        except TypeError:
            self._complain(f"the sampler yields {item!r:.80}, which is no number and no list of numbers")
            return []

    def _complain(self, problem: str) -> None:
        if problem and not self._warned:
            self._warned = True
            warnings.warn(f"stoker.prefetching announces nothing, or not all: {problem}", StokerWarning, stacklevel=4)


class _Clock:
    """How fast indices are taken, of late."""

    def __init__(self) -> None:
        self._seconds = 0.0  # that an index takes; 0: not known
        self._at = time.monotonic()

    def took(self, count: int) -> None:
        now = time.monotonic()
        if count:
            each = (now - self._at) / count
            self._seconds = each if self._seconds == 0 else self._seconds + (each - self._seconds) / 16
        self._at = now

    def until(self, indices: int) -> float | None:
        """Seconds until so many more will have been taken; None: not known."""
        return max(self._seconds * indices, _FASTEST) if self._seconds else None


class _Announcer:
    """The thread that speaks with the daemon. Nothing that is asked of it waits."""

    def __init__(self, dataset: str, options: dict[str, Any]) -> None:
        self.problem = ""  # the first
        self.taken = 0  # indices that were yielded
        self._dataset = dataset
        self._options = options
        self._announced = 0
        self._queue: Queue[tuple[list[int], float | None, int] | None] = Queue(_WINDOWS_WAITING)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self, indices: list[int], deadline: float | None) -> None:
        self._announced += len(indices)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stoker-prefetching", daemon=True)
            self._thread.start()
        with contextlib.suppress(Full):  # the daemon is slower than the trainer: announced too late is no help
            self._queue.put_nowait((indices, deadline, self._announced))

    def close(self) -> None:
        """End the hints. The thread ends by itself, as its last request may take a while."""
        self._closing.set()
        with contextlib.suppress(Full):  # it looks at the event before each window
            self._queue.put_nowait(None)

    def _run(self) -> None:
        client: Client | None = None
        hints: deque[tuple[HintInfo, int]] = deque()
        failed = float("-inf")
        try:
            while (window := self._next()) is not None:
                if client is None and time.monotonic() - failed < _RETRY_AFTER:
                    continue
                try:
                    if client is None or client.closed:
                        hints.clear()  # they ended with their connection
                        client = Client(self._options.get("runtime_dir"))
                    self._end_taken(client, hints)
                    hints.append((self._send(client, *window[:2]), window[2]))
                except LimitError as error:
                    self._note(error)
                except (StokerError, OSError) as error:
                    self._note(error)
                    if client is not None and not isinstance(error, InvalidError):
                        client.close()
                        client = None
                    failed = time.monotonic()
        finally:
            if client is not None:
                client.close()

    def _next(self) -> tuple[list[int], float | None, int] | None:
        while not self._closing.is_set():
            try:
                return self._queue.get(timeout=60.0)
            except Empty:
                continue
        return None

    def _send(self, client: Client, indices: list[int], deadline: float | None) -> HintInfo:
        options = {name: value for name, value in self._options.items() if name != "runtime_dir"}
        return make_hint(self._dataset, indices=indices, deadline=deadline, **options).send(client)

    def _end_taken(self, client: Client, hints: deque[tuple[HintInfo, int]]) -> None:
        while hints and hints[0][1] <= self.taken:
            ask_hint(client, {"type": "hint_end", "id": hints.popleft()[0].id})

    def _note(self, error: Exception) -> None:
        self.problem = self.problem or str(error)


def prefetching(
    sampler: Iterable[_Item],
    dataset: str,
    *,
    ahead: int = 4096,
    priority: float | None = None,
    block_size: int | None = None,
    select: Any = None,
    runtime_dir: Any = None,
) -> Prefetching[_Item]:
    """Wrap a sampler so that the daemon fetches what it yields before it is read.

    >>> sampler = stoker.prefetching(DistributedSampler(files), "photos")
    >>> loader = DataLoader(files, batch_size=64, sampler=sampler, num_workers=8)

    Parameters
    ----------
    sampler : iterable
        Of numbers of samples, or of lists of them (a batch sampler). What is yielded is
        exactly what it yields; its length and ``set_epoch`` are passed on.
    dataset : str
        The name of Stoker's dataset whose samples these numbers count.
    ahead : int
        How many indices are read from the sampler, and announced, before they are yielded.
    priority, block_size, select, runtime_dir
        As for :func:`stoker.hint`.

    A daemon that is not there, or fails, is warned of once and never breaks training.

    Raises
    ------
    InvalidError
        ``ahead`` is no number from 1 on.
    """
    options = {"priority": priority, "block_size": block_size, "select": select, "runtime_dir": runtime_dir}
    return Prefetching(sampler, dataset, whole("ahead", ahead, 1), options)

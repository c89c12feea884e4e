"""One Dataset's stream of batches: position, session, errors and reconnecting.

Position: ``epoch`` and ``consumed`` say what has been *yielded*, never what the
daemon has prepared ahead. A new iterator starts there if nothing was yielded
since the position was set (by load, by set_epoch, by the end of an epoch), else
at the start of the same epoch, as a new iterator over a list starts at its
start. All ranks agree on it as long as they call the same methods.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ._arrays import Arrays, NumpyArrays, TorchArrays
from ._layout import KIND_BATCH, KIND_END_OF_EPOCH, KIND_ERROR, Entry
from .batch import Batch, BatchBuilder, check_conversion
from .client import Client
from .errors import (
    DaemonGoneError,
    DaemonNotRunningError,
    ForkedError,
    InvalidError,
    ProtocolError,
    StaleIteratorError,
    StokerError,
    UnavailableError,
)
from .options import Options, whole
from .session import SOCKET, Session, open_session
from .stats import Recorder, Stats

STATE_VERSION: Final = 1
_NOBODY_THERE: Final = (DaemonNotRunningError, DaemonGoneError)
_TRY_AGAIN: Final = (*_NOBODY_THERE, UnavailableError)

_Result = TypeVar("_Result")


class Stream:
    """See the module. One thread iterates; ``state_dict`` and ``stats`` may be called from others.

    Parameters
    ----------
    options : Options
    use_torch : bool
        Give tensors instead of ndarrays.
    """

    def __init__(self, options: Options, use_torch: bool) -> None:
        self.options = options
        self.use_torch = use_torch
        self.recorder = Recorder()
        self.epoch = 0
        self.consumed = 0
        self.samples: int | None = None
        self.classes: tuple[str, ...] = ()
        self._yielded = False  # since the position was set
        self._next_epoch: int | None = None  # set_epoch, until the next iterator
        self._index_id = ""  # expected from the daemon; empty before it is known
        self._order_version = 0
        self._token = 0  # of the iterator that may go on
        self._finished = True
        self._pid: int | None = None  # of the process that opened the first session
        self._session: Session | None = None
        self._builder: BatchBuilder | None = None
        self._began = 0
        self._first_iterator: int | None = None

    # Iterating.

    def begin(self) -> int:
        """Start a new iterator; the one before it becomes stale. Returns its token."""
        if self._first_iterator is None:
            self._first_iterator = time.monotonic_ns()
        self._refuse_fork()
        self._token += 1
        self.epoch, self.consumed = self._start()
        self._yielded, self._next_epoch, self._finished = False, None, False
        self.recorder.iterating()
        self._began = time.monotonic_ns()
        self._continue()
        return self._token

    def next_batch(self, token: int) -> Batch:
        """The next batch of the iterator ``token``; raises StopIteration at the end of the epoch."""
        asked = time.monotonic_ns()
        if token != self._token or self._finished or os.getpid() != self._pid:
            self._refuse(token)
        session = self._session
        waits = None
        try:
            if session is None or session.halted:
                session = self._continue()
            entry = session.take()
            if entry is None:
                entry, waits = self._wait(asked)
                session = self._session or session
            if entry.kind != KIND_BATCH:
                self._no_batch(session, entry)
            assert self._builder is not None
            batch = self._builder.build(session.source.own(entry), entry)
        except BaseException as error:
            self._failed(error)
            raise
        batch._waits = waits
        self._yielded = True
        self.epoch = session.epoch = entry.epoch
        self.consumed = session.consumed = entry.samples_consumed
        self._record(entry, asked if waits is None else asked + waits[0])
        return batch

    def _record(self, entry: Entry, now: int) -> None:
        recorder = self.recorder
        recorder.batch(entry)
        recorder.wall_now = now - self._began
        if recorder.first_batch is None and self._first_iterator is not None:
            recorder.first_batch = now - self._first_iterator

    def _wait(self, asked: int) -> tuple[Entry, tuple[int, dict[str, int]] | None]:
        """Wait for an entry, over the end of a daemon if reconnecting is wanted."""
        while True:
            session = self._session or self._continue()
            try:
                entry = session.wait()
                break
            except DaemonGoneError as error:
                if not self.options.reconnect:
                    raise
                self._reconnect(error)
        if entry.kind != KIND_BATCH:
            return entry, None
        got = time.monotonic_ns()
        causes = self.recorder.wait(asked, got, entry)
        session.waited(got - asked, causes)
        return entry, (got - asked, causes)

    def _no_batch(self, session: Session, entry: Entry) -> None:
        """Handle an entry that is no batch; always raises."""
        if entry.kind == KIND_END_OF_EPOCH:
            self.epoch, self.consumed = self.epoch + 1, 0
            session.epoch, session.consumed = self.epoch, 0
            self._yielded, self._finished = False, True
            raise StopIteration
        if entry.kind == KIND_ERROR:
            raise session.error(entry)
        raise ProtocolError(f"entry {entry.sequence} is of the unknown kind {entry.kind}", "session ring")

    def _failed(self, error: BaseException) -> None:
        """After an interruption the session may hold a half-taken batch: open another one next time."""
        session = self._session
        reported = isinstance(error, StokerError) and session is not None and session.halted
        if not reported and not isinstance(error, StopIteration):
            self.drop_session()

    def _refuse(self, token: int) -> None:
        """Say why an iterator cannot go on, if it cannot: it may also be the first use after :meth:`close`."""
        self._refuse_fork()
        if token != self._token:
            raise StaleIteratorError(
                "this iterator was replaced: since it was made, iter() or load_state_dict() was called on its Dataset",
                self.options.name,
                "use the newest iterator; to read twice at the same time, make a second Dataset",
            )
        if self._finished:
            raise StopIteration

    def _refuse_fork(self) -> None:
        if self._pid is not None and os.getpid() != self._pid:
            raise ForkedError(
                f"the Dataset was opened by process {self._pid} and cannot be iterated in its forked child "
                f"{os.getpid()}: both would read the same rank's samples from one ring",
                self.options.name,
                "make the Dataset in the child, or pass it there by pickling; ds[i] works in forked children",
            )

    def _start(self) -> tuple[int, int]:
        if self._next_epoch is not None and (self._next_epoch != self.epoch or self._yielded):
            return self._next_epoch, 0
        return self.epoch, 0 if self._yielded else self.consumed

    # State.

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`stoker.Dataset.state_dict`."""
        options = self.options
        epoch, consumed = self.epoch, self.consumed
        if self._next_epoch is not None:
            epoch, consumed = self._start()
        state: dict[str, Any] = {
            "v": STATE_VERSION,
            "dataset": options.name,
            "index_id": self._index_id,
            "order": options.order,
            "order_version": self._order_version,
            "seed": options.seed,
            "epoch": epoch,
            "samples_consumed": consumed,
            "batch_size": options.batch_size,
            "world_size": options.world_size,
        }
        if options.order == "windowed":
            state["window"] = options.window
        if options.block_size is not None:
            state["block_size"] = options.block_size
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`stoker.Dataset.load_state_dict`."""
        self._check_state(state)
        try:
            epoch, consumed = (whole(key, state[key], 0) for key in ("epoch", "samples_consumed"))
            order_version = whole("order_version", state["order_version"], 0)
        except InvalidError as error:
            raise InvalidError(
                f"the state names no position: {error.what}", "state", "pass what state_dict() returned, unchanged"
            ) from None
        self._index_id = str(state["index_id"]) or self._index_id
        self._order_version = order_version or self._order_version
        self.epoch, self.consumed = epoch, consumed
        self._yielded, self._next_epoch = False, None
        self._token += 1

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`stoker.Dataset.set_epoch`."""
        self._next_epoch = whole("epoch", epoch, 0)

    def _check_state(self, state: dict[str, Any]) -> None:
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise InvalidError(f"the state lacks {', '.join(missing)}", "state", "pass what state_dict() returned")
        if state["v"] != STATE_VERSION:
            raise InvalidError(
                f"the state is of version {state['v']}, this release reads {STATE_VERSION}",
                "state",
                "use the release that wrote it",
            )
        mine = self.state_dict()
        same = ("dataset", "order", "seed", "window", "block_size")
        known = tuple(key for key in ("index_id", "order_version") if mine[key] and state[key])
        for key in same + known:
            if state.get(key) != mine.get(key):
                raise InvalidError(
                    f"the state was taken with {key}={state.get(key)!r}, this Dataset has {mine.get(key)!r}: "
                    "its positions mean other samples",
                    "state",
                    f"make the Dataset with the same {key}; another batch_size, rank or world_size is fine",
                )

    # Sessions.

    def describe(self) -> None:
        """Open a session, so that ``samples`` and ``classes`` are known."""
        if self._pid is not None and os.getpid() != self._pid:
            if self.samples is None:
                self._refuse_fork()
            return
        if self._session is None:
            self._open_first(*self._start())

    def describe_only(self) -> None:
        """As :meth:`describe`, with a session that ends at once: for a DataLoader worker."""
        request = self.options.open_request(*self._start(), self._index_id, self._order_version)
        session = open_session(self.connect, request, SOCKET)
        session.close()
        check_conversion(session.opened.columns, self.options.dtype, self.options.name)
        self.samples, self.classes = session.opened.samples, session.opened.classes

    def drop_session(self) -> None:
        """Close the session, if there is one; the position stays."""
        session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            self.recorder.copied += session.source.copied
            session.close()

    def close(self) -> None:
        """As :meth:`drop_session`; afterwards a forked child may iterate."""
        self.drop_session()
        self._pid = None

    def stats(self, daemon: bool) -> Stats:
        """See :meth:`stoker.Dataset.stats`."""
        session = self._session
        theirs = session.statistics() if daemon and session is not None else None
        source = session.source if session is not None else None
        return self.recorder.snapshot(
            copied=source.copied if source else 0,
            kept=source.held if source else 0,
            transport=source.transport if source else None,
            daemon=theirs,
        )

    def connect(self) -> Client:
        """A new connection to the daemon; with ``reconnect`` it waits for one."""
        return self._first(self._connect)

    def _connect(self) -> Client:
        return Client(self.options.runtime_dir, timeout=self.options.timeout)

    def arrays(self) -> Arrays:
        """What tensors are made with."""
        return TorchArrays() if self.use_torch else NumpyArrays()

    def _continue(self) -> Session:
        """A session that stands at the yielded position."""
        session = self._session
        if session is not None:
            try:
                session.seek(self.epoch, self.consumed)
                return session
            except DaemonGoneError as error:
                if self.options.reconnect:
                    return self._reconnect(error)
                self.drop_session()  # the daemon may have been started again since
            except BaseException:
                self.drop_session()
                raise
        return self._open_first(self.epoch, self.consumed)

    def _open_first(self, epoch: int, consumed: int) -> Session:
        return self._first(lambda: self._open(epoch, consumed))

    def _open(self, epoch: int, consumed: int) -> Session:
        options = self.options
        request = options.open_request(epoch, consumed, self._index_id, self._order_version)
        session = open_session(self._connect, request, options.transport)
        try:
            check_conversion(session.opened.columns, options.dtype, options.name)
            self._builder = BatchBuilder(session.opened.columns, self.arrays(), options.dtype)
            self._check_opened(session)
        except BaseException:
            session.close()
            raise
        opened = session.opened
        self._index_id, self._order_version = opened.index_id, opened.order_version
        self.samples, self.classes = opened.samples, opened.classes
        self._pid = os.getpid()
        self._session = session
        return session

    def _check_opened(self, session: Session) -> None:
        opened = session.opened
        if self._index_id and opened.index_id != self._index_id:
            raise ProtocolError(
                f"the daemon opened index {opened.index_id}, asked for {self._index_id}", self.options.name
            )

    def _reconnect(self, error: StokerError) -> Session:
        """Wait for a new daemon and go on where the user is; old batches stay valid."""
        self.drop_session()
        try:
            session = self._retry(lambda: self._open(self.epoch, self.consumed), _TRY_AGAIN)
        except _TRY_AGAIN as again:
            raise DaemonGoneError(
                f"{error.what}; no new one within {self.options.reconnect_timeout} s ({again.what})",
                error.where,
                "start stokerd and call next() again: the position is kept",
            ) from again
        self.recorder.reconnects += 1
        return session

    def _first(self, attempt: Callable[[], _Result]) -> _Result:
        """Make an attempt that needs a daemon; with ``reconnect``, wait for one to be started."""
        if not self.options.reconnect:
            return attempt()
        try:
            return self._retry(attempt, _NOBODY_THERE)
        except _NOBODY_THERE as error:
            raise type(error)(
                f"{error.what}; waited {self.options.reconnect_timeout} s for it, as reconnect=True asks for",
                error.where,
                error.remedy,
            ) from error

    def _retry(self, attempt: Callable[[], _Result], kinds: tuple[type[StokerError], ...]) -> _Result:
        """Make an attempt again and again after errors of ``kinds``, for at most ``reconnect_timeout``."""
        until, number = time.monotonic() + self.options.reconnect_timeout, 0
        while True:
            try:
                return attempt()
            except kinds:
                if not _wait_backoff(number, until):
                    raise
                number += 1


def _wait_backoff(attempt: int, until: float) -> bool:
    """Sleep before attempt number ``attempt`` (from 0), at most until the monotonic time ``until``.

    Returns False when the time is up.
    """
    left = until - time.monotonic()
    if left <= 0:
        return False
    time.sleep(min(left, 1.0, 0.02 * 2 ** min(attempt, 6)))
    return True

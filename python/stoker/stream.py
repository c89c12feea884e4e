"""One Dataset's stream of batches: position, session, errors and reconnecting.

Position: ``epoch`` and ``consumed`` say what has been *yielded*, never what the
daemon has prepared ahead. A new iterator starts there if nothing was yielded
since the position was set (by load, by set_epoch, by the end of an epoch), else
at the start of the same epoch, as a new iterator over a list starts at its
start, or of the next one if all of it was yielded. All ranks agree on it as long as they call the same methods.

A pool of ``transform=`` takes batches (:meth:`Stream.fetch`) before their results
are yielded (:meth:`Stream.passed`). What it has taken is not in the position, and
matters only where a session is opened again in between.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final, NamedTuple

from ._arrays import Arrays, NumpyArrays, TorchArrays
from ._decode import Parts, make_parts
from ._layout import KIND_BATCH, KIND_END_OF_EPOCH, KIND_ERROR, Entry
from ._retry import NOBODY_THERE, connect, dial, first, retry
from ._state import STATE_VERSION, check_state
from .batch import Batch, BatchBuilder, check_conversion
from .errors import (
    DaemonGoneError,
    ForkedError,
    InvalidError,
    ProtocolError,
    StaleIteratorError,
    StokerError,
    UnavailableError,
)
from .options import Options, whole
from .session import Session, open_session
from .source import SOCKET
from .stats import Recorder, Stats, attribute

_TRY_AGAIN: Final = (*NOBODY_THERE, UnavailableError)


class Fetched(NamedTuple):
    """An entry that was taken ahead of what is yielded.

    ``batch`` is None at the end of an epoch; ``causes`` are the nanoseconds that
    taking it waited, by cause, None if it was ready.
    """

    entry: Entry
    batch: Batch | None
    causes: dict[str, int] | None


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
        self.parts: Parts | None = None  # what has to be done to the columns of batches, if anything
        self._fetched: tuple[int, int] | None = None  # where a pool stands that is ahead of what is yielded
        self._yielded = False  # since the position was set
        self._next_epoch: int | None = None  # set_epoch, until the next iterator
        self.index_id = ""  # which sample numbers belong to; empty before it is known
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
        self._fetched = None
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
                entry = self._wait()
                session = self._session or session
                if entry.kind == KIND_BATCH:
                    waits = self._waited(session, asked, entry)
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

    def _wait(self) -> Entry:
        """Wait for an entry, over the end of a daemon if reconnecting is wanted."""
        while True:
            session = self._session or self._continue()
            try:
                return session.wait()
            except DaemonGoneError as error:
                if not self.options.reconnect:
                    raise
                self._reconnect(error)

    def _waited(self, session: Session, asked: int, entry: Entry) -> tuple[int, dict[str, int]]:
        got = time.monotonic_ns()
        causes = self.recorder.wait(asked, got, entry)
        session.waited(got - asked, causes, entry)
        return got - asked, causes

    # For a pool, which is ahead of what is yielded.

    def check(self, token: int) -> None:
        """Raise what :meth:`next_batch` raises if the iterator ``token`` cannot go on."""
        if token != self._token or self._finished or os.getpid() != self._pid:
            self._refuse(token)

    def fetch(self, at: tuple[int, int], block: bool) -> Fetched | None:
        """Take the entry at the position ``at``, without counting it; None if it is not there and ``block`` is false.

        ``at`` is (epoch, consumed): where the last entry ended that the pool still
        has, else what is yielded. Raises what :meth:`next_batch` raises.
        """
        asked = time.monotonic_ns()
        self._fetched = at
        session, batch, causes = self._session, None, None
        try:
            if session is None or session.halted or (session.epoch, session.consumed) != at:
                session = self._continue()
            session.consumed = -1  # until it is known again: so a seek follows whatever interrupts this
            entry = session.take()
            if entry is None:
                if not block:
                    session.consumed = at[1]
                    return None
                entry = self._wait()
                session = self._session or session
                causes = attribute(asked, time.monotonic_ns(), entry)
            if entry.kind == KIND_END_OF_EPOCH:
                session.epoch, session.consumed = session.epoch + 1, 0
            elif entry.kind != KIND_BATCH:
                self._no_batch(session, entry)
            else:
                assert self._builder is not None
                batch = self._builder.build(session.source.own(entry), entry)
                session.epoch, session.consumed = entry.epoch, entry.samples_consumed
        except BaseException as error:
            self._failed(error)
            raise
        return Fetched(entry, batch, causes)

    def passed(self, entry: Entry) -> None:
        """Move the position over an entry that was fetched."""
        if entry.kind == KIND_END_OF_EPOCH:
            self.epoch, self.consumed = self.epoch + 1, 0
            self._yielded, self._finished = False, True
        else:
            self.epoch, self.consumed, self._yielded = entry.epoch, entry.samples_consumed, True

    def record(self, entry: Entry, skipped: int, asked: int, waits: tuple[int, dict[str, int]] | None) -> None:
        """Count an entry whose batch, without ``skipped`` samples, is about to be yielded."""
        self._record(entry, asked if waits is None else asked + waits[0])
        self.recorder.samples -= skipped
        if waits is not None:
            self.recorder.add_wait(*waits, entry)
            if self._session is not None:
                self._session.waited(*waits, entry)

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
        if not self._yielded:
            return self.epoch, self.consumed
        return (self.epoch + 1, 0) if self._all_yielded() else (self.epoch, 0)

    def _all_yielded(self) -> bool:
        """Whether the epoch is over, though nobody asked for more: some trainers count batches (Lightning, islice)."""
        options, left = self.options, (self.samples or 0) - self.consumed
        return self.samples is not None and left < (options.batch_size * options.world_size if options.drop_last else 1)

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
            "index_id": self.index_id,
            "order": options.order,
            "order_version": self._order_version,
            "seed": options.seed,
            "epoch": epoch,
            "samples_consumed": consumed,
            "batch_size": options.batch_size,
            "world_size": options.world_size,
        }
        if options.seeding is not None:
            state["seeding"] = options.seeding
        if options.order == "windowed":
            state["window"] = options.window
        if options.block_size is not None:
            state["block_size"] = options.block_size
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`stoker.Dataset.load_state_dict`."""
        check_state(state, self.state_dict())
        try:
            epoch, consumed = (whole(key, state[key], 0) for key in ("epoch", "samples_consumed"))
            order_version = whole("order_version", state["order_version"], 0)
        except InvalidError as error:
            raise InvalidError(
                f"the state names no position: {error.what}", "state", "pass what state_dict() returned, unchanged"
            ) from None
        self.index_id = str(state["index_id"]) or self.index_id
        self._order_version = order_version or self._order_version
        self.epoch, self.consumed = epoch, consumed
        self._yielded, self._next_epoch = False, None
        self._token += 1

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`stoker.Dataset.set_epoch`."""
        self._next_epoch = whole("epoch", epoch, 0)

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
        request = self.options.open_request(*self._start(), self.index_id, self._order_version)
        session = open_session(lambda: connect(self.options), request, SOCKET)
        session.close()
        check_conversion(session.opened.columns, self.options.dtype, self.options.name)
        make_parts(session.opened.format, session.opened.columns, self.options)
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
        self._pid = self._fetched = None

    def stats(self, daemon: bool) -> Stats:
        """See :meth:`stoker.Dataset.stats`."""
        session = self._session
        theirs = session.statistics() if daemon and session is not None else None
        copied, kept = (session.source.copied, session.source.held) if session is not None else (0, 0)
        return self.recorder.snapshot(copied=copied, kept=kept, transport=self.transport, daemon=theirs)

    @property
    def transport(self) -> str | None:
        """How batches come: "ring" or "socket"; None without a session."""
        return self._session.source.transport if self._session else None

    def arrays(self) -> Arrays:
        """What tensors are made with."""
        return TorchArrays() if self.use_torch else NumpyArrays()

    def _continue(self) -> Session:
        """A session that stands at the yielded position."""
        session = self._session
        if session is not None:
            try:
                session.seek(*self._reached())
                return session
            except DaemonGoneError as error:
                if self.options.reconnect:
                    return self._reconnect(error)
                self.drop_session()  # the daemon may have been started again since
            except BaseException:
                self.drop_session()
                raise
        return self._open_first(*self._reached())

    def _reached(self) -> tuple[int, int]:
        """The position of the next entry that is wanted."""
        return self._fetched or (self.epoch, self.consumed)

    def _open_first(self, epoch: int, consumed: int) -> Session:
        return first(self.options, lambda: self._open(epoch, consumed))

    def _open(self, epoch: int, consumed: int) -> Session:
        options = self.options
        request = options.open_request(epoch, consumed, self.index_id, self._order_version)
        session = open_session(lambda: dial(options), request, options.transport)
        try:
            check_conversion(session.opened.columns, options.dtype, options.name)
            self._builder = BatchBuilder(session.opened.columns, self.arrays(), options.dtype)
            parts = make_parts(session.opened.format, session.opened.columns, options)
            opened = session.opened
            if self.index_id and opened.index_id != self.index_id:
                raise ProtocolError(
                    f"the daemon opened index {opened.index_id}, asked for {self.index_id}", options.name
                )
        except BaseException:
            session.close()
            raise
        self.index_id, self._order_version = opened.index_id, opened.order_version
        self.samples, self.classes, self.parts = opened.samples, opened.classes, parts
        self._pid = os.getpid()
        self._session = session
        return session

    def _reconnect(self, error: StokerError) -> Session:
        """Wait for a new daemon and go on where the user is; old batches stay valid."""
        self.drop_session()
        try:
            session = retry(self.options, lambda: self._open(*self._reached()), _TRY_AGAIN)
        except _TRY_AGAIN as again:
            raise DaemonGoneError(
                f"{error.what}; no new one within {self.options.reconnect_timeout} s ({again.what})",
                error.where,
                "start stokerd and call next() again: the position is kept",
            ) from again
        self.recorder.reconnects += 1
        return session

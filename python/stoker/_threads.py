"""The threads of a pool: how they are started, told what to do, and ended.

Ending
    The threads know a :class:`Shared`, never a :class:`Pool`: a pool that nobody
    refers to stops them. They are daemon threads, so that a transform that never
    returns cannot keep the interpreter from ending; at its end they are told to
    stop and waited for, because a thread that is inside a library while its
    interpreter goes can crash the process. A forked child has none of them.

An executor of the standard library would run all that was submitted before its
threads end, also at the interpreter's end, and its locks are not safe from Ctrl-C.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Final

_PATIENCE_SECONDS: Final = 10.0  # for what threads are doing when they are told to stop


class Shared:
    """What the threads of a pool share with it.

    The iterating thread may be interrupted by Ctrl-C at any instruction. So it takes
    no lock that the others need; it puts into queues, and takes out of them, which
    is one step each.
    """

    def __init__(self, count: int) -> None:
        self.pid = os.getpid()
        self.count = count
        self.alive = count  # of them not yet waited for
        self.threads: list[threading.Thread] = []
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.news: SimpleQueue[None] = SimpleQueue()  # one for each work that is done, and for all else to look at
        self.ended: SimpleQueue[None] = SimpleQueue()  # one for each thread that has ended
        self.lock = threading.Lock()  # the threads' own
        self.members: set[int] = set()  # their identities
        self.stopped = False
        self.urgent: BaseException | None = None

    def stop(self) -> None:
        """Make the threads end after the sample that they are at. A collector may call it anywhere."""
        if os.getpid() == self.pid:
            self.calls.put(None)  # each thread passes it on
        self.stopped = True
        self.news.put(None)

    def join(self, until: float) -> None:
        """Wait for the threads' end, at most until the monotonic time ``until``; not in one of them."""
        if os.getpid() != self.pid or threading.get_ident() in self.members:
            return
        try:
            while self.alive:
                self.ended.get(timeout=max(0.0, until - time.monotonic()))
                self.alive -= 1
        except Empty:
            return
        # A thread that has said so still has to let go of what it holds; in an
        # interpreter that is going, dropping a tensor can end the process.
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))

    def interrupt(self, error: BaseException) -> None:
        """Have the iterating thread raise an error at once."""
        self.urgent = error
        self.news.put(None)


_running: weakref.WeakSet[Shared] = weakref.WeakSet()


def _stop_all() -> None:
    running, until = list(_running), time.monotonic() + _PATIENCE_SECONDS
    for shared in running:
        shared.stop()
    for shared in running:
        shared.join(until)


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_running.clear)


def _begin(shared: Shared) -> None:
    """Start the threads of a pool; in a thread of its own, for an interrupted start would leave a broken one."""
    started = 0
    try:
        for number in range(shared.count):
            name = f"stoker-transform-{number}"
            thread = threading.Thread(target=_serve, args=(shared,), name=name, daemon=True)
            shared.threads.append(thread)
            thread.start()
            started += 1
    except Exception as error:  # the machine has no more
        for _ in range(started, shared.count):
            shared.ended.put(None)
        shared.interrupt(error)
        shared.stop()


def _serve(shared: Shared) -> None:
    shared.members.add(threading.get_ident())
    while (call := shared.calls.get()) is not None:
        if not shared.stopped:
            call()
        # Or this thread would keep a batch while it waits for the next. After a stop, what is left in the queue is
        # dropped as well: it refers to the queue's owner, and would keep its batches until a collector comes by.
        del call
    shared.calls.put(None)
    shared.ended.put(None)


class Pool:
    """Threads for one iterator.

    Parameters
    ----------
    count : int
        How many.
    """

    def __init__(self, count: int) -> None:
        self._shared = shared = Shared(count)
        self._forgotten = weakref.finalize(self, shared.stop)
        self._forgotten.atexit = False  # _stop_all is there for that
        _running.add(shared)
        _thread.start_new_thread(_begin, (shared,))

    @property
    def stopped(self) -> bool:
        """Whether it was stopped: what is not done will never be."""
        return self._shared.stopped

    def submit(self, calls: Callable[[Shared], Iterable[Callable[[], None]]]) -> None:
        """Have the threads do what ``calls`` returns; what was submitted before comes first."""
        for call in calls(self._shared):
            self._shared.calls.put(call)

    def wait(self, seconds: float | None) -> None:
        """Wait until there is news: a work may be done, the pool may be stopped; or until the time is up.

        Raises
        ------
        BaseException
            What a transform raised that is no Exception, in whichever work.
        """
        shared = self._shared
        with contextlib.suppress(Empty):
            shared.news.get(timeout=seconds)
        urgent, shared.urgent = shared.urgent, None
        if urgent is not None:
            raise urgent

    def passed(self) -> None:
        """Take note that a work was yielded without waiting: its news is none any more."""
        with contextlib.suppress(Empty):
            self._shared.news.get_nowait()

    def stop(self, join: bool) -> None:
        """Stop the threads; ``join``: wait for the samples that they are at, at most 10 s."""
        shared = self._shared
        if not shared.stopped:
            shared.stop()
            if join:
                shared.join(time.monotonic() + _PATIENCE_SECONDS)

"""Connecting to a daemon, over and over where ``reconnect=True`` asks for it.

Apart from any Dataset: what only needs a connection, such as a sample's key,
must not keep a Dataset and its session alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from .client import Client
from .errors import DaemonGoneError, DaemonNotRunningError, StokerError
from .options import Options

NOBODY_THERE: Final = (DaemonNotRunningError, DaemonGoneError)

_Result = TypeVar("_Result")


def dial(options: Options) -> Client:
    """A new connection to the daemon."""
    return Client(options.runtime_dir, timeout=options.timeout)


def connect(options: Options) -> Client:
    """A new connection to the daemon; with ``reconnect`` it waits for one."""
    return first(options, lambda: dial(options))


def first(options: Options, attempt: Callable[[], _Result]) -> _Result:
    """Make an attempt that needs a daemon; with ``reconnect``, wait for one to be started."""
    if not options.reconnect:
        return attempt()
    try:
        return retry(options, attempt, NOBODY_THERE)
    except NOBODY_THERE as error:
        raise type(error)(
            f"{error.what}; waited {options.reconnect_timeout} s for it, as reconnect=True asks for",
            error.where,
            error.remedy,
        ) from error


def retry(options: Options, attempt: Callable[[], _Result], kinds: tuple[type[StokerError], ...]) -> _Result:
    """Make an attempt again and again after errors of ``kinds``, for at most ``reconnect_timeout``."""
    until, number = time.monotonic() + options.reconnect_timeout, 0
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

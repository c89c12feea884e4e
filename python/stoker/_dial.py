"""Connecting to the daemon's socket, and saying why it did not work."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from . import _places
from .errors import DaemonNotRunningError, PermissionDeniedError, StokerError, UnavailableError

_LONGEST_SOCKET_PATH: Final = 107
_NOBODY_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)


def connect(directories: Sequence[Path]) -> tuple[socket.socket, Path]:
    """Connect to the first directory whose socket answers; returns the socket and its path."""
    failures: Mapping[Path, OSError]
    failures = {}
    for directory in directories:
        path = directory / _places.SOCKET_NAME
        if directory == _places.shared_directory():
            _places.check_owner(directory)
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _no_socket(error) from error
        try:
            _connect_path(connection, directory)
            return connection, path
        except OSError as error:
            connection.close()
            failures[path] = error
    raise _no_daemon(failures)


def _connect_path(connection: socket.socket, directory: Path) -> None:
    path = directory / _places.SOCKET_NAME
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        connection.connect(os.fspath(path))
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{_places.SOCKET_NAME}")
    finally:
        os.close(descriptor)


def _no_socket(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"this process cannot make a socket: {error.strerror}",
        "session socket",
        "close files or Datasets that are no longer used, or raise the limit of open files (ulimit -n)",
    )


def _no_daemon(failures: Mapping[Path, OSError]) -> StokerError:
    tried = ", ".join(f"{path} ({error.strerror})" for path, error in failures.items())
    first = next(iter(failures))
    refused = [path for path, error in failures.items() if isinstance(error, PermissionError)]
    if refused:
        return PermissionDeniedError(
            f"a stokerd may be running, but its socket does not admit uid {os.getuid()}; tried {tried}",
            str(refused[0]),
            "run stokerd as this user: it serves its own user only",
        )
    if any(error.errno not in _NOBODY_THERE for error in failures.values()):
        return UnavailableError(
            f"connecting to stokerd did not work; tried {tried}", str(first), "remove the cause and try again"
        )
    return DaemonNotRunningError(
        f"stokerd is not running: nothing listens on its session socket; tried {tried}",
        str(first),
        "start it with `stokerd` (or `stokerd --runtime-dir DIR` and the same DIR as runtime_dir= "
        "or in STOKER_RUNTIME_DIR here)",
    )

"""Errors of the package: what happened, where, why, and what to do next.

Everything that Stoker raises on purpose is a :class:`StokerError`. The daemon
names its errors by a code; each code has its class here, so that a caller can
catch the kind it can handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ._shown import shown_text

__all__ = [
    "BatchTimeoutError",
    "ChangedError",
    "ConflictError",
    "CorruptError",
    "DaemonGoneError",
    "DaemonNotRunningError",
    "ForkedError",
    "InternalError",
    "InvalidError",
    "LimitError",
    "NoSpaceError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ProtocolError",
    "StaleIteratorError",
    "StokerError",
    "StokerWarning",
    "TransformError",
    "UnavailableError",
    "VersionError",
    "WorkerError",
]


class StokerError(Exception):
    """Base of all errors of Stoker.

    Attributes
    ----------
    code : str
        The kind, one of the codes of the session protocol.
    what, where, remedy : str
        What happened and why; the object it happened to (a file, a dataset, a
        socket), which may be empty; what to do next.
    """

    code: str = "internal"
    usual_remedy: ClassVar[str] = "look at the log of stokerd, which says more"

    def __init__(self, what: str, where: str = "", remedy: str = "", *, code: str | None = None) -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy or self.usual_remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = self.what
        if self.where and self.where not in text:
            text = f"{self.where}: {text}"
        if self.remedy:
            text = f"{text}\n  what to do: {self.remedy}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.remedy, self.code))


def _rebuild(kind: type[StokerError], what: str, where: str, remedy: str, code: str) -> StokerError:
    return kind(what, where, remedy, code=code)


class StokerWarning(UserWarning):
    """Something works, but not as well as it could; the text says why."""


class NotFoundError(StokerError, LookupError):
    """A dataset, file or object that is not there."""

    code = "not_found"


class InvalidError(StokerError, ValueError):
    """An argument or a request that can never work as it is."""

    code = "invalid"
    usual_remedy = "change it as the message says; it fails the same way when it is repeated"


class ChangedError(StokerError):
    """A file, or the dataset's index, is no longer what it was; ``where`` names it."""

    code = "changed"


class CorruptError(StokerError):
    """Bytes that are not what their format or checksum says."""

    code = "corrupt"


class PermissionDeniedError(StokerError):
    """The operating system or the daemon refused access."""

    code = "permission"


class NoSpaceError(StokerError):
    """Memory or disk for the request is exhausted."""

    code = "no_space"


class UnavailableError(StokerError):
    """Not possible now; trying again later may succeed."""

    code = "unavailable"


class OutOfRangeError(StokerError, IndexError):
    """A sample number or position outside of the dataset."""

    code = "out_of_range"


class LimitError(StokerError):
    """A cap of the daemon (sessions, bytes, message size) was reached."""

    code = "limit"


class VersionError(StokerError):
    """Client and daemon share no version of the protocol."""

    code = "version"


class ConflictError(StokerError):
    """The request contradicts what is already there."""

    code = "conflict"


class InternalError(StokerError):
    """A fault of the daemon itself."""

    code = "internal"


class ProtocolError(StokerError):
    """The other side of the socket or ring does not speak the protocol."""

    code = "protocol"
    usual_remedy = "check that stokerd and the Python package stoker are of the same release"


class DaemonNotRunningError(StokerError):
    """No daemon listens where the client looked."""

    code = "daemon_not_running"


class DaemonGoneError(StokerError):
    """The daemon ended, or closed the connection, while it was in use."""

    code = "daemon_gone"


class BatchTimeoutError(StokerError):
    """The daemon lives, but an answer or a batch did not come in time."""

    code = "timeout"


class StaleIteratorError(StokerError):
    """An older iterator was used after a newer one was made from the same Dataset."""

    code = "stale_iterator"


class ForkedError(StokerError):
    """A Dataset was iterated in a forked child of the process that opened it."""

    code = "forked"


class WorkerError(StokerError):
    """A Dataset was iterated inside a DataLoader worker."""

    code = "worker"


class TransformError(StokerError):
    """What ``transform=``, ``batch_transform=`` or ``collate=`` raised; ``__cause__`` is the original.

    Attributes
    ----------
    key, file : str
        Of the sample that it failed on, of a batch's first sample if it failed on
        a whole batch; empty if the daemon could not be asked.
    index : int
        That sample's number in the dataset.
    """

    code = "transform"

    def __init__(
        self,
        what: str,
        where: str = "",
        remedy: str = "",
        *,
        code: str | None = None,
        key: str = "",
        file: str = "",
        index: int = -1,
    ) -> None:
        super().__init__(what, where, remedy, code=code)
        self.key = key
        self.file = file
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        place = {"key": self.key, "file": self.file, "index": self.index}
        return (*super().__reduce__(), place)


class _Codes:
    by_code: ClassVar[dict[str, type[StokerError]]] = {
        kind.code: kind
        for kind in (
            NotFoundError,
            InvalidError,
            ChangedError,
            CorruptError,
            PermissionDeniedError,
            NoSpaceError,
            UnavailableError,
            OutOfRangeError,
            LimitError,
            VersionError,
            ConflictError,
            InternalError,
        )
    }


def error_from_answer(error: object) -> StokerError:
    """Build the exception for the ``error`` object of a daemon's answer.

    Unknown codes become a plain :class:`StokerError` that keeps the code;
    something that is no error object becomes a :class:`ProtocolError`.
    """
    if not isinstance(error, Mapping) or not isinstance(error.get("code"), str):
        return ProtocolError(
            f"the daemon reported an error in a form this client does not know: {error!r:.200}",
            "session socket",
            "check that stokerd and the Python package stoker are of the same release",
        )
    kind = _Codes.by_code.get(error["code"], StokerError)
    what, where, remedy = (shown_text(str(error.get(field) or "")) for field in ("what", "where", "remedy"))
    return kind(what or "the daemon gave no description", where, remedy, code=error["code"])

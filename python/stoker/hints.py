"""Telling the daemon what will be read, so that it is in memory when it is.

>>> with stoker.hint("photos", indices=next_epoch, deadline=60) as hint:
...     hint.resident_share, hint.ready_at

A hint is a lease: the daemon fetches for it until it is ended, or until its connection or
its process is gone, and never more than its budget. Indices that do not fit a message
travel in a memfd, as little-endian int64.
"""

from __future__ import annotations

import operator
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final

import numpy as np

from . import _places
from ._select import make_select
from .catalog import read_record
from .client import Client, Message
from .errors import ForkedError, InvalidError, NotFoundError, ProtocolError

_INDICES_INLINE: Final = 2048  # those of a message that certainly fits a packet
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_FIRST_LOOK, _LONGEST_LOOK = 0.01, 0.5  # seconds between two looks at a hint that is waited for


@dataclass(frozen=True)
class HintInfo:
    """What the daemon says of a hint; sizes in bytes.

    Attributes
    ----------
    id, dataset, kind : str
        The hint, its dataset, and what it names: "indices", "files", or a sampler's kind.
    state : "active", "complete", "incomplete", "spent" or "failed"
        It is being fetched; all of it is there; all of it was asked for, and
        ``failed_fetches`` failed; its budget is used up; ``problem`` says why.
    problem : str
        Why it failed, or the first of its fetches that did.
    samples, bytes : int
        What was announced.
    resident_bytes, resident_share : int, float
        What of it was in memory when the hint was taken in. ``estimated`` says whether this
        and ``bytes`` are extrapolated from some of the samples.
    budget_bytes, fetch_bytes, fetched_bytes : int
        What may be fetched at most, what is still to be fetched, what was.
    failed_fetches : int
        Fetches that failed. What they were for is not there.
    ready_samples : int
        Samples that were brought or found, in the order of their use.
    read_share : float
        Of these, those that sessions have read since.
    ready_at, ready_unknown : str
        When all of it will be there (RFC 3339), or why that is not known.
    """

    id: str
    dataset: str = ""
    kind: str = ""
    state: str = ""
    problem: str = ""
    samples: int = 0
    bytes: int = 0
    resident_bytes: int = 0
    resident_share: float = 0.0
    estimated: bool = False
    budget_bytes: int = 0
    fetch_bytes: int = 0
    fetched_bytes: int = 0
    failed_fetches: int = 0
    ready_samples: int = 0
    read_share: float = 0.0
    ready_at: str = ""
    ready_unknown: str = ""


class Hint:
    """A hint whose lease lasts until :meth:`end`, the end of a ``with``, or that of the process."""

    def __init__(self, client: Client, info: HintInfo) -> None:
        self._client = client
        self._ended = False
        self.info = info

    @property
    def id(self) -> str:
        """The daemon's name for it, as ``stoker hint ls`` shows it."""
        return self.info.id

    @property
    def resident(self) -> int:
        """Bytes of it that were in memory when it was taken in."""
        return self.info.resident_bytes

    @property
    def resident_share(self) -> float:
        """The same as a part of all its bytes."""
        return self.info.resident_share

    @property
    def ready_at(self) -> datetime | None:
        """When all of it will be there, as far as was known at the last look; None: not known."""
        return _moment(self.info.ready_at)

    @property
    def complete(self) -> bool:
        """Whether all of it was there at the last look."""
        return self.info.state == "complete"

    def look(self) -> HintInfo:
        """Ask the daemon how far it is.

        Raises
        ------
        StokerError
            NotFoundError if it has ended, DaemonGoneError if the daemon has.
        """
        if self._client.pid != os.getpid():
            raise ForkedError(
                f"the hint is of process {self._client.pid}", self.id, "announce another one in the forked child"
            )
        if self._ended:
            raise NotFoundError("the hint was ended here", self.id, "announce another one")
        self.info = ask_hint(self._client, {"type": "hint_info", "id": self.id})
        return self.info

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing more is to be fetched, at most so many seconds.

        Returns whether all of it is there: False after the time, if its budget is used
        up before, or if fetches of it failed. ``info.state`` says which: "active", "spent",
        "incomplete" or "failed".

        Raises
        ------
        StokerError
            As :meth:`look`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while self.look().state == "active":
            if until is not None:
                pause = min(pause, until - time.monotonic())
                if pause <= 0:
                    return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        return self.complete

    def end(self) -> None:
        """End it: nothing more is fetched. What was fetched stays. Harmless when it has ended."""
        self._ended = True
        self._client.close()

    def __enter__(self) -> Hint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        info = self.info
        return f"<stoker.Hint {info.id} of {info.dataset}: {info.ready_samples} of {info.samples} ready, {info.state}>"


@dataclass(frozen=True)
class HintRequest:
    """A hint that was checked, and can be sent."""

    message: Message
    indices: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def send(self, client: Client) -> HintInfo:
        """Announce it over a connection."""
        if self.indices is None:
            return ask_hint(client, {"type": "hint", "hint": self.message})
        if len(self.indices) <= _INDICES_INLINE:
            return ask_hint(client, {"type": "hint", "hint": {**self.message, "indices": self.indices.tolist()}})
        request = {"type": "hint", "hint": self.message, "indices": len(self.indices)}
        descriptor = os.memfd_create("stoker-hint", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as memory:
                memory.write(self.indices.astype("<i8", copy=False).tobytes())
            return ask_hint(client, request, descriptor)
        finally:
            os.close(descriptor)


def hint(
    dataset: str,
    *,
    indices: Iterable[int] | None = None,
    sampler: str | Mapping[str, Any] | None = None,
    window: tuple[int, int] | None = None,
    files: Iterable[str | tuple[str, int, int]] | None = None,
    deadline: float | None = None,
    rate: float | None = None,
    priority: float | None = None,
    budget_bytes: int | None = None,
    block_size: int | None = None,
    select: Any = None,
    index_id: str = "",
    job_id: str | None = None,
    runtime_dir: str | os.PathLike[str] | None = None,
) -> Hint:
    """Announce what will be read of a dataset: one of ``indices``, ``sampler`` and ``files``.

    Parameters
    ----------
    dataset : str
        Its name.
    indices : iterable of int
        Numbers of samples, in the order of their use.
    sampler : str or mapping
        An order that the daemon computes: its kind ("global", "windowed", "sequential",
        "torch" or "numpy"), or a mapping of kind, seed, epoch, epochs, rank, world_size,
        batch_size, drop_last, window and seeding.
    window : (int, int)
        The part of the sampler's order that is meant: its first place, and how many samples.
    files : iterable of str or (str, int, int)
        Files of the dataset by their paths in it, or a path with an offset and a length.
    deadline : float
        Seconds from now within which all of it should be there.
    rate : float
        Samples a second at which it will be read. With neither it is fetched as fast as
        other needs leave room.
    priority : float
        Weight beside other jobs where a link is too narrow; default 1.
    budget_bytes : int
        What may be fetched at most; default: what the daemon allows. What is in memory
        already costs nothing.
    block_size : int
        Tokens of a row, for datasets of tokens.
    select : as in :class:`stoker.Dataset`
        The parts of tar samples that will be read; default: all.
    index_id : str
        Refuse any other index of the dataset than this.

    Raises
    ------
    StokerError
        Among others NotFoundError, InvalidError, OutOfRangeError, LimitError, and
        DaemonNotRunningError.
    """
    request = make_hint(
        dataset,
        indices=indices,
        sampler=sampler,
        window=window,
        files=files,
        deadline=deadline,
        rate=rate,
        priority=priority,
        budget_bytes=budget_bytes,
        block_size=block_size,
        select=select,
        index_id=index_id,
        job_id=_places.job_identity(job_id),
    )
    client = Client(runtime_dir)
    try:
        return Hint(client, request.send(client))
    except BaseException:
        client.close()
        raise


def make_hint(
    dataset: str,
    *,
    indices: Iterable[int] | None = None,
    sampler: str | Mapping[str, Any] | None = None,
    window: tuple[int, int] | None = None,
    files: Iterable[str | tuple[str, int, int]] | None = None,
    deadline: float | None = None,
    rate: float | None = None,
    select: Any = None,
    **more: Any,
) -> HintRequest:
    """Check what can be checked here; the daemon knows the rest. See :func:`hint`."""
    if sum(named is not None for named in (indices, sampler, files)) != 1:
        raise InvalidError(
            "a hint names one of indices, sampler and files", "hint", "pass one of them, or announce each by itself"
        )
    message: Message = {"dataset": dataset}
    message.update({name: value for name, value in more.items() if value not in (None, "")})
    for name in ("budget_bytes", "block_size"):
        if name in message:
            message[name] = _whole(name, message[name])
    for name, value in (("deadline_seconds", deadline), ("samples_per_second", rate)):
        if value is not None:
            message[name] = _finite(name, value)
    if "priority" in message:
        message["priority"] = _finite("priority", message["priority"])
    if sampler is not None:
        message["sampler"] = _sampler(sampler)
    if window is not None:
        message["window"] = _window(window)
    if files is not None:
        if isinstance(files, (str, os.PathLike)):
            raise InvalidError(f"files={files!r:.80} is one path", "files", "pass a list of them")
        message["files"] = [_file(file) for file in files]
    columns = make_select(select)
    if columns is not None:
        message["select"] = [{"name": name, "parts": list(parts)} for name, parts in columns]
    return HintRequest(message, None if indices is None else _numbers(indices))


def ask_hint(client: Client, request: Message, *descriptors: int) -> HintInfo:
    """Ask something about a hint over a connection."""
    answer, _ = client.request(request, "hinted", descriptors=descriptors)
    return read_record(HintInfo, answer.get("hint"))


def _numbers(indices: Iterable[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices as int64; raises InvalidError for what is no list of whole numbers."""
    try:
        if not isinstance(indices, np.ndarray):
            # A tensor is quick to turn into a list, and slow to iterate.
            indices = indices.tolist() if hasattr(indices, "tolist") else list(indices)
        found = np.asarray(indices)
        if found.ndim == 1 and found.dtype.kind == "O":  # of tensors, or too large
            found = np.array([operator.index(index) for index in indices], np.int64)
    except (TypeError, ValueError, OverflowError):
        found = np.zeros((1, 1))  # no list at all, or one of something else
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise InvalidError(f"indices={indices!r:.80} are no whole numbers", "indices", "pass numbers of samples")
    if found.dtype == np.uint64 and (found >= 1 << 63).any():
        raise InvalidError("an index is beyond all samples", "indices", "pass numbers of samples")
    return found.astype(np.int64, copy=False)


def _whole(name: str, value: Any) -> int:
    """A count, which no text and no float is; raises InvalidError for one that is none."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise InvalidError(
        f"{name} is {value!r:.80}, of type {type(value).__name__}",
        name,
        "pass an int, such as 1 << 30, or leave it out",
    )


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise InvalidError(f"{name} is {value!r:.80}", name, "pass a number above 0, or leave it out")
    return number


def _sampler(sampler: str | Mapping[str, Any]) -> Message:
    """A sampler as a message has it; numpy's numbers become Python's."""
    if isinstance(sampler, str):
        return {"kind": sampler}
    if not isinstance(sampler, Mapping):
        raise InvalidError(
            f"sampler={sampler!r:.80} is neither a kind nor a mapping",
            "sampler",
            "pass a kind such as 'torch' with its parameters, or wrap a sampler of your own in stoker.prefetching",
        )
    try:
        return {
            str(name): value if isinstance(value, (str, bool)) else operator.index(value)
            for name, value in sampler.items()
        }
    except TypeError:
        raise InvalidError(
            f"sampler={dict(sampler)!r:.80} holds what is no whole number", "sampler", "pass what stoker.hint documents"
        ) from None


def _window(window: tuple[int, int]) -> Message:
    try:
        first, count = window
        return {"from": operator.index(first), "count": operator.index(count)}
    except (TypeError, ValueError):
        raise InvalidError(
            f"window={window!r:.80} is no pair of whole numbers", "window", "pass its first place and its length"
        ) from None


def _file(file: str | tuple[str, int, int]) -> Message:
    if isinstance(file, (str, os.PathLike)):
        return {"path": os.fspath(file)}
    try:
        path, offset, length = file
        return {"path": os.fspath(path), "offset": operator.index(offset), "length": operator.index(length)}
    except (TypeError, ValueError):
        raise InvalidError(
            f"{file!r:.80} is no file", "files", "pass paths, or tuples of path, offset and length"
        ) from None


def _moment(text: str) -> datetime | None:
    """A time as the daemon writes it: Go's digits of a second are up to nine, Python 3.10 reads six."""
    if not text:
        return None
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ProtocolError(f"the daemon told a time as {text!r:.80}", "session socket")
    seconds, fraction, zone = found.groups(default="")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}{zone.replace('Z', '+00:00')}")

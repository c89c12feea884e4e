"""Datasets by name: adding, listing, describing, and single samples.

Adding passes an open descriptor of the directory, so the daemon reads with the
caller's rights and a path means what the caller sees, also from a container.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from .client import Client, read_all
from .errors import NotFoundError, OutOfRangeError, PermissionDeniedError, ProtocolError, UnavailableError


@dataclass(frozen=True)
class DatasetInfo:
    """What the daemon knows of a dataset; sizes in bytes.

    ``state`` is "ready", or "detached" if its directory must be passed again
    with :func:`add_dataset` before it can be read; ``problem`` says why.
    ``skipped`` counts files that were left out, by reason; ``saw`` is what the
    scan recognised, in words.
    """

    name: str
    format: str = ""
    path: str = ""
    state: str = ""
    owner_uid: int = -1
    added_at: str = ""
    index_id: str = ""
    samples: int = 0
    tokens: int = 0
    dtype: str = ""
    files: int = 0
    bytes: int = 0
    classes: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    saw: str = ""
    problem: str = ""


class Progress(NamedTuple):
    """How far building a dataset's index is."""

    files_done: int
    files_total: int
    bytes_done: int


def add_dataset(
    name: str,
    directory: str | os.PathLike[str],
    *,
    format: str = "auto",
    include: Sequence[str] = (),
    dtype: str = "uint16",
    replace: bool = False,
    progress: Callable[[Progress], None] | None = None,
    runtime_dir: str | os.PathLike[str] | None = None,
) -> DatasetInfo:
    """Give a directory of files a name; returns when its index is built.

    Parameters
    ----------
    name : str
        What ``stoker.Dataset(name)`` will refer to.
    directory : path
        Where the files are. Nothing is copied.
    format : "auto", "raw" or "tokens"
        Whole files as samples, or files of tokens cut into rows.
    include : sequence of str
        Globs relative to the directory, braces allowed: ``"**/*.{jpg,png}"``. Empty: all files.
    dtype : str
        Element type of token files that do not say it themselves.
    replace : bool
        Replace a dataset of this name.
    progress : callable, optional
        Called with a :class:`Progress` now and then.

    Raises
    ------
    StokerError
        Among others ConflictError (the name is taken), InvalidError (nothing in
        the directory), CorruptError (a file that is not of its format).
    """
    if isinstance(include, str):
        include = [include]
    request = {
        "type": "dataset_add",
        "name": name,
        "format": format,
        "path": os.path.abspath(directory),
        "include": list(include),
        "dtype": dtype,
        "replace": bool(replace),
    }
    descriptor = _open_directory(directory)
    try:
        client = Client(runtime_dir, timeout=None)
        try:
            answer, _ = client.request(
                request, "dataset", descriptors=[descriptor], progress=_progress_reader(progress)
            )
        finally:
            client.close()
    finally:
        os.close(descriptor)
    return _info(answer.get("dataset"))


def list_datasets(*, runtime_dir: str | os.PathLike[str] | None = None) -> list[DatasetInfo]:
    """All datasets of this user's daemon."""
    client = Client(runtime_dir)
    try:
        answer, _ = client.request({"type": "dataset_list"}, "datasets")
    finally:
        client.close()
    return [_info(item) for item in answer.get("datasets") or ()]


def dataset_info(name: str, *, runtime_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """One dataset; raises NotFoundError if there is none of this name."""
    client = Client(runtime_dir)
    try:
        return ask_info(client, name)
    finally:
        client.close()


def ask_info(client: Client, name: str) -> DatasetInfo:
    """As :func:`dataset_info`, over a connection that is there already."""
    answer, _ = client.request({"type": "dataset_info", "name": name}, "dataset")
    return _info(answer.get("dataset"))


_Read = TypeVar("_Read")


class Found(NamedTuple):
    """One sample's bytes as the daemon sent them, in memory of their own."""

    key: str
    columns: list[dict[str, Any]]
    data: bytearray


class Control:
    """A connection for questions apart from any session: one a process, safe for threads.

    A forked child does not use its parent's: it makes one of its own.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._client: Client | None = None

    def sample(self, name: str, index: int, block_size: int | None) -> Found:
        """Fetch one sample by its number in the dataset.

        Raises
        ------
        OutOfRangeError
            There is no sample of this number.
        """
        request: dict[str, Any] = {"type": "sample", "dataset": name, "index": index}
        if block_size is not None:
            request["block_size"] = block_size
        return self._ask(request, "sample", lambda answer, descriptors: _found(answer, descriptors, f"{name}[{index}]"))

    def info(self, name: str) -> DatasetInfo:
        """As :func:`dataset_info`."""
        request = {"type": "dataset_info", "name": name}
        return self._ask(request, "dataset", lambda answer, _: _info(answer.get("dataset")))

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, request: dict[str, Any], answer: str, read: Callable[[dict[str, Any], list[int]], _Read]) -> _Read:
        """Ask, and ``read`` the answer and its descriptors.

        Under the lock, because the daemon takes the memory behind an answer's
        descriptors back when the connection's next request comes.
        """
        if self._pid != os.getpid():  # the parent's other threads may have held the lock at the fork
            self._pid, self._lock, self._client = os.getpid(), threading.Lock(), None
        with self._lock:
            reused = self._client is not None and not self._client.closed
            if not reused:
                self._client = self._connect()
            client = self._client
            assert client is not None
            try:
                return read(*client.request(request, answer))
            except (NotFoundError, OutOfRangeError):
                raise
            except Exception:
                client.close()
                if not reused:
                    raise
            # A connection that lay idle may belong to a daemon that has ended since; questions may be repeated.
            self._client = self._connect()
            return read(*self._client.request(request, answer))


def _found(answer: dict[str, Any], descriptors: list[int], where: str) -> Found:
    """Copy a sample out of the memory that came with its answer."""
    try:
        size = answer.get("bytes")
        if not isinstance(size, int) or size < 0 or not isinstance(answer.get("columns"), list):
            raise ProtocolError(f"the daemon described a sample as {answer!r:.200}", "session socket")
        if not descriptors:
            raise UnavailableError(
                "the descriptor of the sample's memory did not arrive, as in some sandboxes",
                where,
                "iterate the Dataset instead, which falls back to the socket",
            )
        return Found(str(answer.get("key") or ""), answer["columns"], read_all(descriptors[0], size))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _open_directory(directory: str | os.PathLike[str]) -> int:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{os.fspath(directory)!r}: {error.strerror}", str(directory), "pass a directory that exists"
        ) from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"the directory cannot be read by uid {os.getuid()}", str(directory), "change its mode or owner"
        ) from error


def _progress_reader(progress: Callable[[Progress], None] | None) -> Callable[[dict[str, Any]], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda message: report(Progress._make(int(message.get(name) or 0) for name in Progress._fields))


def _info(described: object) -> DatasetInfo:
    if not isinstance(described, dict) or not isinstance(described.get("name"), str):
        raise ProtocolError(f"the daemon described a dataset as {described!r:.200}", "session socket")
    names = [known.name for known in fields(DatasetInfo)]
    values = {name: described[name] for name in names if described.get(name) is not None}
    values["classes"] = tuple(values.get("classes") or ())
    return DatasetInfo(**values)

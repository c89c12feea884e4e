"""Datasets by name: adding, listing, describing, and single samples.

Adding passes an open descriptor of the directory, so the daemon reads with the
caller's rights and a path means what the caller sees, also from a container.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple, TypeVar

from ._shown import shown_names
from .client import Client, read_all
from .errors import InvalidError, NotFoundError, OutOfRangeError, PermissionDeniedError, ProtocolError, UnavailableError
from .sample import SampleName

_KEYS_A_REQUEST: Final = (
    2048  # of the 4096 that the daemon answers at once: they have to fit a packet, whatever they are
)


@dataclass(frozen=True)
class PartInfo:
    """One part that samples of a tar dataset have: in how many of them, and its bytes in all and at most."""

    name: str
    samples: int = 0
    bytes: int = 0
    max_bytes: int = 0


@dataclass(frozen=True)
class DatasetInfo:
    """What the daemon knows of a dataset; sizes in bytes.

    ``state`` is "ready", or "detached" if its directory must be passed again
    with :func:`add_dataset` before it can be read; ``problem`` says why.
    ``skipped`` counts files that were left out, by reason; ``saw`` is what the
    scan recognised, in words. Of tar datasets, ``parts`` says what samples are made
    of, ``archives`` counts shards by how they are stored, and ``indexes`` by what
    became of indexes that lie beside them.
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
    parts: tuple[PartInfo, ...] = ()
    archives: dict[str, int] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    saw: str = ""
    problem: str = ""


class Progress(NamedTuple):
    """How far reading a dataset is; totals are 0 while they are not known."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int = 0
    samples_done: int = 0


def add_dataset(
    name: str,
    directory: str | os.PathLike[str],
    *,
    format: str = "auto",
    include: Sequence[str] = (),
    dtype: str = "uint16",
    bad: str = "fail",
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
    format : "auto", "raw", "tokens" or "tar"
        Whole files as samples, files of tokens cut into rows, or tar shards of
        samples as WebDataset writes them.
    include : sequence of str
        Globs relative to the directory, braces allowed: ``"**/*.{jpg,png}"``. Empty: all files.
    dtype : str
        Element type of token files that do not say it themselves.
    bad : "fail" or "skip"
        What to do with damaged files and samples: refuse the dataset, or leave them
        out; :attr:`DatasetInfo.skipped` counts them.
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
        "bad": bad,
        "replace": bool(replace),
    }
    return _info(long_request(request, "dataset", directory, progress_notes(progress), runtime_dir).get("dataset"))


def rebuild_dataset(
    name: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    runtime_dir: str | os.PathLike[str] | None = None,
) -> DatasetInfo:
    """Read a dataset's directory again, where it has changed, and build its index anew.

    Sessions that are open keep the index that they have. ``progress`` is called with a
    :class:`Progress` now and then.

    Raises
    ------
    StokerError
        As :func:`add_dataset`; NotFoundError if there is no dataset of this name.
    """
    request = {"type": "dataset_rebuild", "name": name}
    return _info(long_request(request, "dataset", None, progress_notes(progress), runtime_dir).get("dataset"))


def long_request(
    request: dict[str, Any],
    answer: str,
    directory: str | os.PathLike[str] | None,
    notes: dict[str, Callable[[dict[str, Any]], None]],
    runtime_dir: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Ask for something that may take its time, over a connection of its own; ``directory`` goes along."""
    descriptors = [] if directory is None else [_open_directory(directory)]
    try:
        client = Client(runtime_dir, timeout=None)
        try:
            return client.request(request, answer, descriptors=descriptors, notes=notes)[0]
        finally:
            client.close()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


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

    name: SampleName
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

    def sample(self, name: str, index: int, more: dict[str, Any]) -> Found:
        """Fetch one sample by its number in the dataset; ``more`` goes into the request.

        Raises
        ------
        OutOfRangeError
            There is no sample of this number.
        """
        request = {"type": "sample", "dataset": name, "index": index, **more}
        return self._ask(request, "sample", lambda answer, descriptors: _found(answer, descriptors, f"{name}[{index}]"))

    def names(self, name: str, more: dict[str, Any], samples: Sequence[int]) -> list[SampleName]:
        """Files and keys of samples by their numbers; ``more`` goes into the requests.

        Raises
        ------
        OutOfRangeError
            There is no sample of one of the numbers.
        """
        found: list[SampleName] = []
        for begin in range(0, len(samples), _KEYS_A_REQUEST):
            asked = list(samples[begin : begin + _KEYS_A_REQUEST])
            request = {"type": "keys", "dataset": name, "samples": asked, **more}
            found += self._ask(request, "keys", lambda answer, _: _names(answer))
        if len(found) != len(samples):
            raise ProtocolError(f"the daemon named {len(found)} of {len(samples)} samples", "session socket")
        return found

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
        return Found(_name(answer), answer["columns"], read_all(descriptors[0], size))
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


def _names(answer: dict[str, Any]) -> list[SampleName]:
    keys = answer.get("keys")
    if not isinstance(keys, list) or not all(isinstance(item, dict) for item in keys):
        raise ProtocolError(f"the daemon named samples as {answer!r:.200}", "session socket")
    return [_name(item) for item in keys]


def _name(described: dict[str, Any]) -> SampleName:
    return SampleName(whole_text(described, "file"), whole_text(described, "key"))


def whole_text(described: dict[str, Any], field: str) -> str:
    """A file or key as Python names files: bytes that are no UTF-8 are lone surrogates.

    Raises
    ------
    ProtocolError
        Its bytes are not as the protocol says.
    """
    encoded = described.get(f"{field}_bytes")
    if encoded is None:
        return str(described.get(field) or "")
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
    except (TypeError, ValueError):
        raise ProtocolError(f"the daemon named a sample as {described!r:.200}", "session socket") from None


def refuse_lacking(columns: Sequence[Sequence[str]], info: DatasetInfo) -> None:
    """Refuse columns of numbers, given by their parts, that samples of a dataset certainly lack.

    Raises
    ------
    InvalidError
        Naming the first.
    """
    have = {part.name: part.samples for part in info.parts}
    for parts in columns:
        lack = info.samples - sum(have.get(part, 0) for part in parts)
        if lack > 0:
            at_least = "" if len(parts) == 1 else "at least "
            raise InvalidError(
                f"{at_least}{lack} of {info.samples} samples lack {shown_names(map(repr, parts))}, "
                "and a column of numbers has no place for nothing",
                info.name,
                "leave the part out with select=, pass decode=False for the bytes, or a transform=, where the value is "
                "None",
            )


def progress_notes(progress: Callable[[Progress], None] | None) -> dict[str, Callable[[dict[str, Any]], None]]:
    if progress is None:
        return {}
    report = progress
    return {"progress": lambda note: report(Progress._make(int(note.get(name) or 0) for name in Progress._fields))}


def _info(described: object) -> DatasetInfo:
    info = read_record(DatasetInfo, described)
    parts = tuple(read_record(PartInfo, part) for part in info.parts)
    return replace(info, classes=tuple(info.classes), parts=parts)


_Record = TypeVar("_Record")


def read_record(kind: type[_Record], described: object) -> _Record:
    """A dataclass of what the daemon sent; what is not there keeps its default.

    Raises
    ------
    ProtocolError
        It is no object, or lacks what has no default.
    """
    if not isinstance(described, dict):
        raise ProtocolError(f"the daemon described a {kind.__name__} as {described!r:.200}", "session socket")
    names = [known.name for known in fields(kind)]  # type: ignore[arg-type]
    try:
        return kind(**{name: described[name] for name in names if described.get(name) is not None})
    except TypeError as error:
        raise ProtocolError(
            f"the daemon described a {kind.__name__} as {described!r:.200}: {error}", "session socket"
        ) from None

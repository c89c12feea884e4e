"""Fixtures: a real daemon on directories of its own, and datasets made for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker

REPOSITORY = Path(__file__).resolve().parents[2]


def binary(name: str) -> str:
    """The path of one of our programs, from the environment or the build directory."""
    path = os.environ.get(name.upper()) or str(REPOSITORY / "bin" / name)
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is not there: run `make build`, or set {name.upper()} to the program")
    return path


def eventually(holds: Callable[[], bool], seconds: float = 1.0) -> bool:
    """Whether something becomes true within a time."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("stoker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.fspath(self._path))


class Daemon:
    """A stokerd in directories under ``root``; ends with the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime_dir = root / "run"
        self.data_dir = root / "data"
        self.log = root / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> Daemon:
        """Start it, with ``more`` arguments, and wait until it listens."""
        arguments = ["--runtime-dir", str(self.runtime_dir), "--data-dir", str(self.data_dir), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([binary("stokerd"), *arguments], stderr=log, stdout=log)
        if not eventually(self._listens, 20):
            raise RuntimeError(f"stokerd does not listen; its log:\n{self.log.read_text()}")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it with a signal and wait for it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.stop(signal.SIGKILL)

    def get(self, path: str) -> Any:
        """A GET of the HTTP API."""
        connection = _UnixConnection(self.runtime_dir / "api.sock")
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, f"{path}: {answer.status} {body!r}"
            return json.loads(body) if path.startswith("/v1") else body.decode()
        finally:
            connection.close()

    def sessions(self) -> list[dict[str, Any]]:
        """The open sessions."""
        answer = self.get("/v1/sessions")
        found: list[dict[str, Any]] = answer["sessions"] if isinstance(answer, dict) else answer
        return found

    def holdings(self) -> tuple[int, int]:
        """How many descriptors that are no files, and how many mappings of shared memory, the daemon has."""
        maps = Path(f"/proc/{self.pid}/maps").read_text()
        folder, links = Path(f"/proc/{self.pid}/fd"), []
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(folder / name))
        return sum(not link.startswith("/") or "memfd:" in link for link in links), maps.count("/memfd:")

    def dataset(self, name: str, **options: Any) -> stoker.Dataset:
        """A Dataset of this daemon; ends with the test if it is closed, or when it is collected."""
        return stoker.Dataset(name, runtime_dir=self.runtime_dir, **options)

    def add(self, name: str, directory: Path, **options: Any) -> stoker.DatasetInfo:
        """Add a dataset to this daemon."""
        return stoker.add_dataset(name, directory, runtime_dir=self.runtime_dir, **options)

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"stokerd ended with {self.process.returncode}; its log:\n{self.log.read_text()}")
        try:
            return self.get("/readyz") is not None
        except (OSError, AssertionError):
            return False


def write_tokens(directory: Path, rows: int, block_size: int) -> Path:
    """A token file whose row i begins with i and i >> 16 and goes on with i * 31 + column."""
    directory.mkdir(parents=True, exist_ok=True)
    number = np.arange(rows)[:, None]
    tokens = (number * 31 + np.arange(block_size)).astype(np.uint16)
    tokens[:, 0], tokens[:, 1] = number[:, 0] & 0xFFFF, number[:, 0] >> 16
    # Rows overlap by one token: y of a row ends with the first token of the next.
    (directory / "train.bin").write_bytes(np.append(tokens.reshape(-1), 0).astype(np.uint16).tobytes())
    return directory


def raw_content(number: int) -> bytes:
    """What the file of this number holds: its number again and again, of a length that differs."""
    return number.to_bytes(4, "little") * (1 + number * 37 % 300)


def write_raw(directory: Path, files: int, content: Callable[[int], bytes] = raw_content) -> Path:
    """Files in two classes; sample i, in the order of names within classes, holds ``content(i)``."""
    for number in range(files):
        folder = directory / ("cat" if number < files // 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.dat").write_bytes(content(number))
    return directory


@pytest.fixture(autouse=True)
def _environment_of_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("STOKER_RUNTIME_DIR", raising=False)


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for the tests of one module, with the datasets ``tokens`` and ``files``."""
    root = tmp_path_factory.mktemp("daemon")
    daemon = Daemon(root).start()
    daemon.add("tokens", write_tokens(root / "tokens", ROWS, BLOCK))
    daemon.add("files", write_raw(root / "files", FILES), format="raw")
    yield daemon
    daemon.stop()


ROWS, BLOCK, FILES = 1000, 16, 300


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of one test's own, which it may kill."""
    daemon = Daemon(tmp_path).start()
    yield daemon
    daemon.stop()

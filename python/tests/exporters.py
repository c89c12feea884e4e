"""A real process that exports slabs of device memory.

Used by the tests, on Stoker's stand-in for libcuda (STUB), and by `make gpu-check`,
beside whose programs this file is copied.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

_HERE = Path(__file__).resolve().parent
PROGRAMS = _HERE if (_HERE / "exporter").exists() else _HERE.parents[1] / "bin" / "gpucheck"
GOLDEN = 0x9E3779B97F4A7C15


def program(name: str) -> str:
    """One of the programs and libraries that `make gpu-programs` builds."""
    path = PROGRAMS / name
    if not path.exists():
        raise RuntimeError(f"{path} is not there: run `make gpu-programs`")
    return str(path)


def pattern(count: int, seed: int, offset: int = 0) -> npt.NDArray[np.uint8]:
    """The bytes that an exporter's slab holds from ``offset`` on, a multiple of 8."""
    words = np.arange(offset // 8, (offset + count + 7) // 8, dtype=np.uint64)
    octets: npt.NDArray[np.uint8] = (words * np.uint64(GOLDEN) + np.uint64(seed)).view(np.uint8)
    return octets[:count]


def stub_environment(state: Path | None = None) -> dict[str, str]:
    """What makes a process use the stand-in, and share its memory's books with others on the same file."""
    environment = {"STOKER_CUDA_LIB": program("stub/libcuda.so.1"), "STOKER_STUB_QUIET": "1"}
    if state is not None:
        environment["STOKER_STUB_STATE"] = str(state)
    return environment


class Exporter:
    """The program ``exporter`` with one slab; ends with the ``with`` block.

    ``environment`` is what it gets besides PATH; without one, that of the stand-in
    with its books in ``state``.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        state: Path | None = None,
        seqpacket: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environment = stub_environment(state) if environment is None else environment
        self.socket_path = folder / "slab.sock"
        self.socket_path.unlink(missing_ok=True)
        self._kind = socket.SOCK_SEQPACKET if seqpacket else socket.SOCK_STREAM
        arguments = (*arguments, "-seqpacket") if seqpacket else arguments
        self.process = subprocess.Popen(
            [program("exporter"), "-socket", str(self.socket_path), *arguments],
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.shared = self._line()

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to one command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self._line()
        assert "error" not in answer, answer["error"]
        return answer

    def connect(self) -> socket.socket:
        """A connection, over which the slab comes."""
        connection = socket.socket(socket.AF_UNIX, self._kind)
        connection.settimeout(30)
        connection.connect(str(self.socket_path))
        return connection

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """End it in order; it must find nothing wrong."""
        if self.process.returncode is None:
            self.ask("stop")
            self._reap()
            assert self.process.returncode == 0

    def _reap(self) -> None:
        self.process.wait(30)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the exporter ended with {self.process.wait(30)}; its error is above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        elif self.process.returncode is None:
            self.kill()

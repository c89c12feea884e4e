"""A stokerd of one's own, for as long as a `with` block runs."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

READY_SECONDS = 15.0
STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl
_LOG_LINES = 30


class DaemonError(Exception):
    """The daemon did not start or did not stop as it should."""


def _stop_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, however it dies. Runs between fork and exec."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Daemon:
    """Starts stokerd in folders of its own; leaving the block stops it and waits.

    It runs in a session of its own, so that Ctrl-C reaches the trainer first and
    the daemon is then stopped in order.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self.runtime = folder / "run"
        self.log = folder / "stokerd.log"
        self._command = [str(binary), "--runtime-dir", str(self.runtime), "--data-dir", str(folder / "data")]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])

    def __enter__(self) -> Daemon:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_stop_with_parent,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            status = self._process.poll()
            if status is not None:
                raise DaemonError(f"stokerd ended with status {status} before it was ready")
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                try:
                    probe.connect(str(self.runtime / "session.sock"))
                    return
                except OSError:
                    time.sleep(0.02)
        raise DaemonError(f"stokerd was not ready within {READY_SECONDS:.0f} s")

    def _stop(self) -> int | None:
        """Send SIGTERM and wait; None if it had to be killed."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self._stop()
        if status is None:
            raise DaemonError(f"stokerd did not stop within {STOP_SECONDS:.0f} s of SIGTERM and was killed")
        if status != 0:
            raise DaemonError(f"stokerd ended with status {status}")
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return
        raise DaemonError("stokerd left a process of its own behind")

"""Either side killed, in either order: the other goes on, and the memory comes back (STUB)."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, eventually
from exporters import Exporter, pattern, stub_environment

from stoker import _cuda
from stoker._cudriver import CudaDriver

BYTES = 8 << 20
TIMES = 20
CLIENT = """
import json, socket, sys
sys.path.insert(0, {package!r})
from stoker import _cuda
connection = socket.socket(socket.AF_UNIX)
connection.connect({path!r})
slab = _cuda.receive_slab(connection)
print(json.dumps({{"mapped": slab.mapped_bytes, "first": slab.read(0, 16).hex()}}), flush=True)
sys.stdin.read()
print(json.dumps({{"still": slab.read(slab.nbytes - 16, 16).hex()}}), flush=True)
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The books of the machine's device memory, empty before the test and after it."""
    path = tmp_path / "state"
    for name, value in stub_environment(path).items():
        monkeypatch.setenv(name, value)
    yield path
    gc.collect()
    assert used() == 0


def used() -> int:
    """Bytes of the first GPU that some process has."""
    free, total = CudaDriver().memory(0)
    return total - free


class Client:
    """A process that maps the slab and holds it until it is told to look once more, or killed."""

    def __init__(self, exporter: Exporter) -> None:
        program = CLIENT.format(package=str(REPOSITORY / "python"), path=str(exporter.socket_path))
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        self.first = self._line()

    def look(self) -> Any:
        """What it reads at the end of the slab; it ends with that."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        answer = self._line()
        assert self.process.wait(30) == 0
        self._close()
        return answer

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self._close()

    def _close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client ended with {self.process.wait(30)}"
        return json.loads(line)


def last(count: int = 16) -> str:
    return pattern(BYTES, 1)[-count:].tobytes().hex()


def test_a_client_that_is_killed_gives_everything_back(tmp_path: Path, state: Path) -> None:
    with Exporter(tmp_path, "-bytes", str(BYTES), state=state) as exporter:
        alone = used()
        assert alone == exporter.shared["mapped_bytes"]
        for _ in range(TIMES):
            client = Client(exporter)
            assert client.first["first"] == pattern(16, 1).tobytes().hex()
            client.kill()
            assert eventually(lambda: exporter.ask("clients")["clients"] == 0, 10)
            assert used() == alone
        assert exporter.ask("check 1") == {"wrong_at": -1}


def test_what_is_mapped_outlives_the_exporter(tmp_path: Path, state: Path) -> None:
    for _ in range(TIMES):
        exporter = Exporter(tmp_path, "-bytes", str(BYTES), state=state)
        with exporter.connect() as connection:
            slab = _cuda.receive_slab(connection)
        tensor = slab.tensor((BYTES,))
        exporter.kill()
        assert used() == slab.mapped_bytes
        assert np.array_equal(tensor.numpy(), pattern(BYTES, 1))
        slab.close()
        assert used() == slab.mapped_bytes
        del tensor
        assert used() == 0


def test_the_last_of_several_to_die_takes_the_memory_with_it(tmp_path: Path, state: Path) -> None:
    exporter = Exporter(tmp_path, "-bytes", str(BYTES), state=state)
    clients = [Client(exporter) for _ in range(3)]
    mapped = clients[0].first["mapped"]
    exporter.kill()
    assert used() == mapped
    clients[0].kill()
    assert used() == mapped
    assert clients[1].look() == {"still": last()}
    assert used() == mapped
    clients[2].kill()
    assert used() == 0


def test_a_legacy_slab_goes_with_its_last_client(tmp_path: Path, state: Path) -> None:
    with Exporter(tmp_path, "-legacy", "-bytes", str(BYTES), state=state) as exporter:
        client = Client(exporter)
        assert client.look() == {"still": last()}
        killed = Client(exporter)
        killed.kill()
        assert eventually(lambda: exporter.ask("clients")["clients"] == 0, 10)

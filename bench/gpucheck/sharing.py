"""T2 and T5: slabs of another process as tensors here, in every state that either side can be in."""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from exporters import Exporter, pattern
from report import Report

from stoker import _cuda
from stoker._cudriver import CudaDriver
from stoker.errors import StokerError

FIRST_TENSOR_MS = 50.0  # what the first tensor over a slab of 1 GiB may take, export and import included
LEASE_US = 200.0  # what each later one may take
FEW = 16 << 20
ALLOWANCE_BYTES = 4 << 20  # pools that the driver keeps, which do not grow
RESERVE_S = 20.0  # of the whole time, to end in order
DTYPES = (
    *("uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
)
CLIENT = """
import os, socket, sys
sys.path[:0] = {paths!r}
import torch
from stoker import _cuda
connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
slab = _cuda.receive_slab(connection)
tensor = slab.tensor((slab.nbytes // 8,), "int64")
print(int(tensor[1]), slab.ordinal, flush=True)
{then}
"""
# Without torch, so that a hundred of them take a minute.
KILLED = """
import os, signal, socket, sys
sys.path[:0] = {paths!r}
from stoker import _cuda
connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
slab = _cuda.receive_slab(connection)
slab.read(0, 4096)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Sharing:
    """The parts, each a method; ``folder`` for a socket, ``many`` bytes for what is timed, ``kills`` of each side."""

    def __init__(self, report: Report, folder: Path, many: int, kills: int) -> None:
        self._report = report
        self._many = many
        self._kills = kills
        self._folder = folder
        if report.stub:  # all processes keep one set of books
            os.environ["STOKER_STUB_STATE"] = str(self._folder / "state")
        self.driver = CudaDriver()

    def exporter(self, count: int, *arguments: str) -> Exporter:
        """A process that shares a slab of ``count`` bytes."""
        return Exporter(self._folder, "-bytes", str(count), *arguments, environment=os.environ)

    @contextmanager
    def slab(self, exporter: Exporter, **options: Any) -> Iterator[_cuda.Slab]:
        """Its slab, mapped here."""
        with exporter.connect() as connection, _cuda.receive_slab(connection, driver=self.driver, **options) as slab:
            yield slab

    def content(self) -> None:
        """Every byte is the exporter's, by descriptor and by legacy IPC, on the GPU and copied back."""
        for name, arguments in {"descriptor": [], "legacy IPC": ["-legacy"]}.items():
            try:
                with self.exporter(FEW, *arguments) as exporter, self.slab(exporter) as slab:
                    right = same(slab.tensor((FEW // 8,), "int64"), 1)
                    right = right and slab.read(0, FEW) == pattern(FEW, 1).tobytes()
                    exporter.ask("fill 2")
                    right = right and same(slab.tensor((FEW // 8,), "int64"), 2)
                    self._report.either(
                        right, "T2", f"shared memory: {name}", f"{FEW} bytes of {slab.device}, compared twice"
                    )
            except StokerError as error:
                legacy = name != "descriptor"
                self._report.check("T2", f"shared memory: {name}", "none" if legacy else "bad", error.what)

    def writable(self) -> None:
        """What is written here the exporter has."""
        with self.exporter(FEW) as exporter, self.slab(exporter, writable=True) as slab:
            slab.tensor((FEW // 8,), "int64").copy_(words(FEW // 8, 7, slab))
            synchronize(slab)
            wrong = exporter.ask("check 7")["wrong_at"]
            self._report.either(wrong == -1, "T2", "writable slab", f"first wrong byte at the exporter: {wrong}")

    def write_fault(self) -> None:
        """A write through a read-only slab ends the writer, and changes nothing."""
        then = "tensor.fill_(1)\nif tensor.is_cuda: torch.cuda.synchronize()\nprint('written', flush=True)"
        with self.exporter(FEW) as exporter:
            done = self._client(exporter, then)
            whole = exporter.ask("check 1")["wrong_at"] == -1
            refused = done.returncode != 0 and "written" not in done.stdout
            reason = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
            self._report.either(refused and whole, "T2", "read-only slab", f"the writer ended: {reason[0]:.200}")

    def reordered(self) -> None:
        """With CUDA_VISIBLE_DEVICES by UUID the GPU is found again; hidden, it is named."""
        with self.exporter(FEW) as exporter:
            uuid = exporter.shared["device"]
            done = self._client(exporter, "", CUDA_VISIBLE_DEVICES=uuid)
            right = done.returncode == 0 and done.stdout.split()[1:] == ["0"]
            self._report.either(right, "T2", "device by UUID", f"CUDA_VISIBLE_DEVICES={uuid}: {last_line(done)}")
            done = self._client(exporter, "", KILLED, CUDA_VISIBLE_DEVICES="")
            refused = done.returncode == 1  # an exception, and no signal: it never had the slab
            self._report.either(refused, "T2", "hidden device", f"CUDA_VISIBLE_DEVICES empty: {last_line(done)}")

    def types(self) -> None:
        """Tensors of every element type over the same bytes, by both ways to make them."""
        wrong, missing = [], []
        with self.exporter(FEW) as exporter, self.slab(exporter) as slab:
            want = slab.read(64, 4096)
            for name in DTYPES:
                if not hasattr(torch, name):
                    missing.append(name)
                    continue
                size = getattr(torch, name).itemsize
                tensor = slab.tensor((2, 2048 // size), name, 64)
                if tensor.view(torch.uint8).cpu().numpy().tobytes() != want:
                    wrong.append(name)
            device = torch.device("cpu") if slab.stub else torch.device("cuda", slab.ordinal)
            bare = _cuda.bytes_at_pointer(torch, slab.address + 64, 4096, device, slab)
            if bare.cpu().numpy().tobytes() != want:
                wrong.append("bare pointer")
            del bare, tensor
        found = f"{len(DTYPES) - len(missing)} types and the bare pointer; wrong: {wrong}; not in this torch: {missing}"
        self._report.either(not wrong, "T5", "element types", found)

    def killed(self) -> None:
        """Either side killed again and again: the other goes on, and the memory comes back."""
        before, ends = self._free(), list[int]()
        with self.exporter(FEW) as exporter:
            while self._more(len(ends)):
                ends.append(self._client(exporter, "", KILLED).returncode)
            wrong = exporter.ask("check 1")["wrong_at"]
        right = wrong == -1 and set(ends) == {-signal.SIGKILL} and self._back(before)
        self._report.either(right, "T5", "clients killed", f"{len(ends)} times; {self._lost(before)}")
        wholes = list[bool]()
        while self._more(len(wholes)):
            exporter = self.exporter(FEW)
            with self.slab(exporter) as slab:
                exporter.kill()
                wholes.append(same(slab.tensor((FEW // 8,), "int64"), 1))
        right = all(wholes) and self._back(before)
        self._report.either(right, "T5", "exporters killed", f"{len(wholes)} times; {self._lost(before)}")

    def _more(self, done: int) -> bool:
        """Whether to kill once more: at least once, then as often as is meant and the time allows."""
        return done == 0 or (done < self._kills and self._report.remaining > RESERVE_S)

    def leaks(self) -> None:
        """Slabs mapped and unmapped again and again leave nothing here."""
        turns = 50 if self.driver.stub else 500
        with self.exporter(FEW) as exporter:
            before, descriptors = self._free(), len(os.listdir("/proc/self/fd"))
            for _ in range(turns):
                with self.slab(exporter) as slab:
                    slab.tensor((1,))
            more = len(os.listdir("/proc/self/fd")) - descriptors
            found = f"{turns} slabs mapped and unmapped; {self._lost(before)}, {more} descriptors"
            self._report.either(self._back(before) and more == 0, "T8", "mappings", found)

    def times(self) -> None:
        """How long the first tensor over a large slab takes, and each later one."""
        firsts, leases = [], []
        with self.exporter(self._many) as exporter:
            for _ in range(5):
                began = time.perf_counter()
                with exporter.connect() as connection:
                    slab = _cuda.receive_slab(connection, driver=self.driver)
                tensor = slab.tensor((self._many,))
                firsts.append(1e3 * (time.perf_counter() - began))
                for at in range(0, 1000 * 4096, 4096):
                    began = time.perf_counter()
                    tensor = slab.tensor((1024,), "float32", at % FEW)
                    leases.append(1e6 * (time.perf_counter() - began))
                del tensor
                slab.close()
        self._report.figure("T2", "first tensor over a slab", firsts, "ms", bytes=self._many)
        self._report.figure("T2", "later tensors", leases, "us")
        if not self._report.stub:
            first, lease = statistics.median(firsts), statistics.median(leases)
            found = f"{first:.1f} ms for the first tensor, {lease:.1f} us for later ones"
            right = first <= FIRST_TENSOR_MS and lease <= LEASE_US
            meant = f"at most {FIRST_TENSOR_MS} ms and {LEASE_US} us are meant"
            self._report.either(right, "T2", "time to a tensor", f"{found}; {meant}")

    def _client(
        self, exporter: Exporter, then: str, template: str = CLIENT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        text = template.format(paths=sys.path, socket=str(exporter.socket_path), then=then)
        return subprocess.run(
            [sys.executable, "-c", text],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _free(self) -> int:
        if not self.driver.stub:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # what torch keeps for itself is not lost
        return self.driver.memory(0)[0]

    def _back(self, before: int) -> bool:
        """Whether the memory is there again; the driver may clear up a moment after a process has ended."""
        until = time.monotonic() + 5
        while before - self._free() > ALLOWANCE_BYTES and time.monotonic() < until:
            time.sleep(0.05)
        return before - self._free() <= ALLOWANCE_BYTES

    def _lost(self, before: int) -> str:
        return f"{(before - self._free()) >> 20} MiB of device memory more in use"


def words(count: int, seed: int, slab: _cuda.Slab) -> torch.Tensor:
    """The exporter's pattern, computed on the slab's device."""
    device = "cpu" if slab.stub else f"cuda:{slab.ordinal}"
    golden = ctypes.c_int64(0x9E3779B97F4A7C15).value
    return torch.arange(count, dtype=torch.int64, device=device) * golden + seed


def same(tensor: torch.Tensor, seed: int) -> bool:
    """Whether a tensor holds the pattern of a seed, from the slab's beginning on."""
    golden = ctypes.c_int64(0x9E3779B97F4A7C15).value
    expected = torch.arange(tensor.numel(), dtype=torch.int64, device=tensor.device) * golden + seed
    return bool(torch.equal(tensor, expected))


def synchronize(slab: _cuda.Slab) -> None:
    """Wait for what was queued on the slab's device."""
    if not slab.stub:
        torch.cuda.synchronize(slab.ordinal)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process said last."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1][:200] if lines else f"ended with {done.returncode}"

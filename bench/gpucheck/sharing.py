"""T2 and T5: slabs of another process as tensors here, in every state that either side can be in."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from exporters import Exporter, pattern
from report import Report

from stoker import _cuda
from stoker._cudriver import CudaDriver, gpu_name
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
# Another process: opens an event, and asks before and after it has waited for it.
WAITS = """
import sys
import torch
event = torch.cuda.Event.from_ipc_handle(torch.device("cuda", 0), bytes.fromhex(sys.argv[1]))
print("opened", flush=True)
sys.stdin.readline()
print(event.query(), flush=True)
event.synchronize()
print(event.query(), flush=True)
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


class Lease:
    """A right that ends when nobody holds it any more."""


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
            could_read = bool(done.stdout.strip())  # whoever never had the slab proves nothing
            refused = done.returncode != 0 and "written" not in done.stdout
            found = f"the writer read: {could_read}; it ended: {reason(done)}; the exporter's bytes are whole: {whole}"
            self._report.either(could_read and refused and whole, "T2", "read-only slab", found)

    def reordered(self) -> None:
        """With CUDA_VISIBLE_DEVICES by UUID, in another order, the GPU is found again; hidden, it is named."""
        with self.exporter(FEW) as exporter:
            names = [gpu_name(uuid) for uuid in reversed(self.driver.devices())]
            wanted = [str(names.index(exporter.shared["device"]))]
            done = self._client(exporter, "", CUDA_VISIBLE_DEVICES=",".join(names))
            right = done.returncode == 0 and done.stdout.split()[1:] == wanted
            found = f"CUDA_VISIBLE_DEVICES={','.join(names)}: {reason(done)}"
            self._report.either(right, "T2", "device by UUID", found, devices=len(names))
            done = self._client(exporter, "", KILLED, CUDA_VISIBLE_DEVICES="")
            refused = done.returncode == 1  # an exception, and no signal: it never had the slab
            self._report.either(refused, "T2", "hidden device", f"CUDA_VISIBLE_DEVICES empty: {reason(done)}")

    def event(self) -> None:
        """Another process waits for what is queued here: what handing memory over in mid-copy would need."""
        cuda: Any = torch.cuda
        if self._report.stub:
            self._report.check("T2", "event between processes", "none", "stand-ins have no events between processes")
            return
        try:
            event = cuda.Event(enable_timing=False, interprocess=True)
            handle = event.ipc_handle().hex()
        except RuntimeError as error:
            self._report.check("T2", "event between processes", "none", f"refused: {error}"[:500])
            return
        with subprocess.Popen(
            [sys.executable, "-c", WAITS, handle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as waits:
            assert waits.stdin is not None
            assert waits.stdout is not None
            ready = waits.stdout.readline().strip()
            cuda._sleep(4_000_000_000)  # two seconds' cycles of the GPU
            event.record()
            waits.stdin.write("go\n")
            waits.stdin.close()
            said = waits.stdout.read().split()
        synchronized = bool(event.query())
        found = f"the other process: {ready or 'did not open it'}; before it waited and after: {' '.join(said)}"
        right = said == ["False", "True"] and synchronized
        self._report.check("T2", "event between processes", "ok" if right else "bad" if ready else "none", found)

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

    def outlived(self) -> None:
        """A tensor outlives the slab that it was made from, and its view the tensor; then the memory comes back."""
        with self.exporter(FEW) as exporter, self.slab(exporter) as slab:
            before = self._free()
            with exporter.connect() as connection:
                second = _cuda.receive_slab(connection, driver=self.driver)
            tensor = second.tensor((FEW // 8,), "int64")
            unmapped_at_once = second.close()
            view = tensor[1:]
            del tensor
            synchronize(slab)
            right = not unmapped_at_once and bool(torch.equal(view, slab.tensor((FEW // 8,), "int64")[1:]))
            del view
            gone = second.tensors == 0
            with exporter.connect() as connection, _cuda.receive_slab(connection, driver=self.driver) as third:
                lease = Lease()
                leased = third.tensor((8,), lease=lease)
                kept = weakref.ref(lease)
                del lease
                right = right and kept() is not None
                del leased
                right = right and kept() is None
            found = f"its bytes stayed, and its lease: {right}; let go of: {gone}; {self._lost(before)}"
            self._report.either(right and gone and self._back(before), "T5", "a tensor outlives its slab", found)

    def killed(self) -> None:
        """Either side killed again and again: the other goes on, and the memory comes back."""
        before, ends = self._free(), list[int]()
        half = self._report.remaining / 2
        with self.exporter(FEW) as exporter:
            while self._more(len(ends), half):
                ends.append(self._client(exporter, "", KILLED).returncode)
            wrong = exporter.ask("check 1")["wrong_at"]
            left = self._left(exporter)
        right = wrong == -1 and set(ends) == {-signal.SIGKILL} and left == 0 and self._back(before)
        self._killed(right, "clients killed", len(ends), f"{left} of them still connected; {self._lost(before)}")
        wholes = list[bool]()
        while self._more(len(wholes), RESERVE_S):
            exporter = self.exporter(FEW)
            with self.slab(exporter) as slab:
                exporter.kill()
                wholes.append(same(slab.tensor((FEW // 8,), "int64"), 1))
        self._killed(all(wholes) and self._back(before), "exporters killed", len(wholes), self._lost(before))

    def _killed(self, right: bool, name: str, times: int, found: str) -> None:
        """Report how kills went. Fewer than were meant prove less, so they are not ok, if nothing went wrong either."""
        status = "bad" if not right else "ok" if times == self._kills else "none"
        short = "" if times == self._kills else "; the time did not do for more"
        self._report.check(
            "T5", name, status, f"{times} of {self._kills} times; {found}{short}", times=times, meant=self._kills
        )

    def _more(self, done: int, reserve: float) -> bool:
        """Whether to kill once more: at least once, then as often as is meant and the time allows."""
        return done == 0 or (done < self._kills and self._report.remaining > max(reserve, RESERVE_S))

    def _left(self, exporter: Exporter) -> int:
        """How many clients an exporter still has, once it has had the time to see that they are gone."""
        until = time.monotonic() + 5
        while (left := int(exporter.ask("clients")["clients"])) and time.monotonic() < until:
            time.sleep(0.05)
        return left

    def leaks(self) -> None:
        """Slabs mapped and unmapped again and again leave nothing here."""
        turns = 50 if self.driver.stub else 500
        with self.exporter(FEW) as exporter:
            with self.slab(exporter) as slab:  # what the driver opens once, and keeps
                slab.tensor((1,))
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


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended: its exception, else what it said last. torch says how to debug behind its exceptions."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    said = (raised or lines or [""])[-1][:300]
    return f"with {done.returncode}: {said}"

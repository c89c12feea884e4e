"""T6: the ways a Python program has to bring a file to the GPU today, and Stoker's through shared host memory."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import others
import torch
from report import Report


class Speeds:
    """Each way, on one file of ``count`` bytes from the page cache: what differs between them is the CPU's work.

    On a stand-in tensors go to the CPU; each way runs once, and nothing is timed.
    """

    def __init__(self, report: Report, directory: Path, count: int, repeats: int) -> None:
        self._report = report
        self._count = count
        self._repeats = 1 if report.stub else repeats
        self._device = torch.device("cpu" if report.stub else "cuda")
        self._raw = directory / "gpucheck.bin"
        self._pickled = directory / "gpucheck.pt"
        self._safe = directory / "gpucheck.safetensors"

    def run(self) -> None:
        """All of them, Stoker's first; what is not installed is named, and what fails keeps no other from its turn."""
        content = torch.from_numpy(np.random.default_rng(1).integers(0, 256, self._count, dtype=np.uint8))
        content.numpy().tofile(self._raw)
        try:
            self._try("torch: pinned copy (ceiling)", lambda: self._pinned(content))
            self._try("memfd slab, registered once", lambda: self._host_mode(content), ours=True)
            self._try("on the device", self._on_device)
            self._try("pread, pinned, copy", lambda: self._way("pread, pinned, copy", self._read_pinned))
            self._try("torch.save", lambda: torch.save({"x": content}, self._pickled))
            self._try("torch.load", lambda: self._way("torch.load(map_location=device)", self._load))
            self._try("torch.load(mmap=True)", lambda: self._way("torch.load(mmap=True), copy", self._load_mapped))
            self._try("safetensors", lambda: self._safetensors(content))
            others.run(self._report, self._raw, self._count, self._repeats)
        finally:
            for path in (self._raw, self._pickled, self._safe):
                path.unlink(missing_ok=True)

    def _try(self, name: str, work: Callable[[], object], ours: bool = False) -> None:
        try:
            work()
        except Exception as error:
            status = "bad" if ours else "none"
            self._report.check("T6", name, status, f"{type(error).__name__}: {error}"[:1000])

    def _way(self, name: str, work: Callable[[], torch.Tensor]) -> None:
        """Time one way, after a turn that warms up; its last tensor is compared with the file."""
        speeds = []
        for turn in range(self._repeats + 1):
            began = time.perf_counter()
            tensor = work()
            self._wait()
            if turn:
                speeds.append(self._count / (time.perf_counter() - began) / 1e9)
        expected = np.fromfile(self._raw, np.uint8)
        if not np.array_equal(tensor.cpu().numpy(), expected):
            self._report.check("T6", name, "bad", "the tensor does not hold the file's bytes")
        self._report.figure("T6", name, speeds, "GB/s", bytes=self._count)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _pinned(self, content: torch.Tensor) -> None:
        pinned = content if self._device.type == "cpu" else content.pin_memory()
        into = torch.empty(self._count, dtype=torch.uint8, device=self._device)
        self._way("torch: pinned copy (ceiling)", lambda: into.copy_(pinned, non_blocking=True))

    def _read_pinned(self) -> torch.Tensor:
        buffer = torch.empty(self._count, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        with self._raw.open("rb", buffering=0) as file:
            array: Any = buffer.numpy()
            view = memoryview(array)
            done = 0
            while done < self._count:
                count = file.readinto(view[done:])
                if not count:
                    raise EOFError(f"{self._raw} ends after {done} bytes")
                done += count
        return buffer.to(self._device, non_blocking=True)

    def _load(self) -> torch.Tensor:
        loaded: torch.Tensor = torch.load(self._pickled, map_location=self._device)["x"]
        return loaded

    def _load_mapped(self) -> torch.Tensor:
        loaded: torch.Tensor = torch.load(self._pickled, mmap=True, map_location="cpu")["x"]
        return loaded.to(self._device)

    def _safetensors(self, content: torch.Tensor) -> None:
        try:
            safetensors: Any = importlib.import_module("safetensors.torch")
        except ImportError as error:
            self._report.check("T6", "safetensors", "none", str(error))
            return
        safetensors.save_file({"x": content}, self._safe)
        device = "cpu" if self._device.type == "cpu" else "cuda:0"
        self._way("safetensors.load_file(device)", lambda: safetensors.load_file(self._safe, device=device)["x"])

    def _on_device(self) -> None:
        """What the device's own memory does, reads and writes counted: a ceiling of ceilings."""
        if self._device.type == "cpu":
            return
        one, other = (torch.empty(self._count, dtype=torch.uint8, device=self._device) for _ in range(2))
        speeds = []
        for turn in range(self._repeats + 1):
            began = time.perf_counter()
            for _ in range(10):
                other.copy_(one)
            self._wait()
            if turn:
                speeds.append(2 * 10 * self._count / (time.perf_counter() - began) / 1e9)
        self._report.figure("T6", "on the device, read and written", speeds, "GB/s", bytes=10 * self._count)

    def _host_mode(self, content: torch.Tensor) -> None:
        """Stoker without a direct route: a memfd that the daemon filled, registered once, copied from."""
        with MemoryFile(self._count) as shared:
            shared.array[:] = content.numpy()
            self._register(shared.address)
            into = torch.empty(self._count, dtype=torch.uint8, device=self._device)
            host = torch.from_numpy(shared.array)
            try:
                self._way("memfd slab, registered once", lambda: into.copy_(host, non_blocking=True))
            finally:
                self._unregister(shared.address)
        self._report.share("memfd slab", "memfd slab, registered once", "torch: pinned copy (ceiling)", 0.9)

    def _register(self, address: int) -> None:
        if self._device.type == "cuda":
            began = time.perf_counter()
            code = int(cuda_runtime().cudaHostRegister(address, self._count, 0))
            if code:
                raise RuntimeError(f"cudaHostRegister of {self._count} bytes answered {code}")
            seconds = time.perf_counter() - began
            self._report.figure("T6", "register a memfd slab", [1e3 * seconds], "ms", bytes=self._count)

    def _unregister(self, address: int) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            cuda_runtime().cudaHostUnregister(address)


def cuda_runtime() -> Any:
    """CUDA's runtime as torch has it loaded."""
    cuda: Any = torch.cuda
    return cuda.cudart()


class MemoryFile:
    """A memfd mapped as an array of bytes, for a ``with`` block."""

    def __init__(self, count: int) -> None:
        descriptor = os.memfd_create("gpucheck")
        try:
            os.truncate(descriptor, count)
            self._map = mmap.mmap(descriptor, count)
        finally:
            os.close(descriptor)
        self.array: Any = np.frombuffer(self._map, np.uint8)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        del self.array

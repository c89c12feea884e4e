"""T7: what copies to the GPU do to a training loop beside them."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from exporters import program
from report import Report

WARM_UP_S = 2.0
SIDE = 8192  # of the matrices on a GPU; 256 where there is none


class Training:
    """A loop of bf16 matrix products: alone, beside another process's copies, beside copies of its own."""

    def __init__(self, report: Report, count: int) -> None:
        self._report = report
        self._count = count
        self._device = torch.device("cpu" if report.stub else "cuda")
        side = 256 if report.stub else SIDE
        self._steps = 3 if report.stub else 1000
        self._a = torch.randn(side, side, device=self._device, dtype=torch.bfloat16)
        self._b = torch.randn(side, side, device=self._device, dtype=torch.bfloat16)

    def run(self) -> None:
        """All of them, and what each costs a step; alone also at the end, which shows how steady the GPU is."""
        self._warm_up()
        alone = self._loop("step alone")
        with self._copier():
            beside = self._loop("step beside another process's copies")
        own = self._own_copies()
        again = self._loop("step alone, at the end")
        if not self._report.stub:
            found = f"{beside / alone:.3f} beside another process's copies, {own / alone:.3f} beside copies of its own"
            found += f", {again / alone:.3f} alone again"
            ratios = {"beside": beside / alone, "own": own / alone, "again": again / alone}
            self._report.check("T7", "step time, against alone", "ok", found, **ratios)
        self._report.check(
            "T7", "step beside a checksum kernel", "none", "Stoker runs no kernels: checksums are the CPU's"
        )

    def _warm_up(self) -> None:
        """A GPU that was idle takes a while to raise its clocks."""
        until = time.monotonic() + (0.0 if self._report.stub else WARM_UP_S)
        while time.monotonic() < until:
            torch.matmul(self._a, self._b)
            self._wait()

    def _loop(self, name: str) -> float:
        """Milliseconds a step, the median; the first ones warm up."""
        times = []
        for step in range(self._steps + 5):
            began = time.perf_counter()
            torch.matmul(self._a, self._b)
            self._wait()
            if step >= 5:
                times.append(1e3 * (time.perf_counter() - began))
        self._report.figure("T7", name, times, "ms", p90=sorted(times)[len(times) * 9 // 10])
        return statistics.median(times)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    @contextmanager
    def _copier(self) -> Iterator[None]:
        """Another process that copies to the same GPU without a pause."""
        command = [program("gpucheck"), "copy", "-bytes", str(self._count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            ready = process.stdout.readline()
            try:
                if not ready:
                    raise RuntimeError(f"gpucheck copy ended with {process.wait(30)}; its error is above")
                yield
            finally:
                process.stdin.close()
            said = process.stdout.read()
            if process.wait(60):
                raise RuntimeError(f"gpucheck copy ended with {process.returncode}; its error is above")
            copied = json.loads(said.splitlines()[-1])
            rate = copied["copied_bytes"] / copied["seconds"] / 1e9
            self._report.figure("T7", "copies of the other process, beside the loop", [rate], "GB/s")

    def _own_copies(self) -> float:
        """The loop while a side stream of this process copies from pinned memory."""
        if self._device.type == "cpu":
            return self._loop("step beside copies of its own")
        cuda: Any = torch.cuda
        side, host = cuda.Stream(), torch.empty(self._count, dtype=torch.uint8, pin_memory=True)
        into = torch.empty(self._count, dtype=torch.uint8, device=self._device)
        ended = threading.Event()

        def copy() -> None:
            with cuda.stream(side):
                while not ended.is_set():
                    into.copy_(host, non_blocking=True)
                    side.synchronize()

        copies = threading.Thread(target=copy)
        copies.start()
        try:
            return self._loop("step beside copies of its own")
        finally:
            ended.set()
            copies.join()

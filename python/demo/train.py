"""Trains a small language model on batches from Stoker, then says how well it was fed.

It needs a running stokerd that has a token dataset:

    stoker dataset add demo DIR --format tokens
    python train.py --dataset demo --seconds 60

`make demo` does all of that, with a temporary daemon.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from model import LanguageModel, Shape
from torch.utils.data import DataLoader
from tqdm import tqdm

import stoker

BATCH_SIZE = 32
LOADER_BATCH_SIZE, LOADER_BLOCK_SIZE = 64, 2048
LOADER_SECONDS = 4.0
_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


@dataclass
class Phase:
    """What one phase took: wall and CPU seconds, and what it consumed."""

    wall: float = 0.0
    trainer_cpu: float = 0.0
    daemon_cpu: float = 0.0
    samples: int = 0
    source_bytes: int = 0
    losses: list[float] = field(default_factory=list)
    stats: stoker.Stats | None = None


def daemon_cpu(pid: int | None) -> float:
    """CPU seconds that the daemon has used so far; 0.0 if its pid is not known."""
    if pid is None:
        return 0.0
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


class Progress:
    """A bar over the seconds of training on a terminal, else a line now and then."""

    def __init__(self, seconds: float) -> None:
        self._bar = tqdm(total=round(seconds), unit="s", desc="train", disable=not sys.stderr.isatty(),
                         bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total} s{postfix}")  # fmt: skip
        self._next_line = _LINE_SECONDS
        self._seconds = seconds

    def show(self, elapsed: float, step: int, loss: float) -> None:
        """Say where training is."""
        if not self._bar.disable:
            self._bar.n = min(elapsed, self._seconds)
            self._bar.set_postfix_str(f"step {step}, loss {loss:.3f}")
        elif elapsed >= self._next_line:
            self._next_line += _LINE_SECONDS
            print(f"train {elapsed:4.0f}/{self._seconds:.0f} s, step {step}, loss {loss:.3f}", flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def endless(loader: DataLoader[stoker.Batch]) -> Iterator[stoker.Batch]:
    """Yield batches, one epoch after the other."""
    while True:
        yield from loader


def train(dataset: str, seconds: float, pid: int | None) -> Phase:
    """Train for about so many seconds."""
    shape = Shape()
    torch.manual_seed(0)
    model = LanguageModel(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    ds = stoker.Dataset(
        dataset, batch_size=BATCH_SIZE, block_size=shape.block_size, shuffle=True, drop_last=True, dtype=torch.int64
    )
    loader = DataLoader(ds, batch_size=None, num_workers=0)
    phase, progress = Phase(), Progress(seconds)
    began, cpu, daemon = time.perf_counter(), time.process_time(), daemon_cpu(pid)
    for step, batch in enumerate(endless(loader), 1):
        loss = model(batch["x"], batch["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        phase.losses.append(loss.item())
        phase.wall = time.perf_counter() - began
        progress.show(phase.wall, step, fmean(phase.losses[-20:]))
        if phase.wall >= seconds:
            break
    phase.trainer_cpu, phase.daemon_cpu = time.process_time() - cpu, daemon_cpu(pid) - daemon
    progress.close()
    phase.stats = ds.stats()
    phase.samples, phase.source_bytes = phase.stats.samples, phase.stats.source_bytes
    ds.close()
    return phase


def load_only(dataset: str, seconds: float, pid: int | None) -> Phase:
    """Take batches for so many seconds and only touch each cache line of them."""
    ds = stoker.Dataset(
        dataset, batch_size=LOADER_BATCH_SIZE, block_size=LOADER_BLOCK_SIZE, shuffle=True, drop_last=True
    )
    phase = Phase()
    began, cpu, daemon = time.perf_counter(), time.process_time(), daemon_cpu(pid)
    for batch in endless(DataLoader(ds, batch_size=None, num_workers=0)):
        batch["x"].view(torch.uint8)[:, ::64].sum()
        phase.wall = time.perf_counter() - began
        if phase.wall >= seconds:
            break
    phase.trainer_cpu, phase.daemon_cpu = time.process_time() - cpu, daemon_cpu(pid) - daemon
    phase.stats = ds.stats()
    phase.samples, phase.source_bytes = phase.stats.samples, phase.stats.source_bytes
    ds.close()
    return phase


def stalled(phase: Phase) -> str:
    """Say what share of the time was spent waiting for batches, and for what."""
    if phase.stats is None or phase.stats.stall_seconds == 0:
        return "0.00 %"
    causes = sorted(phase.stats.causes.items(), key=lambda item: -item[1])
    shares = [f"{cause} {100 * seconds / phase.wall:.2f} %" for cause, seconds in causes if seconds > 0]
    return f"{100 * phase.stats.stall_seconds / phase.wall:.2f} % ({', '.join(shares)})"


def row(name: str, value: str) -> None:
    """Print one row of the summary."""
    print(f"  {name:<32} {value}")


def rows_of(phase: Phase, known_daemon: bool) -> None:
    """Print what both phases have in common."""
    row("samples/s", f"{phase.samples / phase.wall:,.0f}")
    rate = phase.source_bytes / phase.wall
    row("GB/s of source bytes", f"{rate / 1e9:.3f}" if rate >= 1e8 else f"{rate / 1e9:.6f} ({rate / 1e6:.2f} MB/s)")
    row("time stalled, and on what", stalled(phase))
    row("CPU seconds, trainer", f"{phase.trainer_cpu:.2f} of {phase.wall:.1f} s")
    if known_daemon:
        row("CPU seconds, daemon", f"{phase.daemon_cpu:.2f} of {phase.wall:.1f} s")


def main() -> int:
    """Train, measure, print the summary. The exit status is 1 if the loss did not fall."""
    parser = argparse.ArgumentParser(description="train a small language model on batches from Stoker")
    parser.add_argument("--dataset", default="demo", help="name of a token dataset (default: demo)")
    parser.add_argument("--seconds", type=float, default=60, help="how long to train (default: 60)")
    parser.add_argument("--daemon-pid", type=int, help="pid of stokerd, to count its CPU time")
    arguments = parser.parse_args()
    known = arguments.daemon_pid is not None
    trained = train(arguments.dataset, arguments.seconds, arguments.daemon_pid)
    loaded = load_only(arguments.dataset, min(LOADER_SECONDS, arguments.seconds), arguments.daemon_pid)

    few = max(1, min(10, len(trained.losses) // 4))
    start, end = fmean(trained.losses[:few]), fmean(trained.losses[-few:])
    print(f"\nTraining, {len(trained.losses)} steps of {BATCH_SIZE} x {Shape().block_size} bytes")
    row("loss at start -> end (nats/byte)", f"{start:.3f} -> {end:.3f}")
    rows_of(trained, known)
    print(f"\nLoading alone, {LOADER_BATCH_SIZE} x {LOADER_BLOCK_SIZE} tokens, shuffled, each cache line touched;")
    print("with nothing to compute it is meant to wait")
    rows_of(loaded, known)
    if end >= start:
        print(f"\nerror: the loss did not fall in {len(trained.losses)} steps", file=sys.stderr)
        print("remedy: train longer (make demo DEMO_SECONDS=120), or on more text (DATA=dir)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except stoker.StokerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

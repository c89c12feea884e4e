"""gpu-check: Stoker's ground floor on this machine's GPU, in under eight minutes; see README.md beside this file.

    check.py [--dir DIR] [--out gpu-check.json] [--seconds 480] [--parts T0,T2]

Start it with run.sh, which finds a Python with torch and, where there is no GPU,
sets the stand-ins. It ends with 0 if no check is bad.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "python")]

import calls  # noqa: E402
import machine  # noqa: E402
import torch  # noqa: E402
from report import Report  # noqa: E402
from sharing import Sharing  # noqa: E402
from speeds import Speeds  # noqa: E402
from training import Training  # noqa: E402

from stoker._cudriver import CudaDriver  # noqa: E402

MiB = 1 << 20


def main() -> int:
    """Run all parts; 0 if none found something bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="folder on the disk that is meant; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--seconds", type=float, default=480, help="time for all of it")
    parser.add_argument("--parts", default="", help="only these, with commas between: T0,T2; default: all")
    arguments = parser.parse_args()
    offer_storage_library()
    report = Report(arguments.out, CudaDriver().stub, arguments.seconds, set(filter(None, arguments.parts.split(","))))
    with (
        tempfile.TemporaryDirectory(prefix="gpu-check-", dir=arguments.dir) as directory,
        tempfile.TemporaryDirectory(prefix="gpu-check-") as sockets,
    ):
        run(report, Path(directory), Path(sockets))
    report.write()
    counts = report.counts()
    print(f"{'STUB: ' if report.stub else ''}{counts['ok']} ok, {counts['bad']} bad, {counts['none']} not here")
    print(f"written: {arguments.out}")
    return 1 if counts["bad"] else 0


def run(report: Report, directory: Path, sockets: Path) -> None:
    """The parts in the order of what is worth most, should the time run out."""
    stub = report.stub
    count = 32 * MiB if stub else 1024 * MiB
    where = ("-dir", str(directory), "-bytes", str(count))
    sharing = Sharing(report, sockets, count, kills=3 if stub else 100)
    report.part("T0", "machine", 5, lambda: describe(report, directory))
    report.part("T0", "doctor", 30, lambda: calls.doctor(report, directory, 60))
    report.part("T1", "libraries", 10, lambda: calls.run(report, "T2", "driver", seconds=30))
    report.part("T2", "shared memory", 20, sharing.content)
    report.part("T2", "writable slab", 10, sharing.writable)
    report.part("T2", "read-only slab", 20, sharing.write_fault)
    report.part("T2", "device by UUID", 30, sharing.reordered)
    report.part("T3", "storage library", 20, lambda: calls.run(report, "T3", "storage", *where, seconds=60))
    report.part("T4", "routes", 30, lambda: calls.run(report, "T4", "routes", *where, seconds=60))
    report.part("T5", "element types", 10, sharing.types)
    report.part("T2", "times", 20, sharing.times)
    report.part("T6", "speeds in torch", 60, Speeds(report, directory, count, 5).run)
    report.part("T6", "speeds of Stoker", 60, lambda: calls.speeds(report, *where))
    report.part("T7", "training beside copies", 30, lambda: Training(report, count).run())
    report.part("T8", "mappings", 30, sharing.leaks)
    turns = ("-turns", "200" if stub else "10000")
    report.part("T8", "leaks", 30, lambda: calls.run(report, "T8", "leaks", *where, *turns, seconds=60))
    report.part("T5", "either side killed", 10 if stub else 60, sharing.killed)


def describe(report: Report, directory: Path) -> None:
    """T0: the machine, and the versions of what is measured."""
    report.machine = machine.describe(directory)
    for name in ("torch", "numpy", "safetensors", "nvidia-cufile", "cuda-bindings"):
        try:
            report.machine[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            report.machine[name] = None
    report.machine["gpu"] = None if report.stub else torch.cuda.get_device_name(0)
    report.machine["torch_cuda"] = torch.version.cuda
    commit = HERE / "commit"
    report.machine["commit"] = commit.read_text().strip() if commit.exists() else None
    found = f"{report.machine['gpu'] or 'no GPU'}, {report.machine['cpu']}, {machine.file_system(directory)}"
    report.check("T0", "machine", "ok", found)


def offer_storage_library() -> None:
    """Where only a wheel brought libcufile, tell the programs where it lies: it is in no folder of the loader."""
    if "STOKER_CUFILE_LIB" in os.environ or loads("libcufile.so.0"):
        return
    for path in wheels():
        if loads(str(path)):
            os.environ["STOKER_CUFILE_LIB"] = str(path)
            return


def wheels() -> Iterator[Path]:
    """The libcufile of each NVIDIA wheel that this Python sees."""
    for folder in sys.path:
        yield from Path(folder or ".").glob("nvidia/*/lib/libcufile.so.0")


def loads(name: str) -> bool:
    """Whether the loader takes a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

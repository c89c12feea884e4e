"""gpu-check: Stoker's ground floor on this machine's GPU, in under eight minutes; see README.md beside this file.

    check.py [--dir DIR] [--out gpu-check.json] [--seconds 455] [--parts T0,T2]

Start it with run.sh, which finds a Python with torch and, where there is no GPU,
sets the stand-ins. It ends with 0 if no check is bad.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
GiB = 1 << 30
GRACE_S = 10.0  # after the time is up, for what ignores it


def main() -> int:
    """Run all parts; 0 if none found something bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="folder on the disk that is meant; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--seconds", type=float, default=455, help="time for all of it")
    parser.add_argument("--parts", default="", help="only these, with commas between: T0,T2; default: all")
    arguments = parser.parse_args()
    parts = set(filter(None, arguments.parts.split(",")))
    if unknown := parts - {f"T{number}" for number in range(9)}:
        parser.error(f"--parts {arguments.parts}: there is no {', '.join(sorted(unknown))}; they are T0 to T8")
    offer_storage_library()
    signal.signal(signal.SIGTERM, stop)
    report = Report(arguments.out, CudaDriver().stub, arguments.seconds, parts)
    with (
        tempfile.TemporaryDirectory(prefix="gpu-check-", dir=arguments.dir) as directory,
        tempfile.TemporaryDirectory(prefix="gpu-check-") as sockets,
    ):
        os.environ["TMPDIR"] = sockets  # where Stoker has the storage library write its log
        end_of_time = threading.Timer(arguments.seconds + GRACE_S, give_up, (report, Path(directory), Path(sockets)))
        end_of_time.daemon = True
        end_of_time.start()
        try:
            run(report, Path(directory), Path(sockets))
        finally:
            end_of_time.cancel()
            report.machine["cufile_logs"] = logs(Path(sockets))
            report.write()
    counts = report.counts()
    print(f"{'STUB: ' if report.stub else ''}{counts['ok']} ok, {counts['bad']} bad, {counts['none']} not here")
    print(f"written: {arguments.out}")
    return 1 if counts["bad"] else 0


def stop(*_: object) -> None:
    """SIGTERM ends the run in order: the report is written, and the folders go."""
    raise SystemExit(128 + signal.SIGTERM)


def give_up(report: Report, *folders: Path) -> None:
    """A call that never returns, as a driver's may, must not keep the report."""
    report.check(*report.under_way, "bad", "the whole run was ended here: its time is up, and this did not return")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def logs(folder: Path) -> dict[str, str]:
    """The ends of what the storage library logged: why it refused is said there, and nowhere else."""
    return {path.name: path.read_text(errors="replace")[-4000:] for path in sorted(folder.glob("cufile*.log"))[:8]}


def run(report: Report, directory: Path, sockets: Path) -> None:
    """The parts in the order of what is worth most, should the time run out."""
    stub = report.stub
    count = 32 * MiB if stub else GiB
    where = ("-dir", str(directory), "-bytes", str(count))
    sharing = Sharing(report, sockets, count, kills=3 if stub else 100)
    report.under_way = "T0", "machine"
    describe(report, directory)
    report.part("T0", "doctor", 30, lambda: calls.doctor(report, directory, 120), most=120)
    report.part("T1", "libraries", 10, lambda: calls.run(report, "T2", "driver", seconds=30))
    report.part("T2", "shared memory", 20, sharing.content)
    report.part("T2", "writable slab", 10, sharing.writable)
    report.part("T2", "read-only slab", 20, sharing.write_fault)
    report.part("T2", "device by UUID", 30, sharing.reordered)
    report.part("T2", "event between processes", 20, sharing.event)
    report.part("T3", "storage library", 20, lambda: calls.run(report, "T3", "storage", *where, seconds=60))
    report.part("T5", "element types", 10, sharing.types)
    report.part("T5", "slabs and their tensors", 10, sharing.outlived)
    report.part("T2", "times", 20, sharing.times)
    report.part("T6", "speeds of Stoker", 60, lambda: calls.speeds(report, *where))
    report.part("T6", "speeds in torch", 60, Speeds(report, directory, count, 5).run)
    report.part("T7", "training beside copies", 30, lambda: Training(report, count).run())
    large = ("-dir", str(directory), "-bytes", str(count if stub else most_bytes(directory)))
    report.part("T4", "routes", 60, lambda: calls.run(report, "T4", "routes", *large, seconds=120))
    report.part("T8", "mappings", 20, sharing.leaks)
    turns = ("-turns", "200" if stub else "10000")
    report.part("T8", "leaks", 45, lambda: calls.run(report, "T8", "leaks", *where, *turns, seconds=75))
    report.part("T5", "either side killed", 10 if stub else 30, sharing.killed, most=report.remaining)


def most_bytes(directory: Path) -> int:
    """How large a file T4 may take: 4 GiB where GPU, memory and disk have room for it and for others beside."""
    room = {
        "GPU": int(torch.cuda.mem_get_info()[0]) // 2,
        "disk": shutil.disk_usage(directory).free // 2,
        "memory": machine.memory_bytes() // 4,
    }
    return next((count for count in (4 * GiB, 2 * GiB) if count <= min(room.values())), GiB)


def describe(report: Report, directory: Path) -> None:
    """T0: the machine, and the versions of what is measured; with whatever parts, since no figure is true without."""
    found: dict[str, Any] = machine.describe(directory)
    for name in ("torch", "numpy", "safetensors", "kvikio", "nvidia-cufile", "cuda-bindings"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["gpu"] = None if report.stub else torch.cuda.get_device_name(0)
    found["torch_cuda"] = torch.version.cuda
    found["storage_library"] = os.environ.get("STOKER_CUFILE_LIB", "as the loader finds it")
    commit = HERE / "commit"
    found["commit"] = commit.read_text().strip() if commit.exists() else None
    report.machine.update(found)
    report.check("T0", "machine", "ok", f"{found['gpu'] or 'no GPU'}, {found['cpu']}, {machine.file_system(directory)}")


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
    """Whether the loader finds a library in a fresh process: in this one torch has loaded its own already."""
    command = [sys.executable, "-S", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

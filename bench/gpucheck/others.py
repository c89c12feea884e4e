"""T6: what other programs reach with the same file, where they are installed.

Each runs in a process of its own: a crash in the storage library is then one figure
less, and the library is told to allow its compatibility mode, as it would not by itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from report import Report

HERE = Path(__file__).resolve().parent
GDSIO = ("/usr/local/cuda/gds/tools/gdsio", "/usr/local/cuda/gds/tools/gdsio_static")
LIMIT_S = 40.0  # of each
THREADS = 16


def run(report: Report, path: Path, count: int, repeats: int) -> None:
    """All of them; what is not here is named."""
    for way in ("torch.cuda.gds", "kvikio"):
        python(report, way, path, count, repeats)
    gdsio(report, path, count, repeats)
    fio(report, path, count, repeats)


def python(report: Report, way: str, path: Path, count: int, repeats: int) -> None:
    """A way that Python has to call the storage library."""
    if report.stub:
        report.check("T6", way, "none", "stand-ins are not what it would load")
        return
    command = [sys.executable, str(HERE / "reads.py"), way, str(path), str(count), str(repeats)]
    output = said(report, way, command)
    if output is None:
        return
    try:
        answer = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        report.check("T6", way, "none", f"it said: {output[-1000:]}")
        return
    if not answer["right"]:
        report.check("T6", way, "bad", "the device does not hold the file's bytes")
    report.figure("T6", f"{way}, O_DIRECT", answer["speeds"], "GB/s", bytes=count)


def gdsio(report: Report, path: Path, count: int, repeats: int) -> None:
    """NVIDIA's own, reading into GPU memory; it ends with 0 whatever it met, so that only a figure counts."""
    program = next((name for name in GDSIO if Path(name).exists()), shutil.which("gdsio"))
    if program is None:
        report.check("T6", "gdsio", "none", f"not installed: {GDSIO[0]}")
        return
    if report.stub:
        report.check("T6", "gdsio", "none", "stand-ins are not what it would load")
        return
    part = f"{count // THREADS >> 20}M"
    command = [program, "-f", str(path), "-d", "0", "-w", str(THREADS), "-s", part, "-i", "4M", "-x", "0", "-I", "0"]
    speeds = []
    for _ in range(repeats):
        output = said(report, "gdsio", command)
        if output is None:
            return
        found = re.search(r"Throughput: ([\d.]+) GiB/sec", output)
        if found is None:
            report.check("T6", "gdsio", "none", f"it said: {output[-1000:]}")
            return
        speeds.append(float(found[1]) * (1 << 30) / 1e9)
    report.figure("T6", "gdsio -x 0", speeds, "GB/s", bytes=count)


def fio(report: Report, path: Path, count: int, repeats: int) -> None:
    """The bare disk, as everybody measures it."""
    if shutil.which("fio") is None:
        report.check("T6", "fio", "none", "not installed")
        return
    part = count // THREADS
    command = ["fio", "--name=raw", f"--filename={path}", "--rw=read", "--bs=4M", "--direct=1", "--ioengine=psync"]
    command += ["--thread", f"--numjobs={THREADS}", f"--size={part}", f"--offset_increment={part}", "--readonly"]
    command += ["--group_reporting", "--output-format=json"]
    speeds = []
    for _ in range(1 if report.stub else repeats):
        output = said(report, "fio", command)
        if output is None:
            return
        try:
            speeds.append(json.loads(output[output.index("{") :])["jobs"][0]["read"]["bw_bytes"] / 1e9)
        except (ValueError, LookupError):
            report.check("T6", "fio", "none", f"it said: {output[-1000:]}")
            return
    report.figure("T6", "fio, O_DIRECT", speeds, "GB/s", bytes=count)


def said(report: Report, name: str, command: list[str]) -> str | None:
    """What a program wrote; None, and the reason in the report, if it failed."""
    limit = max(1.0, min(LIMIT_S, report.remaining))
    environment = {**os.environ, "CUFILE_ALLOW_COMPAT_MODE": "true", "CUFILE_LOGFILE_PATH": os.devnull}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        report.check("T6", name, "none", str(error)[:1000])
        return None
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip()[-1000:]
        report.check("T6", name, "none", f"ended with {done.returncode}: {text}")
        return None
    return done.stdout

"""T1 to T4, T6 and T8 as far as Stoker's own program tells them: its lines, taken into the report."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from exporters import program
from report import Report


def run(report: Report, test: str, verb: str, *arguments: str, seconds: float) -> None:
    """Run a verb of ``gpucheck`` and take over what it writes, also if it fails in the middle."""
    command = [program("gpucheck"), verb, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        report.check(test, verb, "bad", f"not done after {seconds:.0f} s")
        return
    for line in done.stdout.splitlines():
        take(report, json.loads(line))
    if done.returncode != 0:
        report.check(test, verb, "bad", f"ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


def speeds(report: Report, *arguments: str) -> None:
    """What the ways to load a file reach, and what is meant of the one through host memory."""
    run(report, "T6", "speed", *arguments, seconds=120)
    report.share("host-staged", "host-staged, warm", "pinned copy (ceiling)", 0.9)


def take(report: Report, line: dict[str, object]) -> None:
    """Add one line of the program, which is a figure or a check."""
    if "speed" in line:
        speeds = [float(str(line[key])) for key in ("min_gb_s", "median_gb_s", "max_gb_s")]
        report.figure("T6", str(line["speed"]), speeds, "GB/s", bytes=line["bytes"], repeats=line["repeats"])
        return
    values = line.get("values")
    report.check(
        str(line["test"]),
        str(line["name"]),
        str(line["status"]),
        str(line["found"]),
        **(values if isinstance(values, dict) else {}),
    )


def doctor(report: Report, directory: Path, seconds: float) -> None:
    """What `stoker doctor` says of this machine; its own verdict is no failure of it."""
    command = [program("stoker"), "doctor", "--json", "--prove", "--dir", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        report.check("T0", "doctor", "bad", f"ended with {done.returncode}, no JSON: {done.stderr.strip()[-2000:]}")
        return
    report.check("T0", "doctor", "ok", json.dumps(answer.get("verdict")), doctor=answer)

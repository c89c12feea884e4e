"""T1 to T4, T6 and T8 as far as Stoker's own program tells them: its lines, taken into the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from exporters import program
from report import Report

HERE = Path(__file__).resolve().parent


def run(report: Report, test: str, verb: str, *arguments: str, seconds: float) -> None:
    """Run a verb of ``gpucheck`` and take over each line as it comes, whatever becomes of the program."""
    seconds = max(1.0, min(seconds, report.remaining))
    command = [program("gpucheck"), verb, *arguments]
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None

        def end_it() -> None:
            late.set()
            process.kill()

        end = threading.Timer(seconds, end_it)
        end.start()
        try:
            for line in process.stdout:
                take(report, line)
            code = process.wait()
        finally:
            end.cancel()
            process.kill()
        errors.seek(0)
        said = errors.read().strip()
    if late.is_set():
        report.check(test, verb, "bad", f"not done after {seconds:.0f} s: {said[-2000:]}")
    elif code != 0:
        report.check(test, verb, "bad", f"ended with {code}: {said[-2000:]}")


def speeds(report: Report, *arguments: str) -> None:
    """What the ways to load a file reach, and what is meant of the one through host memory."""
    run(report, "T6", "speed", *arguments, seconds=120)
    report.share("host-staged", "host-staged, warm", "pinned copy (ceiling)", 0.9)


def take(report: Report, text: str) -> None:
    """Add one line of the program, which is a figure or a check; what a library printed is shown."""
    try:
        line = json.loads(text)
        test, name = line.get("test", "T6"), line.get("speed") or line["name"]
    except (ValueError, AttributeError, KeyError):
        print(f"{'STUB ' if report.stub else ''}gpucheck said: {text.rstrip()}", flush=True)
        return
    if "speed" in line:
        speeds = [float(line[key]) for key in ("min_gb_s", "median_gb_s", "max_gb_s")]
        report.figure(test, name, speeds, "GB/s", bytes=line["bytes"], repeats=line["repeats"])
        return
    values = line.get("values")
    report.check(test, name, line["status"], line["found"], **(values if isinstance(values, dict) else {}))


def doctor(report: Report, directory: Path, seconds: float) -> None:
    """What `stoker doctor` says of this machine; its own verdict is no failure of it."""
    command = [program("stoker"), "doctor", "--json", "--prove", "--dir", str(directory), "--python", sys.executable]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(HERE / "python")},
            capture_output=True,
            text=True,
            timeout=max(1.0, min(seconds, report.remaining)),
            check=False,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        report.check("T0", "doctor", "bad", f"not done after {error.timeout:.0f} s")
    except json.JSONDecodeError:
        report.check("T0", "doctor", "bad", f"ended with {done.returncode}, no JSON: {done.stderr.strip()[-2000:]}")
    else:
        report.check("T0", "doctor", "ok", json.dumps(answer.get("verdict")), doctor=answer)

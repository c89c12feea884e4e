"""The parts of gpu-check by themselves: what goes wrong in one of them costs nothing else (STUB)."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exporters import PROGRAMS, program, stub_environment


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Imports a module of gpu-check, as its programs do, on the stand-ins."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    for name, value in stub_environment(tmp_path / "state").items():
        monkeypatch.setenv(name, value)
    return importlib.import_module


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "gpu-check.json"


def checks(out: Path) -> dict[str, str]:
    """The status of each check that is written."""
    return {line["name"]: line["status"] for line in json.loads(out.read_text())["checks"]}


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


LINE = json.dumps({"test": "T3", "name": "first", "status": "ok", "found": "it ran"})


def test_what_a_program_said_before_it_hung_is_kept(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = load("calls")
    hangs = script(tmp_path / "hangs", f"echo '{LINE}'; echo last words >&2; exec sleep 60")
    monkeypatch.setattr(calls, "program", lambda _: str(hangs))
    report = load("report").Report(out, True, 60)
    began = time.monotonic()
    calls.run(report, "T3", "storage", seconds=1)
    assert time.monotonic() - began < 10
    assert checks(out) == {"first": "ok", "storage": "bad"}
    assert "last words" in report.checks[-1]["found"]


def test_what_a_library_prints_is_no_line_of_the_report(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = load("calls")
    noisy = script(tmp_path / "noisy", f"echo 'GDS release version: 1.15'; echo 7; echo '{LINE}'; exit 139")
    monkeypatch.setattr(calls, "program", lambda _: str(noisy))
    calls.run(load("report").Report(out, True, 60), "T3", "storage", seconds=5)
    assert checks(out) == {"first": "ok", "storage": "bad"}


def test_a_program_may_not_outlast_the_whole_run(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = load("calls")
    monkeypatch.setattr(calls, "program", lambda _: str(script(tmp_path / "hangs", "exec sleep 60")))
    began = time.monotonic()
    calls.run(load("report").Report(out, True, 0), "T3", "storage", seconds=60)
    assert time.monotonic() - began < 10


def test_a_check_is_on_the_disk_when_it_is_known(load: Any, out: Path) -> None:
    report = load("report").Report(out, True, 60)
    report.check("T2", "first", "ok", "it ran")
    assert checks(out) == {"first": "ok"}
    report.figure("T6", "second", [1.0], "GB/s")
    assert checks(out) == {"first": "ok", "second": "ok"}
    assert not out.with_name(out.name + ".part").exists()


def test_a_part_that_does_not_return_is_ended(load: Any, out: Path) -> None:
    report = load("report").Report(out, True, 60)

    def hang() -> None:
        try:
            subprocess.run(["sleep", "60"])
        except Exception:  # a part that swallows what it can
            time.sleep(60)

    began = time.monotonic()
    report.part("T2", "hangs", 1, hang, most=0.5)
    report.part("T2", "goes on", 1, lambda: report.either(True, "T2", "goes on", "it ran"))
    assert time.monotonic() - began < 10
    assert checks(out) == {"hangs": "bad", "goes on": "ok"}


def test_the_library_of_a_wheel_is_offered_though_torch_has_loaded_it() -> None:
    text = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.environ.pop("STOKER_CUFILE_LIB", None)
import check
check.offer_storage_library()
print(os.environ.get("STOKER_CUFILE_LIB"))
"""
    done = subprocess.run(
        [sys.executable, "-c", text, str(PROGRAMS)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith("libcufile.so.0"), done.stdout + done.stderr


def test_a_writer_that_never_had_the_slab_proves_nothing(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = load("sharing")
    monkeypatch.setenv("STOKER_STUB_STATE", str(tmp_path / "state"))
    parts = sharing.Sharing(load("report").Report(out, True, 60), tmp_path, 1 << 20, kills=1)
    failed = subprocess.CompletedProcess([], 1, "", "ImportError: no torch\n")
    monkeypatch.setattr(parts, "_client", lambda *_: failed)
    parts.write_fault()
    assert checks(out) == {"read-only slab": "bad"}


def test_how_torch_says_it(load: Any) -> None:
    text = (
        "Traceback (most recent call last):\n"
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered\n"
        "CUDA kernel errors might be asynchronously reported at some other API call.\n"
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    )
    done = subprocess.CompletedProcess([], 1, "7 0\n", text)
    assert load("sharing").reason(done) == (
        "with 1: torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
    )


def test_one_way_that_fails_keeps_no_other_from_its_turn(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = load("speeds")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(speeds.torch, "save", refuse)
    speeds.Speeds(load("report").Report(out, True, 60), tmp_path, 1 << 20, 1).run()
    found = checks(out)
    assert (found["torch.save"], found["torch.load"]) == ("none", "none")
    assert (found["memfd slab, registered once"], found["pread, pinned, copy"]) == ("ok", "ok")
    assert not list(tmp_path.glob("gpucheck.*"))


def test_other_programs_are_taken_by_what_they_measured(
    load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = load("others")
    script(tmp_path / "fio", """echo 'fio: note'; echo '{"jobs": [{"read": {"bw_bytes": 2000000000}}]}'""")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    throughput = "IoType: READ XferType: GPUD Threads: 16 Throughput: 2.000000 GiB/sec, Avg_Latency: 1 usecs"
    monkeypatch.setattr(others, "GDSIO", (str(script(tmp_path / "gdsio", f"echo '{throughput}'")),))
    reads = """echo 'from a library'; echo '{"speeds": [1.0, 3.0, 2.0], "right": true}'"""
    monkeypatch.setattr(others, "sys", SimpleNamespace(executable=str(script(tmp_path / "python", reads))))
    report = load("report").Report(out, False, 60)
    others.run(report, tmp_path / "file", 1 << 30, 3)
    assert {speed["name"]: round(speed["median"], 3) for speed in report.speeds} == {
        "torch.cuda.gds, O_DIRECT": 2.0,
        "kvikio, O_DIRECT": 2.0,
        "gdsio -x 0": 2.147,
        "fio, O_DIRECT": 2.0,
    }
    assert not report.checks


@pytest.mark.parametrize("answer", ["exit 3", "echo error; exit 0", "kill -SEGV $$"])
def test_other_programs_that_fail_are_named(
    answer: str, load: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = load("others")
    failing = script(tmp_path / "fio", answer)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(others, "GDSIO", (str(failing),))
    monkeypatch.setattr(others, "sys", SimpleNamespace(executable=str(failing)))
    others.run(load("report").Report(out, False, 60), tmp_path / "file", 1 << 30, 3)
    assert checks(out) == {"torch.cuda.gds": "none", "kvikio": "none", "gdsio": "none", "fio": "none"}


def test_a_run_that_is_ended_leaves_its_report_and_nothing_else(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    run = subprocess.Popen(
        [program("run.sh"), "--out", str(out), "--dir", str(folder), "--parts", "T5"],
        env={**os.environ, "PYTHON": sys.executable, "GPU_CHECK_STUB": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "element types" in line:
            break
    run.send_signal(signal.SIGTERM)
    run.stdout.read()
    run.stdout.close()
    assert run.wait(30) == 143
    report = json.loads(out.read_text())
    assert report["machine"]["kernel"]
    assert {"machine": "ok", "element types": "ok"}.items() <= checks(out).items()
    assert not list(folder.iterdir())
    assert not list(tmp_path.glob("gpu-check-*"))

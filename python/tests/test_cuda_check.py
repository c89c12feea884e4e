"""What gpu-check reports: a stand-in is labelled and has no speeds, and what is wrong ends it with 1 (STUB)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from exporters import PROGRAMS, program


@pytest.fixture(scope="module")
def report_module() -> ModuleType:
    """``report.py`` of gpu-check, which is no package."""
    specification = importlib.util.spec_from_file_location("gpucheck_report", program("report.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "gpu-check.json"


def written(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def check(out: Path, parts: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """gpu-check on the stand-ins."""
    return subprocess.run(
        [str(PROGRAMS / "run.sh"), "--out", str(out), "--parts", parts],
        env={**os.environ, "PYTHON": sys.executable, "GPU_CHECK_STUB": "1", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_run_on_stand_ins_says_so_and_has_no_speeds(out: Path) -> None:
    done = check(out, "T1,T4")
    assert done.returncode == 0, done.stdout + done.stderr
    report = written(out)
    assert report["stub"] is True
    assert "speeds" not in report
    assert report["counts"]["bad"] == 0
    fine = {line["name"] for line in report["checks"] if line["status"] == "ok"}
    assert {"driver", "symbols", "devices", "plain copy", "host-staged"} <= fine
    assert all(line.startswith(("STUB", "gpu-check: STUB", "--", "written")) for line in done.stdout.splitlines())


def test_what_is_wrong_ends_it_with_1(out: Path) -> None:
    done = check(out, "T1", STOKER_STUB_FAULTS="cuDeviceTotalMem:999:0:0")
    assert done.returncode == 1, done.stdout + done.stderr
    report = written(out)
    assert [line["name"] for line in report["checks"] if line["status"] == "bad"] == ["driver"]


def test_parts_that_are_none_are_refused(out: Path) -> None:
    done = check(out, "T1,T9")
    assert done.returncode == 2
    assert "there is no T9" in done.stderr
    assert not out.exists()


def test_without_a_driver_it_may_be_told_to_fail(out: Path, tmp_path: Path) -> None:
    done = check(out, "T1", GPU_CHECK_STUB="0", STOKER_CUDA_LIB=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "the driver of the GPU does not answer" in done.stderr
    assert not out.exists()


def test_figures_of_a_stand_in_are_not_kept(report_module: ModuleType, out: Path) -> None:
    report = report_module.Report(out, True, 60)
    report.figure("T6", "a speed", [1.0, 2.0], "GB/s")
    report.write()
    assert "speeds" not in written(out)
    assert written(out)["checks"][0]["found"] == "it ran; a stand-in has no speed"


def test_figures_have_a_median_and_its_spread(report_module: ModuleType, out: Path) -> None:
    report = report_module.Report(out, False, 60)
    report.figure("T6", "a speed", [3.0, 1.0, 2.0], "GB/s", bytes=7)
    report.write()
    (speed,) = written(out)["speeds"]
    assert (speed["median"], speed["min"], speed["max"], speed["repeats"], speed["bytes"]) == (2.0, 1.0, 3.0, 3, 7)
    assert report.median("a speed") == 2.0
    report.share("enough", "a speed", "a speed", 0.9)
    report.figure("T6", "a ceiling", [4.0], "GB/s")
    report.share("too little", "a speed", "a ceiling", 0.9)
    report.share("not measured", "a speed", "another", 0.9)
    assert [(line["name"], line["status"]) for line in report.checks] == [("enough", "ok"), ("too little", "bad")]
    assert report.median("another") is None


def test_a_part_that_raises_is_bad_and_the_next_one_runs(report_module: ModuleType, out: Path) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    report = report_module.Report(out, True, 60)
    report.part("T2", "first", 1, fail)
    report.part("T2", "second", 1, lambda: report.either(True, "T2", "second", "it ran"))
    report.part("T2", "third", 1000, fail)
    assert [(line["name"], line["status"]) for line in written(out)["checks"]] == [
        ("first", "bad"),
        ("second", "ok"),
        ("third", "none"),
    ]
    assert report.counts() == {"ok": 1, "bad": 1, "none": 1}

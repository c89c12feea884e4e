"""Building, rebuilding and linting datasets, against a scripted daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon, Polite

import stoker
from stoker.errors import InvalidError, NotFoundError, ProtocolError

FINDINGS: list[dict[str, Any]] = [
    {
        "severity": "error",
        "code": "duplicate_part",
        "file": "a.tar",
        "offset": 1024,
        "key": "d/1",
        "what": "w",
        "remedy": "r",
    },
    {"severity": "note", "code": "tiny_shard", "file": "b.tar", "offset": -1, "what": "w", "remedy": "r"},
]


def test_rebuilding_reports_how_far_it_is_and_what_is_there(tmp_path: Path) -> None:
    polite, seen = Polite(), list[stoker.Progress]()
    with FakeDaemon(tmp_path, polite):
        info = stoker.rebuild_dataset("n", progress=seen.append, runtime_dir=tmp_path)
    assert seen == [stoker.Progress(1, 2, 5, 10, 3)]
    assert (info.name, info.archives, info.indexes) == ("n", {"tar": 2}, {})
    assert info.parts == (stoker.PartInfo("cls", 4, 8, 2),)
    assert polite.requests[-1] == {"type": "dataset_rebuild", "name": "n"}


def test_findings_are_listed_or_visited_and_summed_up(tmp_path: Path) -> None:
    polite = Polite(findings=FINDINGS)
    with FakeDaemon(tmp_path, polite):
        summary = stoker.lint_dataset("n", runtime_dir=tmp_path)
        assert [finding.code for finding in summary.listed] == ["duplicate_part", "tiny_shard"]
        first, second = summary.listed
        assert (first.severity, first.file, first.offset, first.key) == ("error", "a.tar", 1024, "d/1")
        assert (second.offset, second.key) == (-1, "")
        assert (summary.format, summary.files, summary.samples, summary.bytes) == ("tar", 2, 9, 99)
        assert (summary.findings, summary.notes, summary.errors) == ({"tiny shard": 1}, 1, 0)
        assert polite.requests[-1] == {"type": "dataset_lint", "name": "n"}
        visited: list[stoker.Finding] = []
        progress: list[stoker.Progress] = []
        (tmp_path / "data").mkdir()
        summary = stoker.lint_dataset(
            directory=tmp_path / "data",
            include="*.tar",
            visit=visited.append,
            progress=progress.append,
            runtime_dir=tmp_path,
        )
        assert (summary.listed, len(visited), progress) == ((), 2, [stoker.Progress(1, 0, 0, 0, 3)])
        request = polite.requests[-1]
        assert request == {"type": "dataset_lint", "format": "auto", "include": ["*.tar"], "dtype": "uint16"}


def test_findings_name_files_and_keys_by_their_bytes(tmp_path: Path) -> None:
    named = {"file": "a\ufffd.tar", "file_bytes": "Yf8udGFy", "key": "k\ufffd", "key_bytes": "a/4="}
    with FakeDaemon(tmp_path, Polite(findings=[{**FINDINGS[0], **named}, FINDINGS[1]])):
        first, second = stoker.lint_dataset("n", runtime_dir=tmp_path).listed
    assert (first.file, first.key) == ("a\udcff.tar", "k\udcfe")
    assert (second.file, second.key) == ("b.tar", "")
    with (
        FakeDaemon(tmp_path, Polite(findings=[{**FINDINGS[0], "key_bytes": "?"}])),
        pytest.raises(ProtocolError, match="named a sample"),
    ):
        stoker.lint_dataset("n", runtime_dir=tmp_path)


def test_a_lint_is_of_a_name_or_of_a_directory(tmp_path: Path) -> None:
    for name, directory in ((None, None), ("n", tmp_path)):
        with pytest.raises(InvalidError, match="by its name, or at a directory"):
            stoker.lint_dataset(name, directory)
    with pytest.raises(NotFoundError):
        stoker.lint_dataset(directory=tmp_path / "nothing", runtime_dir=tmp_path)


@pytest.mark.parametrize("finding", [[], {"code": "x"}, 5])
def test_a_finding_that_is_none_is_a_protocol_error(tmp_path: Path, finding: Any) -> None:
    with FakeDaemon(tmp_path, Polite(findings=[finding])), pytest.raises(ProtocolError, match="Finding"):
        stoker.lint_dataset("n", runtime_dir=tmp_path)

"""A pytest plugin for CI: a test that was skipped counts as failed.

A skip hides a missing piece. With ``-p pytest_no_skips`` the run fails, names
each skipped test with its reason, and, if ``STOKER_TEST_COUNTS`` names a folder,
leaves the number of passed tests there for the summary of ``make test``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class NoSkips:
    """Collects what was skipped, wherever the skip came from."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}
        self.passed = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole module that was skipped, for example by importorskip."""
        if report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped, or count one that passed."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped[report.nodeid] = str(report.longrepr)
        if report.when == "call" and report.passed:
            self.passed += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn skips into failure, and hand the count on."""
        if self.skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        folder = os.environ.get("STOKER_TEST_COUNTS")
        if folder and session.exitstatus == pytest.ExitCode.OK:
            Path(folder, "python").write_text(f"{self.passed}\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests were skipped, and that this is why the run failed."""
        for nodeid, reason in self.skipped.items():
            terminalreporter.write_line(f"SKIPPED COUNTS AS FAILED: {nodeid}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin's object."""
    config.pluginmanager.register(NoSkips(), "stoker-no-skips")

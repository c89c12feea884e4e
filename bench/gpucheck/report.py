"""What gpu-check writes: checks, figures, and the machine they are true of."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STATUSES = ("ok", "bad", "none")


class OutOfTime(BaseException):
    """A part's time is up; no ``except Exception`` keeps it."""


class Report:
    """gpu-check.json as it grows; written anew with each check and figure, so that a crash or a kill loses none.

    On a stand-in (``stub``) it takes no figure: what ran there says nothing about speed. ``parts``
    are the tests to run (T0 to T8), all if it is empty.
    """

    def __init__(self, path: Path, stub: bool, seconds: float, parts: Collection[str] = ()) -> None:
        self.stub = stub
        self.machine: dict[str, Any] = {}
        self.checks: list[dict[str, Any]] = []
        self.speeds: list[dict[str, Any]] = []
        self._path = path
        self._began = time.monotonic()
        self._seconds = seconds
        self._parts = parts
        self.under_way: tuple[str, str] = ("T0", "start")
        self._date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    @property
    def remaining(self) -> float:
        """Seconds that are left for the whole run."""
        return self._seconds - (time.monotonic() - self._began)

    def check(self, test: str, name: str, status: str, found: str, **values: Any) -> None:
        """Add one check. ``none`` is for what cannot be on this machine: an answer, no failure."""
        if status not in STATUSES:
            raise AssertionError(f"{test} {name}: no such status: {status}")
        self.checks.append({"test": test, "name": name, "status": status, "found": found, "values": values})
        label = "STUB " if self.stub else ""
        print(f"{label}{test} {status:4} {name}: {found}", flush=True)
        self.write()

    def either(self, holds: bool, test: str, name: str, found: str, **values: Any) -> None:
        """Add a check that is ok if it holds, else bad."""
        self.check(test, name, "ok" if holds else "bad", found, **values)

    def figure(self, test: str, name: str, values: list[float], unit: str, **more: Any) -> None:
        """Add a figure, the median of several with the smallest and the largest; on a stand-in, that it ran."""
        if self.stub:
            self.check(test, name, "ok", "it ran; a stand-in has no speed")
            return
        figure = {"test": test, "name": name, "unit": unit, "median": statistics.median(values)}
        self.speeds.append({**figure, "min": min(values), "max": max(values), "repeats": len(values), **more})
        spread = f"{statistics.median(values):.4g} {unit} ({min(values):.4g} to {max(values):.4g})"
        print(f"{test} fig  {name}: {spread}", flush=True)
        self.write()

    def median(self, name: str) -> float | None:
        """The median of a figure, if it was measured."""
        return next((speed["median"] for speed in self.speeds if speed["name"] == name), None)

    def share(self, name: str, ours: str, ceiling: str, least: float) -> None:
        """Add a check that one figure is a large enough part of another, if both were measured."""
        above, below = self.median(ours), self.median(ceiling)
        if above and below:
            found = f"{above / below:.3f} of {ceiling}; at least {least} is meant"
            self.either(above / below >= least, "T6", name, found)

    def part(self, test: str, name: str, seconds: float, work: Callable[[], None], most: float | None = None) -> None:
        """Run one part if it is wanted and there is time; what it raises is a bad check, and the others go on.

        ``seconds`` is what it takes as a rule. After ``most``, or after a good deal more than that, it is ended.
        """
        if self._parts and test not in self._parts:
            return
        self.under_way = test, name
        if self.remaining < seconds:
            self.check(test, name, "none", f"not run: it may take {seconds} s, {self.remaining:.0f} s are left")
            return
        began = time.monotonic()
        try:
            with ends_after(min(self.remaining, most or 2 * seconds + 30)):
                work()
        except (Exception, OutOfTime) as error:
            self.check(test, name, "bad", f"{type(error).__name__}: {error}")
        print(f"-- {test} {name}: {time.monotonic() - began:.1f} s", flush=True)

    def counts(self) -> dict[str, int]:
        """How many checks there are of each status."""
        return {status: sum(check["status"] == status for check in self.checks) for status in STATUSES}

    def write(self) -> None:
        """Write all that is known so far."""
        whole: dict[str, Any] = {
            "version": 1,
            "stub": self.stub,
            "date": self._date,
            "seconds": round(time.monotonic() - self._began, 1),
            "counts": self.counts(),
            "machine": self.machine,
            "checks": self.checks,
        }
        if not self.stub:
            whole["speeds"] = self.speeds
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps(whole, indent=1, default=str) + "\n")
        os.replace(part, self._path)  # a kill leaves the whole of an older one


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` in the block once the time is up, also where it waits for another process."""

    def ring(*_: object) -> None:
        raise OutOfTime(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

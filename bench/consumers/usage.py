"""CPU time and memory of processes, read from outside of them."""

from __future__ import annotations

import time
from collections.abc import Iterable

# include/linux/posix-timers_types.h: the clock of a process is made of its number
# with the bits inverted, and kind 2 is "scheduled time", in nanoseconds.
_CPUCLOCK_SCHED = 2


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of a process, dead ones included, in ns."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


def cpu_ns_of_all(pids: Iterable[int]) -> int:
    """Return the CPU time of several processes, in ns."""
    return sum(cpu_ns(pid) for pid in pids)


def pss_bytes(pid: int) -> dict[str, int]:
    """Return the proportional set size of a process: all of it, and by kind, in bytes."""
    found: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            name, _, rest = line.partition(":")
            if name in ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem"):
                found[name.lower()] = int(rest.split()[0]) * 1024
    return found

"""The other side of ``bench.Wakeups``: answers each wake with a wake.

Descriptors 3 and up are inherited: one page of shared memory (futex: our word at
64, theirs at 0), two eventfds (theirs, ours), or one SEQPACKET socket.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys

_SYS_FUTEX = 202  # x86-64
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_FIRST_FD = 3


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def answer_futex(count: int) -> None:
    """Sleep on word 0, answer on word 64."""
    memory = mmap.mmap(_FIRST_FD, 4096)
    theirs = ctypes.c_uint32.from_buffer(memory, 0)
    ours = ctypes.c_uint32.from_buffer(memory, 64)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    bound = ctypes.byref(_Timespec(1, 0))
    theirs_at, ours_at = ctypes.byref(theirs), ctypes.byref(ours)
    patience = 20
    for seen in range(count):
        while theirs.value == seen:
            syscall(_SYS_FUTEX, theirs_at, _FUTEX_WAIT, seen, bound, None, 0)
            if theirs.value == seen:
                patience -= 1
                if patience == 0:
                    raise TimeoutError("nobody woke us")
        ours.value = seen + 1
        syscall(_SYS_FUTEX, ours_at, _FUTEX_WAKE, 1, None, None, 0)


def answer_eventfd(count: int) -> None:
    """Read the first eventfd, write the second."""
    one = (1).to_bytes(8, "little")
    for _ in range(count):
        os.read(_FIRST_FD, 8)
        os.write(_FIRST_FD + 1, one)


def answer_seqpacket(count: int) -> None:
    """Send back each packet."""
    with socket.socket(fileno=_FIRST_FD) as peer:
        for _ in range(count):
            peer.send(peer.recv(64))


def main() -> None:
    """Answer as often as asked."""
    config = json.loads(sys.argv[1])
    kinds = {"futex": answer_futex, "eventfd": answer_eventfd, "seqpacket": answer_seqpacket}
    kinds[config["kind"]](config["round_trips"])


if __name__ == "__main__":
    main()

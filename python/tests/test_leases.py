"""What a trainer had is free again when it is gone, and bad clients disturb nobody else."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BLOCK, FILES, REPOSITORY, ROWS, Daemon, eventually, raw_content

import stoker
from stoker import _layout

TESTS = Path(__file__).parent


@contextlib.contextmanager
def trainers(daemon: Daemon, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run trainers.py; gives what it printed, and ends it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "python"),
        "STOKER_RUNTIME_DIR": str(daemon.runtime_dir),
    }
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "trainers.py"), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline() or '"it printed nothing"')
        process.communicate(timeout=10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and all its forks, also if the test failed
        process.communicate()
    assert process.returncode == 0


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def one_trainer(daemon: Daemon) -> list[int]:
    ds = daemon.dataset("tokens", batch_size=16, block_size=16)
    seen = [number for batch in ds for number in batch.index.tolist()]
    ds.close()
    return seen


@pytest.mark.parametrize("fork", [False, True], ids=["alone", "with a forked child that lives on"])
def test_two_hundred_killed_trainers_leave_nothing(shared_daemon: Daemon, fork: bool) -> None:
    one_trainer(shared_daemon)
    assert eventually(lambda: shared_daemon.sessions() == [])
    before = shared_daemon.holdings()
    with trainers(shared_daemon, "killed", "200", str(int(fork))) as result:
        assert eventually(lambda: shared_daemon.sessions() == [], 1.0), "slots and memory are back within a second"
        assert eventually(lambda: shared_daemon.holdings() <= before, 1.0), (before, shared_daemon.holdings())
        assert len(result["children"]) == (200 if fork else 0)
        assert all(alive(child) for child in result["children"]), "the children held what they could all the time"
    assert one_trainer(shared_daemon) == list(range(ROWS))


def test_a_forked_childs_exit_does_not_end_the_parents_session(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("files", batch_size=4)
    iterator = iter(ds)
    seen = [next(iterator)]
    for _ in range(5):
        child = os.fork()
        if child == 0:
            sample = ds[3]["data"] == raw_content(3)  # over a connection of the child's own
            os._exit(0 if sample else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        seen.append(next(iterator))
    seen += list(iterator)
    assert [number for batch in seen for number in batch.index.tolist()] == list(range(FILES))
    ds.close()


class Attacker:
    """A raw connection with an open session, for doing what no client should."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(os.fspath(daemon.runtime_dir / "session.sock"))
        self.socket.settimeout(10)

    def ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self.socket.send(json.dumps(message).encode())
        packet, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 4)
        answer: dict[str, Any] = json.loads(packet)
        return answer, descriptors

    def open(self) -> mmap.mmap:
        self.ask({"type": "hello", "min": 1, "max": 1})
        request = {"type": "open", "dataset": "tokens", "batch_size": 16, "block_size": BLOCK, "world_size": 1}
        answer, (descriptor,) = self.ask({**request, "order": "sequential", "transport": "ring"})
        memory = mmap.mmap(descriptor, answer["ring"]["total_bytes"])
        os.close(descriptor)
        return memory

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def bystander(shared_daemon: Daemon) -> Iterator[None]:
    """Somebody who trains meanwhile, and must not notice."""
    stop, errors, epochs = threading.Event(), [], []

    def run() -> None:
        try:
            while not stop.is_set():
                assert one_trainer(shared_daemon) == list(range(ROWS))
                epochs.append(1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: len(epochs) > 0 or bool(errors), 20)
    yield
    count = len(epochs)
    assert eventually(lambda: len(epochs) > count or bool(errors), 20), "the bystander goes on"
    stop.set()
    thread.join()
    assert errors == []


@pytest.mark.usefixtures("bystander")
def test_a_client_that_never_releases_disturbs_nobody(shared_daemon: Daemon) -> None:
    attacker = Attacker(shared_daemon)
    memory = attacker.open()
    published = _layout.HEADER_FIELDS["published"][0]
    assert eventually(lambda: int.from_bytes(memory[published : published + 8], "little") == 8, 10)
    time.sleep(0.2)
    assert int.from_bytes(memory[published : published + 8], "little") == 8, "production stops at the ring's end"
    attacker.close()
    assert eventually(lambda: len(shared_daemon.sessions()) <= 1), "only the bystander's is left"


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("seed", range(5))
def test_a_client_that_scribbles_over_its_ring_disturbs_nobody(shared_daemon: Daemon, seed: int) -> None:
    rng = random.Random(seed)
    attacker = Attacker(shared_daemon)
    memory = attacker.open()
    size = len(memory)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        at = rng.choice([rng.randrange(0, 256), rng.randrange(0, 16384), rng.randrange(0, size - 64)])
        memory[at : at + 32] = rng.randbytes(32)
        attacker.ask({"type": "seek", "epoch": rng.randrange(3), "samples_consumed": rng.randrange(ROWS)})
        assert "session" in attacker.ask({"type": "stats"})[0]
    attacker.close()


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize(
    "packet",
    [
        b"\x00" * 100,
        b"{",
        b"[]",
        b'{"type":"nonsense"}',
        b'{"type":"open"}',
        b'{"type":"hello","min":"x"}',
        b'{"type":"hello","min":9,"max":9}',
        b"[" * 60000,
        b'{"type":' * 8000,
    ],
    ids=lambda packet: repr(packet[:24]),
)
def test_garbage_is_answered_with_an_error_or_the_end(shared_daemon: Daemon, packet: bytes) -> None:
    for greet in (False, True):
        attacker = Attacker(shared_daemon)
        if greet:
            attacker.ask({"type": "hello", "min": 1, "max": 1})
        with contextlib.suppress(BrokenPipeError):
            for _ in range(3):
                attacker.socket.send(packet)
        with contextlib.suppress(ConnectionResetError):
            answer = attacker.socket.recv(65536)
            assert answer == b"" or json.loads(answer)["type"] == "error"
        attacker.close()


@pytest.mark.usefixtures("bystander")
def test_a_client_that_floods_and_never_reads_disturbs_nobody(shared_daemon: Daemon) -> None:
    def resident() -> int:
        status = Path(f"/proc/{shared_daemon.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    attackers = [Attacker(shared_daemon) for _ in range(4)]
    before = resident()
    for attacker in attackers:
        attacker.ask({"type": "hello", "min": 1, "max": 1})
        attacker.socket.settimeout(0)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        for attacker in attackers:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                attacker.socket.send(b'{"type":"dataset_list"}')
    assert resident() - before < 64 << 10, "the daemon's memory is bounded"
    for attacker in attackers:
        attacker.close()


def test_a_stopped_trainer_costs_only_its_ring(shared_daemon: Daemon) -> None:
    program = f"""
import stoker, sys
ds = stoker.Dataset("tokens", batch_size=16, block_size={BLOCK}, return_tensors="numpy")
next(iter(ds))
print("ready", flush=True)
sys.stdin.read()
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "python"),
        "STOKER_RUNTIME_DIR": str(shared_daemon.runtime_dir),
    }
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "ready\n"
        trainer.send_signal(signal.SIGSTOP)
        assert one_trainer(shared_daemon) == list(range(ROWS))
        session = next(one for one in shared_daemon.sessions() if one["client"]["pid"] == trainer.pid)
        assert session["ring"]["ready"] <= session["ring"]["slots"]
        trainer.kill()
    assert eventually(lambda: shared_daemon.sessions() == [])


def test_many_datasets_in_one_process_are_apart(shared_daemon: Daemon) -> None:
    datasets = [
        stoker.Dataset(
            "tokens", batch_size=16, block_size=BLOCK, shuffle=True, seed=seed, runtime_dir=shared_daemon.runtime_dir
        )
        for seed in range(6)
    ]
    seen: list[list[int]] = [[] for _ in datasets]
    for batches in zip(*datasets, strict=True):
        for mine, batch in zip(seen, batches, strict=True):
            mine += batch.index.tolist()
    assert all(sorted(mine) == list(range(ROWS)) for mine in seen)
    assert len({tuple(mine) for mine in seen}) == len(datasets)
    for ds in datasets:
        ds.close()

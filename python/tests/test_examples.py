"""The examples in docs/examples, each as a user runs it, against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import REPOSITORY, Daemon

import stoker

EXAMPLES = REPOSITORY / "docs" / "examples"


@pytest.fixture(scope="module")
def example_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("examples")).start()
    yield daemon
    daemon.stop()


def run(daemon: Daemon, *command: str) -> str:
    """Run an example in the daemon's directory, with one thread of torch; what it printed."""
    environment = {
        **os.environ,
        "STOKER_RUNTIME_DIR": str(daemon.runtime_dir),
        "PYTHONPATH": str(REPOSITORY / "python"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=daemon.root, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def example(daemon: Daemon, name: str, *arguments: str) -> str:
    return run(daemon, sys.executable, str(EXAMPLES / name), "--quick", *arguments)


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that the groups of a pattern match; a line that is not there is a failure."""
    found = re.search(pattern, text)
    assert found, f"nothing like {pattern!r} in\n{text}"
    return [float(group) for group in found.groups()]


def loss_fell(text: str, to: float) -> None:
    first, last = numbers(r"loss ([\d.]+) -> ([\d.]+)", text)
    assert last < first * to, text
    numbers(r"stalled ([\d.]+)%", text)


def test_a_language_model_learns_from_tokens(example_daemon: Daemon) -> None:
    text = example(example_daemon, "language_model.py")
    loss_fell(text, 0.7)
    assert "60 steps, 1920 samples" in text


def test_a_classifier_learns_from_a_folder_of_images(example_daemon: Daemon) -> None:
    text = example(example_daemon, "image_folder.py")
    loss_fell(text, 0.8)
    assert "classes lying, standing" in text
    assert "60 steps, 3000 samples" in text


def test_a_classifier_learns_from_shards_and_leaves_out_broken_images(example_daemon: Daemon) -> None:
    text = example(example_daemon, "image_classification.py")
    loss_fell(text, 0.8)
    assert numbers(r"left out (\d+) samples", text) == [3]
    assert stoker.dataset_info("example-shards", runtime_dir=example_daemon.runtime_dir).samples == 1001


def test_lightning_continues_within_an_epoch(example_daemon: Daemon) -> None:
    text = example(example_daemon, "lightning_example.py")
    loss_fell(text, 0.7)
    first, all_of_it = numbers(r"first epoch: (\d+) different samples of (\d+)", text)
    second, _ = numbers(r"second epoch, over the stop: (\d+) of (\d+)", text)
    assert first == second == all_of_it
    assert "its order is another: True" in text


def test_ranks_share_an_epoch_and_fewer_ranks_continue_it(example_daemon: Daemon) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    text = run(example_daemon, *torchrun, str(EXAMPLES / "ddp.py"), "--quick")
    loss_fell(text, 0.8)
    assert "epoch: 1003 of 1003 samples" in text
    first, second = numbers(r"ranks 2, samples of each: (\d+), (\d+); none came twice", text)
    assert abs(first - second) <= 1

    text = run(example_daemon, *torchrun, str(EXAMPLES / "ddp.py"), "--quick", "--stop-after", "10")
    assert "epoch: 400 of 1003 samples" in text
    text = example(example_daemon, "ddp.py", "--resume")
    assert "ranks 1, samples of each: 603; none came twice" in text
    assert "epoch: 1003 of 1003 samples" in text

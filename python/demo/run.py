"""What `make demo` runs: a temporary stokerd, a dataset of real text, a minute of training.

It leaves nothing behind: not when all goes well, not after Ctrl-C, not after an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpus import TooLittleTextError, write_tokens
from daemon import Daemon, DaemonError

TEXT_BYTES = 64 << 20
TEXT_BYTES_AT_LEAST = 1 << 20  # some 8,000 samples: fewer are learnt by heart
_SOCKET_PATH_BYTES = 90  # sun_path has 108
_SHARED_MEMORY = Path("/dev/shm")


class StepError(Exception):
    """A step of the demo ended with an error that it has explained itself."""


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n== {text}", flush=True)


def source_folder(given: str | None) -> Path:
    """The folder of the texts: the given one, else the Go toolchain's own source."""
    if given is None:
        root = subprocess.run(["go", "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip()
        given = os.path.join(root, "src")
    folder = Path(given)
    if not folder.is_dir():
        raise StepError(f"{folder} is not a directory\nremedy: name one that holds text: make demo DATA=dir")
    return folder


def scratch_folder() -> Path:
    """A temporary folder whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-demo-"))
    if len(os.fsencode(folder)) <= _SOCKET_PATH_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="stoker-demo-", dir="/tmp"))


def run_step(command: list[str], environment: dict[str, str]) -> None:
    """Run a command to its end; whatever interrupts the wait ends the command as well."""
    process = subprocess.Popen(command, env=environment)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    if status:
        raise StepError(f"{Path(command[0]).name} {' '.join(command[1:3])} ended with status {status}")


def demonstrate(arguments: argparse.Namespace, folder: Path) -> None:
    """Run all the steps; the daemon's log is shown if one of them goes wrong."""
    texts = source_folder(arguments.data)
    corpus = folder / "corpus"
    corpus.mkdir()
    say(f"Text of {texts} as tokens, one a byte, at most {TEXT_BYTES >> 20} MiB")
    files, tokens = write_tokens(texts, corpus / "train.bin", TEXT_BYTES, TEXT_BYTES_AT_LEAST)
    print(f"{files:,} files, {tokens:,} tokens", flush=True)
    daemon = Daemon(arguments.bin / "stokerd", folder)
    environment = {**os.environ, "STOKER_RUNTIME_DIR": str(daemon.runtime)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        environment.pop(name, None)
    # torch's threads spin at barriers by default, on cores that the daemon could use; where
    # cores are scarce a step then takes several times as long.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        say("Start stokerd")
        with daemon:
            print(f"pid {daemon.pid}", flush=True)
            say(f"stoker dataset add demo {corpus} --format tokens")
            stoker = str(arguments.bin / "stoker")
            run_step([stoker, "dataset", "add", "demo", str(corpus), "--format", "tokens"], environment)
            say(f"Train for {arguments.seconds:.0f} seconds, then load without a model")
            train = str(Path(__file__).with_name("train.py"))
            options = ["--dataset", "demo", "--seconds", str(arguments.seconds), "--daemon-pid", str(daemon.pid)]
            run_step([sys.executable, train, *options], environment)
            stopping = time.monotonic()
        print(f"\nstokerd stopped cleanly in {time.monotonic() - stopping:.2f} s", flush=True)
    except Exception:
        print(f"\nThe end of stokerd's log:\n{daemon.log_tail()}", file=sys.stderr)
        raise


def shared_memory() -> set[str]:
    """The names in /dev/shm that could be ours."""
    return {name for name in os.listdir(_SHARED_MEMORY) if "stoker" in name} if _SHARED_MEMORY.is_dir() else set()


def main() -> int:
    """Run the demo and clean up. The exit status says whether all of it went well."""
    parser = argparse.ArgumentParser(description="train a small model through a temporary stokerd")
    parser.add_argument("--bin", type=Path, default=Path("bin"), help="folder of stokerd and stoker")
    parser.add_argument("--seconds", type=float, default=60, help="how long to train")
    parser.add_argument("--data", help="folder of texts; default: the Go toolchain's source")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = shared_memory()
    folder = scratch_folder()
    try:
        demonstrate(arguments, folder)
    except KeyboardInterrupt:
        print("\ninterrupted; everything was stopped and removed", file=sys.stderr)
        return 130
    except (DaemonError, StepError, TooLittleTextError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(folder)
    if left := shared_memory() - before:
        print(f"error: left in {_SHARED_MEMORY}: {', '.join(sorted(left))}", file=sys.stderr)
        return 1
    print(f"nothing is left: no process, nothing in {_SHARED_MEMORY}, no {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

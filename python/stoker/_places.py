"""Where things are by convention: the daemon's sockets, the CUDA driver, this process's rank and job.

The only module that reads the environment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .errors import InvalidError, PermissionDeniedError

SOCKET_NAME: Final = "session.sock"
_SYSTEM_DIRECTORY: Final = "/run/stoker"


def runtime_directories(argument: str | os.PathLike[str] | None) -> list[Path]:
    """The directories that may hold the daemon's socket, likeliest first.

    An argument or STOKER_RUNTIME_DIR is the only place then. Otherwise all the
    daemon's own defaults are looked at, because a batch system often starts the
    trainer without the XDG_RUNTIME_DIR that the login shell of the daemon had.
    """
    if argument is not None:
        return [Path(argument)]
    if named := os.environ.get("STOKER_RUNTIME_DIR"):
        return [Path(named)]
    places = []
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(session) / "stoker")
    places.append(Path(_SYSTEM_DIRECTORY))
    places.append(shared_directory())
    return places


def shared_directory() -> Path:
    """The default of a user who has neither XDG_RUNTIME_DIR nor /run/stoker."""
    return Path(f"/tmp/stoker-{os.getuid()}")


def check_owner(directory: Path) -> None:
    """Refuse a directory under /tmp that somebody else may have put there."""
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionDeniedError(
            f"the directory belongs to uid {found.st_uid} or is no directory, so the socket in it is not trusted",
            str(directory),
            "remove it, or name the daemon's directory with runtime_dir= or STOKER_RUNTIME_DIR",
        )


def rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process's rank and the number of ranks: arguments, else RANK and WORLD_SIZE, else 0 of 1.

    Raises
    ------
    InvalidError
        They contradict each other, or only one of them is known.
    """
    if world_size is None:
        world_size = _number("WORLD_SIZE")
    if rank is None and world_size != 1:
        rank = _number("RANK")
    if world_size is None and rank not in (None, 0):
        raise InvalidError(f"rank {rank} is known, but not of how many", "world_size", "pass world_size= as well")
    if rank is None and world_size not in (None, 1):
        raise InvalidError(
            f"world_size is {world_size}, but which of those ranks this is, is not known", "rank", "pass rank= as well"
        )
    rank, world_size = rank or 0, 1 if world_size is None else world_size
    if world_size < 1 or not 0 <= rank < world_size:
        raise InvalidError(
            f"rank {rank} of world_size {world_size} does not exist", "rank", "ranks count from 0 to world_size - 1"
        )
    return rank, world_size


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidError(
            f"the environment variable {name} is {text!r}, not a whole number", name, f"correct or unset {name}"
        ) from None


def ranks_on_node() -> int:
    """How many ranks share this machine: LOCAL_WORLD_SIZE, else 1."""
    return max(1, _number("LOCAL_WORLD_SIZE") or 1)


def job_identity(argument: str | None, environment: Mapping[str, str] | None = None) -> str:
    """What sessions of one job have in common: argument, torchelastic's or SLURM's id, else the process group."""
    environment = os.environ if environment is None else environment
    if argument:
        return argument
    elastic = environment.get("TORCHELASTIC_RUN_ID")
    if elastic and elastic != "none":  # torchrun's default: every such job of the node would be one
        return f"torchelastic-{elastic}"
    if slurm := environment.get("SLURM_JOB_ID"):
        return f"slurm-{slurm}"
    return f"process-group-{os.getpgid(0)}"


def cuda_library() -> str | None:
    """The CUDA driver's library, if STOKER_CUDA_LIB names one; the daemon looks there, too."""
    return os.environ.get("STOKER_CUDA_LIB") or None


def client_name(version: str) -> str:
    """How this process introduces itself to the daemon, with its place on the node if there is one."""
    name = f"stoker-python/{version}"
    local_rank, local_world = os.environ.get("LOCAL_RANK"), os.environ.get("LOCAL_WORLD_SIZE")
    if local_rank and local_world:
        name += f" local-rank {local_rank:.8}/{local_world:.8}"
    return name

"""T0: the machine as it is, in texts that somebody can read when a figure surprises."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

FILES = {
    "driver": "/proc/driver/nvidia/version",
    "driver_parameters": "/proc/driver/nvidia/params",
    "nvidia_fs": "/proc/driver/nvidia-fs/version",
    "cufile_json": "/etc/cufile.json",
    "kernel_command_line": "/proc/cmdline",
    "cgroup_memory_max": "/sys/fs/cgroup/memory.max",
    "cgroup_cpu_max": "/sys/fs/cgroup/cpu.max",
    "transparent_huge_pages": "/sys/kernel/mm/transparent_hugepage/enabled",
}
COMMANDS = {
    "nvidia_smi": ["nvidia-smi"],
    "nvidia_smi_bar1": ["nvidia-smi", "-q", "-d", "MEMORY,PCIE"],
    "modules": ["lsmod"],
    "block_devices": ["lsblk", "-o", "NAME,TYPE,TRAN,ROTA,SIZE,MODEL,MOUNTPOINTS"],
}
LONGEST = 20_000  # characters of one text


def describe(directory: Path) -> dict[str, Any]:
    """All of it; what cannot be read is named with the reason."""
    found: dict[str, Any] = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "locked_memory_limit": _field("/proc/self/limits", "Max locked memory", ""),
        "data_mount": mount_of(directory),
        "data_mount_direct_loop": _loop_of(directory),
        "udev_readable": os.access("/run/udev", os.R_OK | os.X_OK),
        "containers_marker": [path for path in ("/.dockerenv", "/run/.containerenv") if Path(path).exists()],
        "load_average": os.getloadavg()[0],
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    found.update({name: _text(path) for name, path in FILES.items()})
    found.update({name: _output(command) for name, command in COMMANDS.items()})
    return found


def memory_bytes() -> int:
    """Host memory that may be taken: what is available, and not more than a control group leaves."""
    fields = _field("/proc/meminfo", "MemAvailable").split()
    available = int(fields[0]) << 10 if fields else 0
    limits = [_text(path) for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    return min([available, *(int(limit) for limit in limits if limit.isdigit())])


def direct_ready(directory: Path) -> bool:
    """Whether a folder is on a file system that cuFile takes: XFS, or ext4 whose mount shows data=ordered."""
    line = mount_of(directory)
    return " - xfs " in line or (" - ext4 " in line and "data=ordered" in line)


def mount_of(directory: Path) -> str:
    """The line of the mount table that a folder lies on."""
    device = os.stat(directory).st_dev
    wanted = f" {os.major(device)}:{os.minor(device)} "
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next((line for line in reversed(lines) if wanted in line), "not in /proc/self/mountinfo")


def _loop_of(directory: Path) -> str | None:
    """Whether the loop device below a folder reads past the page cache (1) or not (0); None if there is none."""
    source = mount_of(directory).partition(" - ")[2].split(" ")[1:2]
    name = Path(source[0]).name if source else ""
    return _text(f"/sys/block/{name}/loop/dio") if name.startswith("loop") else None


def file_system(directory: Path) -> str:
    """The type of the file system that a folder lies on."""
    line = mount_of(directory)
    _, _, after = line.partition(" - ")
    return after.split(" ")[0]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()[:LONGEST]
    except OSError as error:
        return f"({error.strerror})"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"({error})"
    return (done.stdout or done.stderr).strip()[:LONGEST]


def _field(path: str, name: str, separator: str = ":") -> str:
    for line in _text(path).splitlines():
        if line.startswith(name):
            return line.removeprefix(name).strip().removeprefix(separator).strip()
    return ""

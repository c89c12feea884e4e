"""Write python/requirements/constraints.txt: every package that the requirement files pull in.

Asks each Python given on the command line what its pip would install, without
installing anything, and merges the answers:

    internal/tools/pins.py python3.10 python3.11 python3.12 python3.13

A package whose version depends on the Python gets one line per version, with a
marker. Run it after changing a requirement file, and commit the result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "python" / "requirements"
HEADER = """\
# Written by internal/tools/pins.py; do not edit. Exact versions of all that
# dev.txt, torch.txt and torchdata.txt pull in.
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Return (python's "major.minor", {package: version}) that pip would install there."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([python, "-m", "venv", scratch], check=True)
        pip = [f"{scratch}/bin/python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        report = Path(scratch) / "report.json"
        files = [REQUIREMENTS / name for name in ("dev.txt", "torch.txt", "torchdata.txt")]
        wanted = [argument for file in files for argument in ("-r", str(file))]
        subprocess.run([*pip, "--dry-run", "--report", str(report), *wanted], check=True)
        answer = json.loads(report.read_text())
    packages = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in answer["install"]
    }
    return answer["environment"]["python_version"], packages


def minor(version: str) -> int:
    """Return 11 for "3.11"."""
    return int(version.split(".")[1])


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Return the constraint lines for {python version: {package: version}}."""
    pythons = sorted(resolved, key=minor)
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python in pythons:
        for package, version in resolved[python].items():
            versions[package][version].append(python)
    result = []
    for package in sorted(versions):
        choices = versions[package]
        if len(choices) == 1:
            result.append(f"{package}=={next(iter(choices))}")
            continue
        for version, users in choices.items():
            low, high = users[0], users[-1]
            marker = f'python_version >= "{low}"'
            if high != pythons[-1]:
                marker += f' and python_version <= "{high}"'
            result.append(f"{package}=={version}; {marker}")
    return result


def main() -> int:
    """Resolve for each Python and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("python", nargs="+", help="interpreters to resolve for")
    resolved = {}
    for python in parser.parse_args().python:
        version, packages = resolve(python)
        resolved[version] = packages
        print(f"Python {version}: {len(packages)} packages", file=sys.stderr)
    text = HEADER + "\n".join(lines(resolved)) + "\n"
    (REQUIREMENTS / "constraints.txt").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Time that Python's tarfile takes to list shards: ``python tar_list.py SHARD...``.

What an index needs of each member is kept: name, offset of its data, size. Prints the
members of each shard and the seconds it took, as JSON.
"""

from __future__ import annotations

import json
import sys
import tarfile
import time


def members_of(path: str) -> list[tuple[str, int, int]]:
    """Return name, offset of the data and size of all regular members of an archive."""
    with tarfile.open(path, "r:") as archive:
        return [(member.name, member.offset_data, member.size) for member in archive if member.isreg()]


def main() -> None:
    """List each shard in turn."""
    answers = []
    for path in sys.argv[1:]:
        begin = time.perf_counter()
        members = members_of(path)
        answers.append({"members": len(members), "seconds": time.perf_counter() - begin})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()

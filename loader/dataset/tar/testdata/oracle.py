"""What Python's tarfile and webdataset find in archives: the oracle of oracle_test.go.

Reads from standard input, again and again, 8 bytes of little-endian length and an
archive of that length; writes a line of JSON for each:

    samples  list of [key, [[suffix, bytes, CRC-32 of the data], ...]], names in hex
    error    why the archive was refused, "" if it was read to its end
    stop     kind of the header error at which tarfile took the archive for ended, if any
    offset   where that header is
    python   version of the interpreter
"""

import binascii
import io
import json
import os
import platform
import resource
import signal
import sys
import tarfile
from collections.abc import Iterator
from types import FrameType
from typing import Any, ClassVar

from webdataset import tariterators  # type: ignore[import-untyped,unused-ignore]

# tarfile reads sparse members with some wrong maps for ever, which counts as refusing.
SECONDS = 2.0  # of CPU time: the machine may be busy


def too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("tarfile does not come to an end")


class Recording(tarfile.TarInfo):
    """Notes the last header that tarfile could not use, which it does not tell."""

    stop: ClassVar[tuple[str, int]] = ("", -1)

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "Recording":
        offset = archive.fileobj.tell()
        try:
            return super().fromtarfile(archive)
        except Exception as error:
            if Recording.stop[1] < 0:  # the innermost
                Recording.stop = (type(error).__name__, offset)
            raise


def samples(archive: bytes) -> Iterator[dict[str, Any]]:
    source = [{"url": "archive", "stream": io.BytesIO(archive)}]
    found: Iterator[dict[str, Any]] = tariterators.group_by_keys(tariterators.tar_file_expander(source))
    return found


def encode(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").hex()


def judge(archive: bytes) -> dict[str, Any]:
    Recording.stop = ("", -1)
    found, error = [], ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        for sample in samples(archive):
            parts = [
                [encode(suffix), len(data), binascii.crc32(data)]
                for suffix, data in sample.items()
                if suffix not in ("__key__", "__url__")
            ]
            found.append([encode(sample["__key__"]), parts])
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    stop, offset = Recording.stop
    return {"samples": found, "error": error, "stop": stop, "offset": offset, "python": platform.python_version()}


def main() -> None:
    # A mutated size of a sparse member must fail, not take the machine's memory.
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    signal.signal(signal.SIGPROF, too_long)
    tarfile.TarFile.tarinfo = Recording
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "w")
    while head := source.read(8):
        json.dump(judge(source.read(int.from_bytes(head, "little"))), sink)
        sink.write("\n")
        sink.flush()


if __name__ == "__main__":
    main()

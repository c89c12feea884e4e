"""Makes the archives of this folder with the programs that people make theirs with.

    PYTHONUTF8=1 .venv/bin/python loader/dataset/tar/testdata/make.py loader/dataset/tar/testdata

needs webdataset and GNU tar 1.34 or newer (sparse files need a file system with
holes). expected.json holds what Python's tarfile and webdataset find in each.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import webdataset  # type: ignore[import-untyped,unused-ignore]
from oracle import judge

LONG = "a-directory-with-a-name-of-some-length/" * 4 + "0001.some.Extension"
VERY_LONG = "d/" * 1500 + "0002.jpg"
NAMES = ["0000.jpg", "0000.cls", "dir/0001.seg.PNG", "dir/0001.json", "./b.txt", "\u00e4/\u00fc.txt", LONG]


def content(index: int, name: str) -> bytes:
    return f"{index} {name[:40]}\n".encode() * (index * 11)


def python(folder: Path) -> None:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for label, number in formats.items():
        names = NAMES if label == "ustar" else [*NAMES, VERY_LONG]
        with tarfile.open(folder / f"python-{label}.tar", "w", format=number) as archive:
            archive.addfile(directory("dir"))
            for index, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.size = len(content(index, name))
                archive.addfile(member, io.BytesIO(content(index, name)))
            archive.addfile(link("link.jpg", "0000.jpg"))


def directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = tarfile.SYMTYPE, target, 700
    return member


def webdatasets(folder: Path) -> None:
    with webdataset.TarWriter(str(folder / "webdataset.tar"), mtime=0) as writer:
        for index in range(5):
            writer.write({"__key__": f"{index:06d}", "txt": f"text {index}", "cls": index, "json": {"i": index}})
    pattern = str(folder / "webdataset-%02d.tar")
    with webdataset.ShardWriter(pattern, maxcount=3, mtime=0, verbose=0) as writer:
        for index in range(5):
            writer.write({"__key__": f"k/{index}", "__note__": "x", "bin": bytes(index * 300)})


def gnu(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_files(root)
        cases = {
            "v7": ["--format=v7"],
            "oldgnu": ["--format=oldgnu"],
            "gnu": ["--format=gnu"],
            "ustar": ["--format=ustar"],
            "posix": ["--format=posix"],
            "gnu-sparse": ["--format=gnu", "--sparse"],
            "gnu-times": ["--format=gnu", "--incremental"],
            "posix-sparse-0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
            "posix-sparse-0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
            "posix-sparse-1.0": ["--format=posix", "--sparse", "--sparse-version=1.0"],
        }
        for label, options in cases.items():
            small = [] if "sparse" in label else ["--exclude=*.sparse", "--exclude=*.holes", "--exclude=*.many"]
            target = folder / f"tar-{label}.tar"
            fixed = ["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "--blocking-factor=1"]
            subprocess.run(["tar", *options, *fixed, *small, "-cf", str(target), "-C", place, "files"], check=True)


def make_files(root: Path) -> None:
    files = root / "files"
    files.mkdir()
    (files / "a.txt").write_text("hello\n")
    (files / "empty.txt").touch()
    os.symlink("a.txt", files / "link.txt")
    os.link(files / "a.txt", files / "z.txt")
    with open(files / "b.sparse", "wb") as f:  # data, hole, data, hole
        f.write(b"A" * 4096)
        f.seek(65536)
        f.write(b"B" * 5000)
        f.truncate(100_001)
    with open(files / "c.holes", "wb") as f:  # a hole and nothing else
        f.truncate(70_000)
    with open(files / "d.many", "wb") as f:  # more runs than one block of the map holds
        for index in range(30):
            f.seek(index * 16384)
            f.write(bytes([index + 1]) * 100)
        f.truncate(30 * 16384)
    long = files / ("e" * 90)
    long.mkdir()
    with open(long / ("f" * 60 + ".sparse"), "wb") as f:
        f.seek(8192)
        f.write(b"C" * 10)


def main() -> None:
    folder = Path(sys.argv[1])
    for old in folder.glob("*.tar*"):
        old.unlink()
    python(folder)
    webdatasets(folder)
    gnu(folder)
    expected = {path.name: judge(path.read_bytes()) for path in sorted(folder.glob("*.tar"))}
    for path in folder.glob("*-sparse*.tar"):  # mostly zeros
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    lines = (f"{json.dumps(name)}: {json.dumps(found)}" for name, found in expected.items())
    (folder / "expected.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()

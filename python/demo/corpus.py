"""Turns a tree of text files into one token file: nanoGPT's .bin, a token a byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

SEPARATOR = b"\0"
_LOOK_BYTES = 8192


class TooLittleTextError(Exception):
    """There is not enough text under the given folder."""


def text_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below folder in a fixed order."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def read_text(path: Path, limit: int) -> bytes:
    """Return up to limit bytes of a text file; nothing of one that is binary or unreadable."""
    try:
        with path.open("rb") as file:
            text = file.read(limit)
    except OSError:
        return b""
    return b"" if SEPARATOR in text[:_LOOK_BYTES] else text


def write_tokens(folder: Path, target: Path, limit: int, at_least: int) -> tuple[int, int]:
    """Write the text below folder as little-endian uint16 tokens, one a byte, to target.

    Returns the number of files and of tokens, of which there are at most ``limit``.

    Raises
    ------
    TooLittleTextError
        There are fewer than ``at_least`` tokens.
    """
    files = tokens = 0
    with target.open("wb") as out, tqdm(total=limit, unit="B", unit_scale=True, desc="text", mininterval=0.5) as bar:
        for path in text_files(folder):
            text = read_text(path, limit - tokens)
            if not text:
                continue
            text = (text + SEPARATOR)[: limit - tokens]
            np.frombuffer(text, np.uint8).astype("<u2").tofile(out)
            files += 1
            tokens += len(text)
            bar.update(len(text))
            if tokens >= limit:
                break
        bar.total = tokens
    if tokens < at_least:
        raise TooLittleTextError(
            f"{folder} holds {tokens} bytes of text in {files} files; {at_least} are needed\n"
            "remedy: name a folder with more text: make demo DATA=/path/to/texts"
        )
    return files, tokens

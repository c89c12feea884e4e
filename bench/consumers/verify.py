"""Proof that a row delivers the dataset's bytes and no others.

The data that ``bench`` makes says of itself where it belongs: every 8 bytes are
an invertible mix of their own position, so that any row of it can be located and
then recomputed. The same arithmetic is in ``bench/data.go``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from touch import array_of

RAW_SALT = 0x7261_7700_0000_0000
RAW_FILE_SHIFT = 20  # a file has fewer than 2**20 words
TOKEN_SALT = 0x746F_6B65_0000_0000
TAR_SMALL_SALT = 0x7461_7273_0000_0000  # of tar-4k; tar-100k holds the raw files

_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_INVERSE_1 = np.uint64(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
_INVERSE_2 = np.uint64(pow(0x94D049BB133111EB, -1, 1 << 64))

Words = np.ndarray[Any, np.dtype[np.uint64]]


def mix(words: Words) -> Words:
    """Return splitmix64's finalizer of each word."""
    z = words.astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    mixed: Words = z ^ (z >> np.uint64(31))
    return mixed


def _unshift(words: Words, bits: int) -> Words:
    """Invert ``x ^ (x >> bits)``."""
    x = words
    done = bits
    while done < 64:
        x = words ^ (x >> np.uint64(bits))
        done += bits
    return x


def unmix(words: Words) -> Words:
    """Invert ``mix``."""
    z = _unshift(words.astype(np.uint64), 31) * _INVERSE_2
    z = _unshift(z, 27) * _INVERSE_1
    return _unshift(z, 30)


def file_numbers(rows: np.ndarray[Any, Any], salt: int, files: int) -> list[int]:
    """Return the file (or member) number of each row of [B, file bytes] uint8, -1 for wrong bytes."""
    words = np.ascontiguousarray(rows).view("<u8")
    starts = unmix(words[:, 0]) - np.uint64(salt)
    steps = np.arange(words.shape[1], dtype=np.uint64)
    expected = mix(starts[:, None] + np.uint64(salt) + steps[None, :])
    numbers = starts >> np.uint64(RAW_FILE_SHIFT)
    whole = (starts % np.uint64(1 << RAW_FILE_SHIFT) == 0) & (numbers < np.uint64(files))
    right = (expected == words).all(axis=1) & whole
    return [int(n) if ok else -1 for n, ok in zip(numbers, right, strict=True)]


def _token_start(row: np.ndarray[Any, Any], tokens: int) -> int:
    """Return the position of a row of uint16 in the token file, -1 if it is nowhere."""
    for shift in range(4):  # which token of the row is the first of an aligned word
        word = np.frombuffer(row[shift : shift + 4].tobytes(), "<u8")
        at = int((unmix(word) - np.uint64(TOKEN_SALT))[0]) * 4 - shift
        if 0 <= at <= tokens - len(row):
            return at
    return -1


def _tokens_at(start: int, count: int) -> np.ndarray[Any, Any]:
    """Return ``count`` tokens of the file from position ``start``."""
    first, last = start // 4, (start + count + 3) // 4
    words = mix(np.arange(first, last, dtype=np.uint64) + np.uint64(TOKEN_SALT))
    return words.view("<u2")[start - first * 4 :][:count]


def token_starts(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], tokens: int) -> list[int]:
    """Return the position of each row, -1 where x or y (x moved by one) is wrong."""
    starts = []
    for row_x, row_y in zip(x, y, strict=True):
        row = np.append(row_x, row_y[-1:]).astype(np.uint16)
        start = _token_start(row, tokens)
        right = start >= 0 and np.array_equal(row, _tokens_at(start, len(row)))
        same = np.array_equal(row_x[1:], row_y[:-1])
        starts.append(start if right and same else -1)
    return starts


def numbers_of(batch: Sequence[Any], config: dict[str, Any]) -> list[int]:
    """Return what sample each row of a batch is, -1 for one with wrong bytes."""
    arrays = [array_of(tensor) for tensor in batch]
    for array, shape in zip(arrays, config["shapes"], strict=True):
        if array.shape[1:] != tuple(shape) or array.dtype != np.dtype(config["dtype"]):
            return [-1] * array.shape[0]
    if config["case"] == "tokens-2048":
        return token_starts(arrays[0], arrays[1], int(config["tokens"]))
    salt = TAR_SMALL_SALT if config["case"] == "tar-4k" else RAW_SALT
    return file_numbers(arrays[0], salt, int(config["samples"]))

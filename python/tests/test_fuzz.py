"""Whatever bytes a ring holds, reading them gives a batch within its memory or a ProtocolError."""

from __future__ import annotations

import contextlib

from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker import _layout
from stoker._arrays import NumpyArrays
from stoker._layout import Entry
from stoker.batch import BatchBuilder, Column
from stoker.errors import ProtocolError

IMAGE = (REPOSITORY / "shm" / "testdata" / "ring-v1.bin").read_bytes()
GEOMETRY = _layout.read_geometry(IMAGE, len(IMAGE))
ENTRY = Entry._make(_layout.ENTRY_STRUCT.unpack_from(IMAGE, GEOMETRY.queue_offset))
SLOT = IMAGE[GEOMETRY.slots_offset + ENTRY.slot * GEOMETRY.slot_bytes :][: GEOMETRY.slot_bytes]
COLUMNS = [Column("data", "uint8", (), True), Column("label", "int64", (), False)]

# Small numbers and powers of two find borders; the rest is chance.
numbers = st.one_of(st.integers(0, 600), st.integers(0, 63).map(lambda bit: 1 << bit), st.integers(0, 2**64 - 1))
changes = st.lists(st.tuples(st.integers(0, 31), numbers), min_size=1, max_size=4)


def changed(content: bytes, words: list[tuple[int, int]]) -> bytearray:
    """Return a copy with some of its first 32 words replaced."""
    copy = bytearray(content)
    for word, value in words:
        copy[8 * word : 8 * word + 8] = value.to_bytes(8, "little")
    return copy


@settings(max_examples=1000, deadline=None)
@given(changes, st.integers(0, len(IMAGE)))
def test_a_header_is_read_within_its_mapping_or_refused(words: list[tuple[int, int]], size: int) -> None:
    header = changed(IMAGE[: _layout.HEADER_BYTES], words)
    with contextlib.suppress(ProtocolError):
        geometry = _layout.read_geometry(header, size)
        assert geometry.slots_offset + geometry.slots * geometry.slot_bytes <= size
        assert geometry.queue_offset + geometry.queue_entries * _layout.ENTRY_BYTES <= size
        assert geometry.released_offset + 8 * geometry.slots <= size


@settings(max_examples=1000, deadline=None)
@given(changes, st.integers(0, 8))
def test_a_batch_is_built_within_its_slot_or_refused(words: list[tuple[int, int]], rows: int) -> None:
    slot = changed(SLOT, words)
    with contextlib.suppress(ProtocolError):
        batch = BatchBuilder(COLUMNS, NumpyArrays()).build(slot, ENTRY._replace(rows=rows))
        data = batch["data"]
        assert len(data) == rows == len(batch["label"]) == len(batch.index)
        for piece in data:
            assert len(bytes(piece)) <= len(slot)

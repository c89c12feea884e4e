"""The shared memory layout, version 1: offsets, widths and their readers.

One memfd a session, little-endian, mapped writable by both sides::

    +--------------------+ 0
    | header page        | 4096 bytes: geometry, then words of each side
    +--------------------+ queue_offset
    | queue              | queue_entries x 128 bytes, written by the daemon
    +--------------------+ released_offset
    | released           | slots x u64, written by the trainer
    +--------------------+ slots_offset (multiple of 4096)
    | slots              | slots x slot_bytes, written by the daemon
    +--------------------+ total_bytes

The same numbers are committed as ``shm/testdata/layout-v1.json`` and checked by
the tests of both languages. Nothing here depends on numpy or torch.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .errors import ProtocolError

MAGIC: Final = int.from_bytes(b"STOKRNG1", "little")
LAYOUT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
ENTRY_BYTES: Final = 128
COLUMN_BYTES: Final = 32
SLOT_HEADER_BYTES: Final = 8
PACKET_BYTES: Final = 65536

KIND_BATCH: Final = 1
KIND_END_OF_EPOCH: Final = 2
KIND_ERROR: Final = 3
FLAG_OVERSIZED: Final = 1
NO_SLOT: Final = 0xFFFFFFFF

# name -> (offset in bytes, width in bytes)
HEADER_FIELDS: Final[dict[str, tuple[int, int]]] = {
    "magic": (0, 8),
    "layout_version": (8, 4),
    "header_bytes": (12, 4),
    "slots": (16, 4),
    "queue_entries": (20, 4),
    "slot_bytes": (24, 8),
    "queue_offset": (32, 8),
    "released_offset": (40, 8),
    "slots_offset": (48, 8),
    "total_bytes": (56, 8),
    "published": (64, 8),
    "ready_word": (72, 4),
    "daemon_waiting": (76, 4),
    "taken": (128, 8),
    "trainer_waiting": (136, 4),
    "release_word": (140, 4),
    "waited_ns": (192, 8),
    "waited_disk_ns": (200, 8),
    "waited_index_ns": (208, 8),
    "waited_order_ns": (216, 8),
    "waited_ring_ns": (224, 8),
    "waited_wake_ns": (232, 8),
    "batches_taken": (240, 8),
    "batches_copied": (248, 8),
    "waited_transform_ns": (256, 8),
    "worst": (320, 8),
    "worst_1": (400, 8),
    "worst_transform_ns": (1120, 8),
    "worst_transform_ns_1": (1128, 8),
}
# The trainer's longest waits, from "worst" on: waited_ns, five causes, then sequence, epoch, position, rows.
# A sixth cause, "transform", came later, and lies apart.
WORST_WAITS: Final = 10
WORST_WORDS: Final = 10

ENTRY_FIELDS: Final[dict[str, tuple[int, int]]] = {
    "sequence": (0, 8),
    "kind": (8, 4),
    "slot": (12, 4),
    "generation": (16, 8),
    "bytes": (24, 8),
    "rows": (32, 4),
    "flags": (36, 4),
    "epoch": (40, 8),
    "position": (48, 8),
    "samples_consumed": (56, 8),
    "source_bytes": (64, 8),
    "t_wait_slot": (72, 8),
    "t_order": (80, 8),
    "t_index": (88, 8),
    "t_read": (96, 8),
    "t_done": (104, 8),
    "disk_bytes": (112, 8),
    "reserved": (120, 8),
}

COLUMN_FIELDS: Final[dict[str, tuple[int, int]]] = {
    "values_offset": (0, 8),
    "values_bytes": (8, 8),
    "offsets_offset": (16, 8),
    "offsets_bytes": (24, 8),
}


def word64(field: str) -> int:
    """Index of a header field in the header seen as u64 words."""
    offset, width = HEADER_FIELDS[field]
    if width != 8:
        raise AssertionError(f"{field} is {width} bytes wide, not 8")
    return offset // 8


def word32(field: str) -> int:
    """Index of a header field in the header seen as u32 words."""
    offset, width = HEADER_FIELDS[field]
    if width != 4:
        raise AssertionError(f"{field} is {width} bytes wide, not 4")
    return offset // 4


class Geometry(NamedTuple):
    """The first 64 bytes of the header page; sizes and offsets in bytes."""

    magic: int
    layout_version: int
    header_bytes: int
    slots: int
    queue_entries: int
    slot_bytes: int
    queue_offset: int
    released_offset: int
    slots_offset: int
    total_bytes: int


class Entry(NamedTuple):
    """One queue entry. Times are CLOCK_MONOTONIC nanoseconds, in ascending order."""

    sequence: int
    kind: int
    slot: int
    generation: int
    bytes: int
    rows: int
    flags: int
    epoch: int
    position: int
    samples_consumed: int
    source_bytes: int
    t_wait_slot: int
    t_order: int
    t_index: int
    t_read: int
    t_done: int
    disk_bytes: int
    reserved: int


GEOMETRY_STRUCT: Final = struct.Struct("<QIIIIQQQQQ")
ENTRY_STRUCT: Final = struct.Struct("<QIIQQIIQQQQQQQQQQQ")
if GEOMETRY_STRUCT.size != 64 or ENTRY_STRUCT.size != ENTRY_BYTES:
    raise AssertionError("the struct formats do not add up to the layout")


def column_table_struct(columns: int) -> struct.Struct:
    """The start of a slot: columns, rows, then four u64 a column."""
    return struct.Struct("<II" + "QQQQ" * columns)


def read_geometry(mapping: bytes | bytearray | memoryview, mapped_bytes: int) -> Geometry:
    """Read and check the header page.

    Raises
    ------
    ProtocolError
        The mapping is no ring of this layout version, or its parts overlap or
        lie outside of ``mapped_bytes``.
    """
    if mapped_bytes < HEADER_BYTES:
        raise _bad_ring(f"{mapped_bytes} bytes are less than a header page")
    geometry = Geometry._make(GEOMETRY_STRUCT.unpack_from(mapping, 0))
    if geometry.magic != MAGIC:
        raise _bad_ring(f"magic 0x{geometry.magic:016x} is not 0x{MAGIC:016x}")
    if geometry.layout_version != LAYOUT_VERSION:
        raise ProtocolError(
            f"the ring has layout version {geometry.layout_version}, this client reads {LAYOUT_VERSION}",
            "ring header",
            "install the version of the Python package stoker that belongs to the running stokerd",
        )
    _check_parts(geometry, mapped_bytes)
    return geometry


def _check_parts(geometry: Geometry, mapped_bytes: int) -> None:
    entries = geometry.queue_entries
    if geometry.header_bytes != HEADER_BYTES or geometry.total_bytes != mapped_bytes:
        raise _bad_ring(f"header says {geometry.total_bytes} bytes in all, {mapped_bytes} are mapped")
    if geometry.slots == 0 or entries & (entries - 1) or entries < 2 * geometry.slots:
        raise _bad_ring(f"{geometry.slots} slots with {entries} queue entries")
    if geometry.slot_bytes == 0 or geometry.slot_bytes % 4096 or geometry.slots_offset % 4096:
        raise _bad_ring(f"slots of {geometry.slot_bytes} bytes at {geometry.slots_offset} are not whole pages")
    parts = [
        (0, HEADER_BYTES),
        (geometry.queue_offset, entries * ENTRY_BYTES),
        (geometry.released_offset, geometry.slots * 8),
        (geometry.slots_offset, geometry.slots * geometry.slot_bytes),
    ]
    end = 0
    for offset, size in parts:
        if offset < end or offset % 8:
            raise _bad_ring(f"a part at {offset} overlaps the one before it, which ends at {end}")
        end = offset + size
    if end > mapped_bytes:
        raise _bad_ring(f"the slots end at {end}, after the mapping of {mapped_bytes} bytes")


def _bad_ring(why: str) -> ProtocolError:
    return ProtocolError(
        f"the shared memory from the daemon is not a ring of layout version {LAYOUT_VERSION}: {why}",
        "ring header",
        "check that stokerd and the Python package stoker are of the same release",
    )

"""The layout that Python computes is the one committed for both languages."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from fake_daemon import FakeRing

from stoker import _layout
from stoker._arrays import NumpyArrays
from stoker._layout import Entry
from stoker.batch import BatchBuilder, Column
from stoker.errors import ProtocolError
from stoker.ring import Ring

VECTORS = REPOSITORY / "shm" / "testdata"


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / "layout-v1.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def image() -> bytes:
    return (VECTORS / "ring-v1.bin").read_bytes()


def places(fields: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: (place["offset"], place["width"]) for name, place in fields.items()}


def values(fields: dict[str, Any]) -> dict[str, int]:
    return {name: place["value"] for name, place in fields.items()}


def test_constants_are_those_of_the_vectors(vectors: dict[str, Any]) -> None:
    assert vectors["layout"] == _layout.LAYOUT_VERSION
    assert vectors["magic"] == _layout.MAGIC
    assert vectors["header_bytes"] == _layout.HEADER_BYTES
    assert vectors["entry_bytes"] == _layout.ENTRY_BYTES


def test_every_field_lies_where_the_vectors_say(vectors: dict[str, Any]) -> None:
    assert places(vectors["header"]) == _layout.HEADER_FIELDS
    entry = dict(_layout.ENTRY_FIELDS)
    assert entry.pop("reserved") == (120, 8)
    assert places(vectors["entry"]) == entry
    table = places(vectors["column_table"])
    assert (table.pop("columns"), table.pop("rows")) == ((0, 4), (4, 4))
    first = {name: (at + _layout.SLOT_HEADER_BYTES, width) for name, (at, width) in _layout.COLUMN_FIELDS.items()}
    assert table == first


def test_geometry_of_the_image_is_read_as_written(vectors: dict[str, Any], image: bytes) -> None:
    geometry = _layout.read_geometry(image, len(image))
    expected = values(vectors["header"])
    assert geometry._asdict() == {name: expected[name] for name in geometry._fields}


def test_header_words_of_the_image_are_read_as_written(vectors: dict[str, Any], image: bytes) -> None:
    header = memoryview(image)[: _layout.HEADER_BYTES]
    for name, place in vectors["header"].items():
        if place["width"] == 8:
            assert header.cast("Q")[_layout.word64(name)] == place["value"], name
        else:
            assert header.cast("I")[_layout.word32(name)] == place["value"], name


def test_entry_of_the_image_is_read_as_written(vectors: dict[str, Any], image: bytes) -> None:
    geometry = _layout.read_geometry(image, len(image))
    entry = Entry._make(_layout.ENTRY_STRUCT.unpack_from(image, geometry.queue_offset))
    assert entry._asdict() == {**values(vectors["entry"]), "reserved": 0}


def test_released_words_of_the_image_lie_where_the_header_says(vectors: dict[str, Any], image: bytes) -> None:
    geometry = _layout.read_geometry(image, len(image))
    words = np.frombuffer(image, np.uint64, geometry.slots, geometry.released_offset)
    assert words.tolist() == vectors["released"]


def test_batch_of_the_image_is_built_as_written(vectors: dict[str, Any], image: bytes) -> None:
    described, geometry = vectors["batch"], _layout.read_geometry(image, len(image))
    entry = Entry._make(_layout.ENTRY_STRUCT.unpack_from(image, geometry.queue_offset))
    assert described["slot_offset"] == geometry.slots_offset + entry.slot * geometry.slot_bytes
    slot = bytearray(image[described["slot_offset"] :][: geometry.slot_bytes])
    columns = [Column("data", "uint8", (), True), Column("label", "int64", (), False)]
    batch = BatchBuilder(columns, NumpyArrays()).build(slot, entry)
    assert batch["data"].values.tobytes().decode() == described["text"]
    assert batch["data"].offsets.tolist() == described["offsets"]
    assert [batch["label"].tolist(), batch.index.tolist()] == described["values"]
    assert batch.rows == described["rows"]


@pytest.mark.parametrize(
    "different",
    [
        {"magic": 0},
        {"layout_version": 2},
        {"header_bytes": 8192},
        {"slots": 0},
        {"slots": 1 << 20},
        {"queue_entries": 7},
        {"queue_entries": 2},
        {"slot_bytes": 100},
        {"slot_bytes": 1 << 40},
        {"queue_offset": 0},
        {"queue_offset": 1 << 50},
        {"released_offset": 4096},
        {"released_offset": 4097},
        {"slots_offset": 4096},
        {"slots_offset": 5000},
        {"total_bytes": 1},
    ],
    ids=str,
)
def test_a_ring_with_an_impossible_header_is_refused(different: dict[str, int]) -> None:
    fake = FakeRing()
    fake.write_header(**different)
    with pytest.raises(ProtocolError, match=r"of the same release|belongs to the running"):
        Ring(fake.map())
    fake.close()


def test_a_mapping_shorter_than_a_header_is_refused() -> None:
    with pytest.raises(ProtocolError, match="less than a header page"):
        Ring(mmap.mmap(-1, 100))


def test_the_vectors_are_committed_beside_the_go_package() -> None:
    assert {path.name for path in Path(VECTORS).glob("*-v1.*")} == {"hints-v1.json", "layout-v1.json", "ring-v1.bin"}

"""Batches and ragged columns, over memory made for the test."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from fake_daemon import pack_batch, raw_batch, token_batch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_convert

from stoker import _layout
from stoker._arrays import Arrays, NumpyArrays, TorchArrays
from stoker._collate import refuse_collating
from stoker._layout import KIND_BATCH, Entry
from stoker.batch import Batch, BatchBuilder, Column, Ragged, read_columns
from stoker.errors import InvalidError, ProtocolError

RAW = [Column("data", "uint8", (), True), Column("label", "int64", (), False)]
ARRAYS: list[Any] = [pytest.param(NumpyArrays(), id="numpy"), pytest.param(TorchArrays(), id="torch")]


def tokens(dtype: str = "uint16") -> list[Column]:
    return [Column("tokens", dtype, (9,), False)]


def entry(content: bytes | bytearray, rows: int) -> Entry:
    values: dict[str, int] = dict.fromkeys(Entry._fields, 0)
    return Entry(**{**values, "kind": KIND_BATCH, "bytes": len(content), "rows": rows, "epoch": 3, "position": 5})


def build(columns: list[Column], content: bytes, rows: int, arrays: Arrays, dtype: Any = None) -> Batch:
    return BatchBuilder(columns, arrays, dtype).build(bytearray(content), entry(content, rows))


def raw(arrays: Arrays, contents: list[bytes]) -> Batch:
    return build(RAW, raw_batch(contents, list(range(len(contents)))), len(contents), arrays)


@pytest.mark.parametrize("arrays", ARRAYS)
def test_x_and_y_are_views_of_one_tensor_of_the_source_type(arrays: Arrays) -> None:
    batch = build(tokens(), token_batch([3, 70000], 8), 2, arrays)
    assert list(batch) == ["x", "y"]
    assert (tuple(batch.tokens.shape), tuple(batch["x"].shape), tuple(batch["y"].shape)) == ((2, 9), (2, 8), (2, 8))
    assert str(batch["x"].dtype).endswith("uint16")
    assert batch["y"].tolist() == [list(range(4, 12)), list(range(4465, 4473))]
    batch.tokens[0, 1] = 99
    assert batch["x"][0, 1] == 99 == batch["y"][0, 0]
    assert batch.index.tolist() == [3, 70000]
    assert (batch.epoch, batch.position, batch.rows) == (3, 5, 2)


@pytest.mark.parametrize("arrays", ARRAYS)
@pytest.mark.parametrize("dtype", ["int64", torch.int64, np.int64, np.dtype("int64"), "torch.int64"], ids=str)
def test_another_element_type_on_request_keeps_large_tokens_positive(arrays: Arrays, dtype: Any) -> None:
    batch = build(tokens(), token_batch([65530], 8), 1, arrays, dtype)
    assert str(batch["x"].dtype).endswith("int64")
    assert batch["y"].tolist() == [[65531, 65532, 65533, 65534, 65535, 0, 1, 2]]
    assert batch.index.tolist() == [65530]


def test_a_conversion_frees_the_slot_at_once() -> None:
    content = bytearray(token_batch([1, 2], 8))
    batch = BatchBuilder(tokens(), TorchArrays(), torch.int64).build(content, entry(content, 2))
    content.append(0)  # would be a BufferError under a live view
    assert batch.index.tolist() == [1, 2]


@pytest.mark.parametrize("arrays", ARRAYS)
def test_asking_for_the_type_that_tokens_have_copies_nothing(arrays: Arrays) -> None:
    content = bytearray(token_batch([1], 8))
    batch = BatchBuilder(tokens(), arrays, "uint16").build(content, entry(content, 1))
    content[128] = 77  # the first token
    assert batch["x"][0, 0] == 77


def test_a_torch_without_unsigned_types_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = TorchArrays()
    for name in ("uint16", "uint32", "uint64"):
        monkeypatch.delitem(arrays._dtypes, name)
    with pytest.raises(InvalidError, match=r"pass dtype=torch\.int64"):
        BatchBuilder(tokens(), arrays)
    batch = build(tokens(), token_batch([65530], 8), 1, arrays, torch.int64)
    assert batch["y"][0, :5].tolist() == [65531, 65532, 65533, 65534, 65535]
    assert batch["x"].dtype == torch.int64


@pytest.mark.parametrize("arrays", ARRAYS)
def test_an_element_type_that_does_not_exist_is_named(arrays: Arrays) -> None:
    with pytest.raises(InvalidError, match="no element type int7"):
        BatchBuilder(tokens(), arrays, "int7")


@pytest.mark.parametrize("arrays", ARRAYS)
def test_ragged_columns_are_memoryviews_and_values_with_offsets(arrays: Arrays) -> None:
    contents = [b"abc", b"", b"defgh"]
    batch = raw(arrays, contents)
    data = batch["data"]
    assert isinstance(data, Ragged)
    assert [bytes(view) for view in data] == contents
    assert [bytes(data[row]) for row in (0, 1, 2, -1, -3)] == [b"abc", b"", b"defgh", b"defgh", b"abc"]
    assert (len(data), data.lengths(), data.offsets.tolist()) == (3, [3, 0, 5], [0, 3, 3, 8])
    assert bytes(data.values.tolist()) == b"abcdefgh"
    assert batch["label"].tolist() == [0, 1, 2]
    data[0][1] = ord("X")
    assert data.values.tolist()[1] == ord("X"), "rows are views, not copies"
    for row in (3, -4):
        with pytest.raises(IndexError, match="3 rows"):
            data[row]


@pytest.mark.parametrize("arrays", ARRAYS)
def test_equal_lengths_are_seen_as_a_rectangle_without_a_copy(arrays: Arrays) -> None:
    data = raw(arrays, [b"abcd", b"efgh"])["data"]
    dense = data.dense()
    assert tuple(dense.shape) == (2, 4)
    dense[1, 0] = ord("X")
    assert bytes(data[1]) == b"Xfgh"
    with pytest.raises(InvalidError, match="rows of 1 to 2 elements are no rectangle"):
        raw(arrays, [b"a", b"bc"])["data"].dense()


@pytest.mark.parametrize("arrays", ARRAYS)
def test_batches_without_rows_or_bytes_are_batches(arrays: Arrays) -> None:
    batch = build(tokens(), token_batch([], 8), 0, arrays)
    assert (tuple(batch["x"].shape), batch.index.tolist()) == ((0, 8), [])
    empty = raw(arrays, [])
    assert (len(empty["data"]), list(empty["data"]), tuple(empty["data"].dense().shape)) == (0, [], (0, 0))
    hollow = raw(arrays, [b"", b""])
    assert [bytes(view) for view in hollow["data"]] == [b"", b""]
    assert tuple(hollow["data"].dense().shape) == (2, 0)


@pytest.mark.parametrize("arrays", ARRAYS)
def test_ragged_columns_of_wider_elements_count_elements(arrays: Arrays) -> None:
    values, offsets = np.arange(5, dtype=np.int32), np.array([0, 2, 5])
    content = pack_batch([(values, offsets), (np.arange(2), None)], 2)
    data = build([Column("boxes", "int32", (), True)], content, 2, arrays)["boxes"]
    assert [view.tolist() for view in data] == [[0, 1], [2, 3, 4]]


def test_torchs_collate_functions_leave_a_batch_whole() -> None:
    batch = raw(TorchArrays(), [b"abc", b"d"])
    converted = default_convert(batch)  # type: ignore[no-untyped-call]
    assert isinstance(converted, Batch)
    assert converted["data"] is batch["data"]
    assert (converted.position, converted.index.tolist()) == (5, [0, 1])
    assert set(default_collate([{"label": batch["label"]}])) == {"label"}


def test_a_batch_moves_its_tensors_to_a_device_and_nothing_else() -> None:
    batch = raw(TorchArrays(), [b"abc", b"d"])
    batch["views"] = [torch.zeros(2), {"n": 1, "t": torch.ones(1)}, "text"]
    batch["names"], batch["array"] = ["a", ["b"]], np.zeros(2)
    moved = batch.to("meta")
    assert type(moved) is Batch
    assert list(moved) == list(batch)
    assert [batch["label"].device.type, moved["label"].device.type] == ["cpu", "meta"]
    views = moved["views"]
    assert (views[0].device.type, views[1]["t"].device.type, views[1]["n"], views[2]) == ("meta", "meta", 1, "text")
    assert all(moved[name] is batch[name] for name in ("data", "names", "array"))
    assert (moved.position, moved.rows, moved.waited, moved.index.tolist()) == (5, 2, batch.waited, [0, 1])
    assert moved.present("label").tolist() == [True, True]
    same = batch.to(torch.device("cpu"), non_blocking=True)
    assert all(same[name] is batch[name] for name in batch)


def test_tokens_are_moved_once_and_stay_one_tensor() -> None:
    batch = build(tokens(), token_batch([3, 70000], 8), 2, TorchArrays())
    moved = batch.to("meta")
    assert moved["x"]._base is moved["y"]._base is moved.tokens
    assert (moved["x"].shape, moved["y"].stride(), moved.tokens.dtype) == ((2, 8), (9, 1), torch.uint16)
    batch["x"] = batch["x"].long()
    own = batch.to("meta")
    assert (own["x"].dtype, own["x"].device.type) == (torch.int64, "meta")
    assert own["y"]._base is own.tokens
    del batch["y"]
    assert list(batch.to("meta")) == ["x"]


def test_a_moved_batch_does_not_hold_the_slot() -> None:
    buffer = (ctypes.c_ubyte * 4096)()
    content = token_batch([3, 70000], 8)
    ctypes.memmove(buffer, content, len(content))
    alive = weakref.ref(buffer)
    moved = BatchBuilder(tokens(), TorchArrays()).build(buffer, entry(content, 2)).to("meta")
    del buffer
    gc.collect()
    assert alive() is None
    assert moved.index.tolist() == [3, 70000]


def test_batches_of_arrays_have_nothing_to_move() -> None:
    for batch in (raw(NumpyArrays(), [b"abc", b"d"]), build(tokens(), token_batch([3], 8), 1, NumpyArrays())):
        moved = batch.to("meta")
        assert all(moved[name] is batch[name] for name in batch)


def test_lightning_moves_a_batch_as_a_batch() -> None:
    from lightning_fabric.utilities.apply_func import move_data_to_device

    batch = build(tokens(), token_batch([3], 8), 1, TorchArrays())
    moved = move_data_to_device(batch, torch.device("meta"))
    assert type(moved) is Batch
    assert (moved["x"].device.type, moved.index.tolist(), moved.epoch) == ("meta", [3], 3)


@pytest.mark.parametrize("arrays", ARRAYS)
def test_batches_survive_copying_and_pickling(arrays: Arrays) -> None:
    batch = build(tokens(), token_batch([3], 8), 1, arrays, "int64")  # torch cannot unpickle its uint16
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert type(twin) is Batch
        assert twin["x"].tolist() == batch["x"].tolist()
        assert (twin.epoch, twin.index.tolist(), twin.waited) == (3, [3], batch.waited)
    ragged = pickle.loads(pickle.dumps(raw(arrays, [b"abc", b"d"])))["data"]
    assert [bytes(view) for view in ragged] == [b"abc", b"d"]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 3),  # columns
        (4, 7),  # rows
        (8, 4096),  # values offset
        (16, 1 << 40),  # values bytes
        (16, 2),
        (40, 1 << 60),  # the index
        (48, 4),
    ],
)
def test_a_column_table_that_does_not_fit_is_refused(at: int, value: int) -> None:
    content = bytearray(token_batch([1, 2], 8))
    width = 4 if at < 8 else 8
    content[at : at + width] = value.to_bytes(width, "little")
    with pytest.raises(ProtocolError, match="is damaged"):
        BatchBuilder(tokens(), NumpyArrays()).build(content, entry(bytes(content), 2))


@pytest.mark.parametrize(("at", "value"), [(8, 1 << 30), (16, 1 << 30), (24, 1 << 30), (32, 8)])
def test_a_ragged_column_that_does_not_fit_is_refused(at: int, value: int) -> None:
    content = bytearray(raw_batch([b"abc", b"d"], [0, 1]))
    content[at : at + 8] = value.to_bytes(8, "little")
    with pytest.raises(ProtocolError, match="is damaged"):
        BatchBuilder(RAW, NumpyArrays()).build(content, entry(bytes(content), 2))


def test_columns_are_read_as_described() -> None:
    described = [{"name": "label", "dtype": "int64", "shape": None, "ragged": False}]
    assert read_columns(described) == [Column("label", "int64", (), False)]
    for nonsense in (None, [], [3], [{"name": 1, "dtype": "int64"}], [{"name": "a", "dtype": "int64", "shape": "x"}]):
        with pytest.raises(ProtocolError, match="cannot read"):
            read_columns(nonsense)


def test_tables_of_many_columns_have_their_size() -> None:
    assert _layout.column_table_struct(5).size == 8 + 5 * 32


@pytest.mark.parametrize("count", [1, 3])
def test_torch_is_told_not_to_collate_whole_batches(count: int) -> None:
    refuse_collating()  # as importing stoker.Dataset does
    batches = [raw(TorchArrays(), [b"abc", b"d"]) for _ in range(count)]
    for elements in (batches, [batch["data"] for batch in batches], [dict(batch) for batch in batches]):
        with pytest.raises(InvalidError, match=f"collate {count} of stoker's") as raised:
            default_collate(elements)
        assert "DataLoader(ds, batch_size=None)" in raised.value.remedy


def test_a_torch_without_a_table_of_collate_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.utils.data._utils.collate.default_collate_fn_map")
    refuse_collating()

"""Batches and samples of parts: select=, missing=, decode= and allow_pickle=, against a scripted daemon."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import eventually
from fake_daemon import FakeDaemon, Polite
from test_decode import npy

import stoker
from stoker._select import make_select
from stoker.errors import CorruptError, InvalidError, OutOfRangeError, TransformError

IMAGES = [b"jpeg of %d" % number for number in range(10)]


def contents(**more: Any) -> list[dict[str, bytes]]:
    """Ten samples; ``more`` adds parts, as functions of the number that may return None."""
    made: list[dict[str, bytes]] = []
    for number in range(10):
        sample = {"jpg": IMAGES[number], "cls": b"%d\n" % number, "json": b'{"n": %d}' % number}
        for part, make in more.items():
            content = make(number)
            if content is not None:
                sample[part.replace("_", ".")] = content
        made.append(sample)
    return made


def dataset(tmp_path: Path, **arguments: Any) -> Any:
    settings: dict[str, Any] = {"batch_size": 4, "runtime_dir": tmp_path, "timeout": 20.0}
    return stoker.Dataset("shards", **{**settings, **arguments})


@pytest.mark.parametrize("transport", ["ring", "socket"])
@pytest.mark.parametrize("return_tensors", ["torch", "numpy"])
def test_parts_come_by_their_types(tmp_path: Path, transport: str, return_tensors: str) -> None:
    made = contents(
        txt=lambda n: f"caption {n} é".encode(),
        a_npy=lambda n: npy(np.arange(n)),
        b_index=lambda n: b" %d " % -n,
    )
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, transport=transport, return_tensors=return_tensors)
        batches = list(ds)
        assert [batch.rows for batch in batches] == [4, 4, 2]
        kind = torch.Tensor if return_tensors == "torch" else np.ndarray
        first = 0
        for batch in batches:
            numbers = list(range(first, first + batch.rows))
            assert list(batch) == ["a.npy", "b.index", "cls", "jpg", "json", "txt"]
            assert isinstance(batch["jpg"], stoker.Ragged)
            assert [bytes(view) for view in batch["jpg"]] == IMAGES[first : first + batch.rows]
            for name, sign in (("cls", 1), ("b.index", -1)):
                assert isinstance(batch[name], kind)
                assert str(batch[name].dtype).endswith("int64")
                assert batch[name].tolist() == [sign * n for n in numbers]
            assert batch["json"] == [{"n": n} for n in numbers]
            assert batch["txt"] == [f"caption {n} é" for n in numbers]
            assert [array.tolist() for array in batch["a.npy"]] == [list(range(n)) for n in numbers]
            assert batch.index.tolist() == numbers
            assert isinstance(batch.present("jpg"), kind)
            assert batch.present("jpg").tolist() == [True] * batch.rows
            first += batch.rows
        with pytest.raises(InvalidError, match="no column 'png'"):
            batches[0].present("png")
        assert len(ds) == 3
        ds.close()


def test_without_decoding_all_parts_are_bytes(tmp_path: Path) -> None:
    made = contents(pkl=lambda n: pickle.dumps(n), png=lambda n: b"p" if n == 2 else None)
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, decode=False)
        batch = next(iter(ds))
        assert all(isinstance(column, stoker.Ragged) for column in batch.values())
        assert [bytes(view) for view in batch["cls"]] == [b"0\n", b"1\n", b"2\n", b"3\n"]
        assert [pickle.loads(view) for view in batch["pkl"]] == [0, 1, 2, 3]
        assert batch["png"].lengths() == [0, 0, 1, 0]
        assert batch.present("png").tolist() == [False, False, True, False]
        assert "__present__" not in batch
        ds.close()


def test_selected_columns_come_in_their_order_and_by_their_names(tmp_path: Path) -> None:
    polite = Polite(contents=contents(png=lambda n: b"png of %d" % n if n % 2 else None))
    for sample in list(polite.contents or ())[1::2]:
        del sample["jpg"]  # type: ignore[attr-defined]
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path, select=["cls", "JPG;png"])
        batch = next(iter(ds))
        assert list(batch) == ["cls", "jpg"]
        assert bytes(batch["jpg"][1]) == b"png of 1"
        ds.close()
        ds = dataset(tmp_path, select={"label": "cls", "image": "png;jpg"})
        assert list(next(iter(ds))) == ["label", "image"]
        assert next(iter(ds))["label"].tolist() == [0, 1, 2, 3]
        sample = ds[3]
        assert (sample["label"], sample["image"]) == (3, b"png of 3")
        ds.close()
    opened = [request for request in polite.requests if request["type"] == "open"]
    assert opened[0]["select"] == [{"name": "cls", "parts": ["cls"]}, {"name": "jpg", "parts": ["jpg", "png"]}]
    assert "missing" not in opened[0]


def test_what_samples_lack_is_none_and_can_be_asked_for(tmp_path: Path) -> None:
    made = contents(txt=lambda n: b"" if n == 1 else b"t%d" % n if n % 2 else None)
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, return_tensors="torch")
        batch = next(iter(ds))
        assert batch["txt"] == [None, "", None, "t3"]
        for again in (batch, copy.copy(batch), pickle.loads(pickle.dumps(batch))):
            assert again.present("txt").tolist() == [False, True, False, True]
            assert again.present("txt").dtype == torch.bool
        assert "txt" in ds[0]
        assert ds[0]["txt"] is None
        assert ds[1]["txt"] == ""
        ds.close()
        with pytest.raises(InvalidError, match="lacks a column"):
            list(dataset(tmp_path, select=["txt"]))
        ds = dataset(tmp_path, select=["txt"], missing="empty")
        assert [value for batch in ds for value in batch["txt"]][:4] == [None, "", None, "t3"]
        ds.close()


def test_numbers_that_samples_lack_are_refused_before_the_first_batch(tmp_path: Path) -> None:
    made = contents(txt=lambda n: b"t" if n else None)
    made[5]["index"] = made[8]["index"] = b"1"
    behave = Polite(contents=made)
    with FakeDaemon(tmp_path, behave):
        ds = dataset(tmp_path)
        expected = "shards: 8 of 10 samples lack 'index', and a column of numbers has no place for nothing"
        for _ in range(2):
            with pytest.raises(InvalidError, match=expected) as raised:
                iter(ds)
        assert all(word in raised.value.remedy for word in ("select=", "decode=False", "transform="))
        assert (len(ds), ds[5]["index"], ds[0]["index"]) == (3, 1, None)
        ds.close()
        with pytest.raises(InvalidError, match="at least 8 of 10 samples lack 'id', 'index'"):
            iter(dataset(tmp_path, select={"a": "id;index"}, missing="empty"))
        for arguments in ({"decode": False}, {"select": ["cls", "jpg"]}, {"transform": len}, {"collate": len}):
            ds = dataset(tmp_path, **arguments)
            assert len(list(ds)) == 3
            ds.close()
        ds = dataset(tmp_path, select=["cls", "txt"], missing="empty")
        asked = len([request for request in behave.requests if request["type"] == "dataset_info"])
        assert [len(list(ds)) for _ in range(3)] == [3, 3, 3]
        ds.close()
    assert len([request for request in behave.requests if request["type"] == "dataset_info"]) == asked + 1


def test_a_number_that_is_missing_is_an_error_with_the_samples_name_and_next_goes_on(tmp_path: Path) -> None:
    made = contents()
    del made[6]["cls"]
    made[0]["id"] = b"0"  # so that the sums of the dataset do not tell
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, select={"cls": "cls;id"}, missing="empty")
        iterator = iter(ds)
        next(iterator)
        with pytest.raises(InvalidError, match=r"shard-000.tar: dir/000006 \(sample 6\): the sample lacks 'cls'"):
            next(iterator)
        assert next(iterator)["cls"].tolist() == [8, 9]
        assert ds[6]["cls"] is None
        ds.close()
        ds = dataset(tmp_path, transform=lambda sample: -1 if sample["cls"] is None else sample["cls"])
        assert [number for batch in ds for number in batch.tolist()] == [0, 1, 2, 3, 4, 5, -1, 7, 8, 9]
        ds.close()


def test_a_part_that_cannot_be_read_names_its_sample(tmp_path: Path) -> None:
    made = contents()
    made[5]["json"] = b"{"
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path)
        iterator = iter(ds)
        next(iterator)
        expected = r"shard-000.tar: dir/000005 \(sample 5\): part 'json' of 1 bytes is no JSON: JSONDecodeError"
        with pytest.raises(CorruptError, match=expected) as raised:
            next(iterator)
        assert isinstance(raised.value.__cause__, ValueError)
        assert next(iterator)["json"] == [{"n": 8}, {"n": 9}]
        with pytest.raises(CorruptError, match=r"dir/000005 \(sample 5\): part 'json'"):
            ds[5]
        ds.close()
        for arguments in ({"transform": dict}, {"batch_transform": dict}):
            ds = dataset(tmp_path, **arguments)
            with pytest.raises(TransformError, match=r"reading it raised CorruptError: .*part 'json'") as failed:
                list(ds)
            assert failed.value.index == (5 if "transform" in arguments else 4)
            ds.close()
        ds = dataset(tmp_path, transform=lambda sample: sample["json"]["n"], on_error="skip")
        assert [n for batch in ds for n in batch.tolist()] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
        assert "part 'json'" in ds.stats().transform_failures[0].error
        ds.close()


@pytest.mark.parametrize("part", ["pkl", "x.pickle", "pyd", "pth"])
def test_pickles_are_refused_unless_asked_for(tmp_path: Path, part: str) -> None:
    made = contents(**{part.replace(".", "_"): lambda n: pickle.dumps([n])})
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path)
        for attempt in (lambda: next(iter(ds)), lambda: ds[0], lambda: len(ds)):
            with pytest.raises(InvalidError, match=f"part '{part}' is a pickle") as raised:
                attempt()
            assert "allow_pickle=True" in raised.value.remedy
        ds.close()
        ds = dataset(tmp_path, select=["jpg", "cls"])
        assert list(next(iter(ds))) == ["jpg", "cls"]
        ds.close()
        if part != "pth":
            ds = dataset(tmp_path, allow_pickle=True)
            assert next(iter(ds))[part] == [[0], [1], [2], [3]]
            assert ds[7][part] == [7]
            ds.close()


def test_a_column_is_of_one_type(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(contents=contents(txt=lambda n: b"t"))):
        with pytest.raises(InvalidError, match="'what' is made of txt, json, which are values of different types"):
            list(dataset(tmp_path, select={"what": "txt;json"}))
        ds = dataset(tmp_path, select={"what": "txt;json"}, decode=False)
        assert bytes(next(iter(ds))["what"][0]) == b"t"
        ds.close()


@pytest.mark.parametrize("arguments", [{"select": ["jpg"]}, {"missing": "empty"}])
def test_there_is_nothing_to_select_where_samples_have_no_parts(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with FakeDaemon(tmp_path, Polite()), pytest.raises(InvalidError, match="only samples of tar shards have parts"):
        list(dataset(tmp_path, block_size=8, **arguments))


@pytest.mark.parametrize(
    "select",
    [
        [],
        {},
        5,
        [5],
        [""],
        ["jpg;"],
        ["jpg", "JPG"],
        ["jpg", "jpg;png"],
        {"": "jpg"},
        {"a": ";"},
        {"a": " "},
        {"a": None},
        ["x" * 9999] * 2,
    ],
    ids=lambda select: f"{select!s:.40}",
)
def test_a_selection_that_makes_no_sense_is_named(select: Any) -> None:
    with pytest.raises(InvalidError) as raised:
        stoker.Dataset("n", batch_size=1, select=select)
    assert raised.value.where == "select"
    assert "jpg;png" in raised.value.remedy
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "select",
    ["__key__", ["jpg", "__URL__"], {"__key__": "jpg"}, {"k": "__key__"}, {"__" + "x" * 9999: "jpg"}],
    ids=lambda select: f"{select!s:.40}",
)
def test_what_is_no_part_cannot_be_selected(select: Any) -> None:
    with pytest.raises(InvalidError, match=r"can be no column: names that begin with '__'") as raised:
        stoker.Dataset("n", batch_size=1, select=select)
    assert raised.value.where == "select"
    assert "sample.key" in raised.value.remedy
    assert len(str(raised.value)) < 600
    assert make_select({"a": "__meta.json"}) == (("a", ("__meta.json",)),)


def test_a_single_string_selects_one_column() -> None:
    assert make_select("jpg;png") == (("jpg", ("jpg", "png")),)


def test_the_part_without_a_name_is_selected_under_another_name() -> None:
    assert make_select({"rest": "", "cls": "cls"}) == (("rest", ("",)), ("cls", ("cls",)))
    with pytest.raises(InvalidError, match=r"\{'column': ''\}"):
        make_select(["", "cls"])


def test_samples_by_number_have_names_and_values(tmp_path: Path) -> None:
    polite = Polite(contents=contents(png=lambda n: b"x" if n == 9 else None))
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path)
        sample = ds[3]
        assert (sample.key, sample.file, sample.index) == ("dir/000003", "shard-000.tar", 3)
        assert dict(sample) == {"cls": 3, "jpg": IMAGES[3], "json": {"n": 3}, "png": None}
        assert isinstance(sample["jpg"], bytes)
        with pytest.raises(OutOfRangeError):
            ds[10]
        assert ds.keys([0, 9]) == ["dir/000000", "dir/000009"]
        batch = next(iter(ds))
        assert ds.keys(batch) == [f"dir/{n:06}" for n in range(4)]
        assert ds.keys(np.array([5])) == ds.keys(torch.tensor([5])) == ["dir/000005"]
        with pytest.raises(OutOfRangeError):
            ds.keys([10])
        asked = [request for request in polite.requests if request["type"] == "keys"]
        assert "index_id" not in asked[0], "no session was open"
        assert asked[-1]["index_id"] == "index-1"
        ds.close()


def test_many_keys_are_asked_for_in_pieces(tmp_path: Path) -> None:
    polite = Polite(samples=10_000)
    with FakeDaemon(tmp_path, polite):
        ds = dataset(tmp_path, block_size=8)
        keys = ds.keys(range(9000))
        assert (len(keys), keys[8999]) == (9000, "dir/008999")
        assert [len(request["samples"]) for request in polite.requests if request["type"] == "keys"] == [2048] * 4 + [
            808
        ]
        ds.close()


def test_a_transform_gets_views_of_bytes_and_typed_values(tmp_path: Path) -> None:
    def transform(sample: stoker.Sample) -> Any:
        assert isinstance(sample["jpg"], memoryview)
        assert isinstance(sample["cls"], int)
        return sample["jpg"], sample["json"]["n"], sample["txt"]

    made = contents(txt=lambda n: b"t" if n else None)
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, transform=transform)
        views, numbers, texts = next(iter(ds))
        assert [bytes(view) for view in views] == IMAGES[:4]
        assert numbers.tolist() == [0, 1, 2, 3]
        assert texts == [None, "t", "t", "t"]
        assert ds.stats().batches_kept >= 1
        ds.close()


def test_a_batch_transform_gets_typed_columns(tmp_path: Path) -> None:
    made = contents(txt=lambda n: b"t" if n else None)
    with FakeDaemon(tmp_path, Polite(contents=made)):
        ds = dataset(tmp_path, batch_transform=lambda batch: (batch["cls"].tolist(), batch.present("txt").tolist()))
        assert next(iter(ds)) == ([0, 1, 2, 3], [False, True, True, True])
        ds.close()


def test_batches_that_are_all_values_keep_no_slot(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, Polite(contents=contents())):
        ds = dataset(tmp_path, select=["cls", "json"])
        iterator = iter(ds)
        batch = next(iterator)
        assert eventually(lambda: ds.stats().batches_kept == 0)
        assert batch.index.tolist() == [0, 1, 2, 3]
        ds.close()

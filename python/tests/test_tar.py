"""Tar shards through the real daemon, written by webdataset and by Python's tarfile."""

from __future__ import annotations

import gc
import io
import json
import random
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from conftest import Daemon
from torch.utils.data import DataLoader

import stoker
from stoker.errors import CorruptError, InvalidError, OutOfRangeError, StokerError, TransformError

SAMPLES, SHARDS = 200, 8


def made(number: int) -> dict[str, Any]:
    """A sample as webdataset's writers take it."""
    dice = random.Random(number)
    sample: dict[str, Any] = {
        "__key__": f"dir.{number % 3}/{number:06}",
        "jpg": dice.randbytes(dice.randrange(4000)),
        "cls": number * 7 - 100,
        "json": {"n": number, "list": [1.5, None, "é"]},
        "caption.txt": f"sample {number} ü",
        "a.npy": np.arange(number % 7 * 3, dtype=np.float32).reshape(-1, 3),
    }
    return sample


def write_shards(directory: Path, samples: int = SAMPLES, shards: int = SHARDS, compress: str = "") -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards):
        path = directory / f"train-{shard:04}.tar{compress}"
        with webdataset.TarWriter(str(path), compress=bool(compress)) as writer:
            for number in range(shard * samples // shards, (shard + 1) * samples // shards):
                writer.write(made(number))
        paths.append(str(path))
    return paths


def tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, list[str]]]:
    """A daemon with the dataset ``shards``, and the shards' paths."""
    root = tmp_path_factory.mktemp("tar")
    daemon = Daemon(root).start()
    paths = write_shards(root / "shards")
    daemon.add("shards", root / "shards", format="tar")
    yield daemon, paths
    daemon.stop()


def read_by_webdataset(paths: list[str], decode: bool = True) -> list[dict[str, Any]]:
    """All samples of some shards, in order, as webdataset gives them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        pipeline = webdataset.WebDataset(paths, shardshuffle=False)
        samples = list(pipeline.decode() if decode else pipeline)
        del pipeline
        gc.collect()
    return samples


def equal(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, np.ndarray):
        return bool(mine.dtype == theirs.dtype and mine.shape == theirs.shape and (mine == theirs).all())
    if isinstance(theirs, bytes):
        return bytes(mine) == theirs
    return bool(mine == theirs)


def rows(ds: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples one by one, out of batches."""
    for batch in ds:
        keys = ds.keys(batch)
        for row in range(batch.rows):
            yield keys[row], {name: column[row] for name, column in batch.items()}


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_samples_are_what_webdataset_decodes_in_its_order(shards: tuple[Daemon, list[str]], transport: str) -> None:
    daemon, paths = shards
    ds = daemon.dataset("shards", batch_size=16, transport=transport)
    theirs = read_by_webdataset(paths)
    mine = list(rows(ds))
    assert len(mine) == len(theirs) == SAMPLES == ds.samples
    for (key, sample), expected in zip(mine, theirs, strict=True):
        assert key == expected["__key__"]
        assert set(sample) == {name for name in expected if not name.startswith("__")}
        for name, value in sample.items():
            assert equal(value, expected[name]), f"{key} {name}"
    ds.close()


def test_samples_by_number_and_in_transforms_are_the_same(shards: tuple[Daemon, list[str]]) -> None:
    daemon, paths = shards
    ds = daemon.dataset("shards", batch_size=32, shuffle=True, transform=lambda sample: sample, collate=list)
    seen: set[int] = set()
    for batch in ds:
        for sample in batch:
            assert isinstance(sample, stoker.Sample)
            expected = made(sample.index)
            assert sample.key == expected.pop("__key__")
            assert sample.file == Path(paths[sample.index * SHARDS // SAMPLES]).name
            single = ds[sample.index]
            assert (single.key, single.file) == (sample.key, sample.file)
            for name, value in expected.items():
                assert equal(sample[name], value), name
                assert equal(single[name], value), name
            seen.add(sample.index)
    assert seen == set(range(SAMPLES))
    with pytest.raises(OutOfRangeError):
        ds[SAMPLES]
    ds.close()


def test_epochs_are_shuffled_and_resumed_through_a_pool(shards: tuple[Daemon, list[str]]) -> None:
    daemon, _ = shards

    def dataset(**more: Any) -> Any:
        return daemon.dataset("shards", batch_size=8, shuffle=True, seed=3, select=["cls"], **more)

    def number(sample: stoker.Sample) -> int:
        return int(sample["cls"])

    plain = [batch["cls"].tolist() for batch in dataset()]
    labels = [label for batch in plain for label in batch]
    assert sorted(labels) == sorted(made(number)["cls"] for number in range(SAMPLES))
    ds = dataset(transform=number, transform_ahead=6)
    iterator = iter(ds)
    begun = [next(iterator).tolist() for _ in range(9)]
    resumed = dataset(transform=number)
    resumed.load_state_dict(iterator.state_dict())
    assert begun + [batch.tolist() for batch in resumed] == plain
    loader = DataLoader(dataset(batch_transform=lambda batch: batch["cls"].tolist()), batch_size=None, num_workers=0)
    assert list(loader) == plain


@pytest.mark.parametrize("threads", [1, 4])
def test_bytes_in_a_pool_larger_than_the_ring_are_never_overwritten(
    shards: tuple[Daemon, list[str]], threads: int
) -> None:
    daemon, _ = shards

    def check(sample: stoker.Sample) -> memoryview:
        for _ in range(3):
            assert bytes(sample["jpg"]) == made(sample.index)["jpg"]
        view: memoryview = sample["jpg"]
        return view

    ds = daemon.dataset(
        "shards", batch_size=4, shuffle=True, slots=4, transform=check, transform_threads=threads, transform_ahead=12
    )
    kept: list[Any] = []
    for _ in range(2):
        for batch in ds:
            kept = [*kept[-8:], batch]
            ds.stats()
    ds.close()
    assert all(isinstance(view, memoryview) for batch in kept for view in batch)
    assert ds.stats().batches_copied > 0


def test_select_chooses_and_names_columns(shards: tuple[Daemon, list[str]]) -> None:
    daemon, _ = shards
    ds = daemon.dataset("shards", batch_size=4, select={"image": "png;jpg", "label": "cls"})
    batch = next(iter(ds))
    assert list(batch) == ["image", "label"]
    assert batch["label"].tolist() == [made(number)["cls"] for number in range(4)]
    assert [bytes(image) for image in batch["image"]] == [made(number)["jpg"] for number in range(4)]
    assert list(ds[5]) == ["image", "label"]
    ds.close()
    attempts: list[Callable[[Any], Any]] = [lambda ds: next(iter(ds)), lambda ds: ds[0]]
    for attempt in attempts:
        with pytest.raises(StokerError, match="png"):
            attempt(daemon.dataset("shards", batch_size=4, select=["png"]))


def test_what_the_dataset_is_made_of_is_told(shards: tuple[Daemon, list[str]]) -> None:
    daemon, _ = shards
    info = stoker.dataset_info("shards", runtime_dir=daemon.runtime_dir)
    assert (info.format, info.samples, info.files) == ("tar", SAMPLES, SHARDS)
    assert [part.name for part in info.parts] == ["a.npy", "caption.txt", "cls", "jpg", "json"]
    sizes = [len(made(number)["jpg"]) for number in range(SAMPLES)]
    jpg = info.parts[3]
    assert (jpg.samples, jpg.bytes, jpg.max_bytes) == (SAMPLES, sum(sizes), max(sizes))
    assert info.archives == {"tar": SHARDS}


@pytest.fixture
def ragged(shards: tuple[Daemon, list[str]], tmp_path: Path) -> Daemon:
    """A daemon with the dataset ``ragged``: written by tarfile, samples that lack parts, one damaged JSON."""
    daemon, _ = shards
    members: list[tuple[str, bytes]] = []
    for number in range(10):
        members.append((f"s{number}.txt", b"t%d" % number))
        if number % 2:
            members.append((f"s{number}.CLS", b"%d" % number))
        members.append((f"s{number}.json", b"{" if number == 7 else json.dumps([number]).encode()))
    tar(tmp_path / "ragged" / "a.tar", members, format=tarfile.PAX_FORMAT)
    daemon.add("ragged", tmp_path / "ragged", format="tar", replace=True)
    return daemon


def test_samples_may_lack_parts(ragged: Daemon) -> None:
    ds = ragged.dataset("ragged", batch_size=4, decode=False)
    batch = next(iter(ds))
    assert [bytes(view) for view in batch["cls"]] == [b"", b"1", b"", b"3"]
    assert batch.present("cls").tolist() == [False, True, False, True]
    assert batch.present("txt").tolist() == [True] * 4
    ds.close()
    ds = ragged.dataset("ragged", batch_size=4, select=["txt", "cls"], missing="empty")
    with pytest.raises(InvalidError, match=r"ragged: 5 of 10 samples lack 'cls'"):
        iter(ds)
    assert (ds[0]["cls"], ds[1]["cls"]) == (None, 1)
    ds.close()
    with pytest.raises(StokerError, match="cls"):
        next(iter(ragged.dataset("ragged", batch_size=4, select=["txt", "cls"])))
    everything = ragged.dataset("ragged", batch_size=4, select=["txt"])
    assert next(iter(everything)).present("txt").tolist() == [True] * 4
    everything.close()


def test_the_part_without_a_name_is_a_column_of_that_name_or_of_another(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    tar(tmp_path / "d" / "a.tar", [("1.", b"x"), ("1.cls", b"5"), ("2.", b"yz"), ("2.cls", b"6")])
    daemon.add("nameless", tmp_path / "d", format="tar")
    for select, name in ((None, ""), ({"rest": "", "cls": "cls"}, "rest")):
        ds = daemon.dataset("nameless", batch_size=2, select=select)
        batch = next(iter(ds))
        assert sorted(batch) == sorted(["cls", name])
        assert [bytes(view) for view in batch[name]] == [b"x", b"yz"]
        assert batch["cls"].tolist() == [5, 6]
        assert ds[1][name] == b"yz"
        ds.close()
    daemon.stop()


def test_a_sample_that_cannot_be_read_is_named_or_left_out(ragged: Daemon) -> None:
    ds = ragged.dataset("ragged", batch_size=10, select=["json"])
    with pytest.raises(CorruptError, match=r"a.tar: s7 \(sample 7\): part 'json' of 1 bytes is no JSON"):
        next(iter(ds))
    ds.close()
    ds = ragged.dataset("ragged", batch_size=5, transform=lambda sample: sample["json"][0])
    with pytest.raises(TransformError, match="s7") as raised:
        list(ds)
    assert (raised.value.key, raised.value.file, raised.value.index) == ("s7", "a.tar", 7)
    ds.close()
    ds = ragged.dataset("ragged", batch_size=5, transform=lambda sample: sample["json"][0], on_error="skip")
    batches: list[Any] = list(ds)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 8, 9]]
    assert ds.stats().transform_failures[0].key == "s7"
    ds.close()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives_give_the_same_samples(daemon: Daemon, tmp_path: Path, mode: str) -> None:
    directory = tmp_path / "packed"
    directory.mkdir()
    path = directory / f"a.tar.{mode[2:]}"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number in range(50):
            content = b"%d " % number * 3000
            member = tarfile.TarInfo(f"x/{number:03}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    info = daemon.add("packed", directory, format="tar")
    assert info.samples == 50
    ds = daemon.dataset("packed", batch_size=7, shuffle=True)
    for batch in ds:
        for number, view in zip(batch.index.tolist(), batch["bin"], strict=True):
            assert bytes(view) == b"%d " % number * 3000
    assert ds[49].key == "x/049"
    ds.close()


def test_a_truncated_shard_is_refused_or_left_out(daemon: Daemon, tmp_path: Path) -> None:
    directory = tmp_path / "bad"
    write_shards(directory, 40, 2)
    victim = directory / "train-0001.tar"
    victim.write_bytes(victim.read_bytes()[:20_000])
    with pytest.raises(StokerError, match=r"train-0001\.tar"):
        daemon.add("bad", directory, format="tar")
    info = daemon.add("bad", directory, format="tar", bad="skip")
    assert 20 <= info.samples < 40
    assert info.skipped
    ds = daemon.dataset("bad", batch_size=4)
    assert sum(batch.rows for batch in ds) == info.samples
    ds.close()
    summary = stoker.lint_dataset(directory=directory, format="tar", runtime_dir=daemon.runtime_dir)
    assert summary.errors >= 1
    assert any(finding.file == "train-0001.tar" and finding.severity == "error" for finding in summary.listed)


def test_a_dataset_that_grew_is_rebuilt(daemon: Daemon, tmp_path: Path) -> None:
    directory = tmp_path / "growing"
    write_shards(directory, 20, 1)
    before = daemon.add("growing", directory, format="tar")
    tar(directory / "zzz.tar", [("new.txt", b"hello")])
    after = stoker.rebuild_dataset("growing", runtime_dir=daemon.runtime_dir)
    assert (before.samples, after.samples) == (20, 21)
    assert after.index_id != before.index_id
    ds = daemon.dataset("growing", batch_size=1)
    assert (ds[20]["txt"], ds[20].key, ds[20]["cls"]) == ("hello", "new", None)
    ds.close()


def test_odd_keys_are_passed_on(daemon: Daemon, tmp_path: Path) -> None:
    keys = ["../up", "./a b", "x\n", "é/ü", "dir/", "a" * 300, "q'\"\\"]
    tar(tmp_path / "odd" / "a.tar", [(f"{key}.txt", b"%d" % n) for n, key in enumerate(keys)])
    daemon.add("odd", tmp_path / "odd", format="tar")
    ds = daemon.dataset("odd", batch_size=len(keys))
    batch = next(iter(ds))
    theirs = read_by_webdataset([str(tmp_path / "odd" / "a.tar")], decode=False)
    assert ds.keys(batch) == [sample["__key__"] for sample in theirs]
    ds.close()


def test_keys_that_are_no_text_stay_apart_and_are_shown_harmless(daemon: Daemon, tmp_path: Path) -> None:
    keys = ["bad\udcff", "bad\udcfe", "\ufffd", "esc\x1b[2J", "fin"]
    path = tmp_path / "bytes" / "a\udcff\x1b.tar"
    shard = tar(path, [(f"{key}.json", b"{") for key in keys], format=tarfile.USTAR_FORMAT)
    daemon.add("bytes", shard.parent, format="tar")
    with tarfile.open(shard) as archive:
        assert [member.name for member in archive] == [f"{key}.json" for key in keys]
    theirs = read_by_webdataset([str(shard)], decode=False)
    assert [sample["__key__"] for sample in theirs] == keys
    ds = daemon.dataset("bytes", batch_size=len(keys), decode=False)
    assert ds.keys(range(len(keys))) == keys
    assert [(ds[n].key, ds[n].file) for n in range(len(keys))] == [(key, shard.name) for key in keys]
    ds.close()

    def fails(sample: stoker.Sample) -> None:
        raise ValueError(sample.key)

    for number, key in enumerate(keys):
        broken = daemon.dataset("bytes", batch_size=1)
        transformed = daemon.dataset("bytes", batch_size=1, transform=fails, decode=False)
        broken.load_state_dict({**broken.state_dict(), "samples_consumed": number})
        transformed.load_state_dict({**transformed.state_dict(), "samples_consumed": number})
        with pytest.raises(CorruptError) as single:
            broken[number]
        with pytest.raises(CorruptError) as batched:
            next(iter(broken))
        with pytest.raises(TransformError) as raised:
            next(iter(transformed))
        assert (raised.value.key, raised.value.file) == (key, shard.name)
        for text in (
            *map(str, (single.value, batched.value, raised.value)),
            transformed.stats().transform_failures[0].error,
        ):
            assert text.replace("\n", "").isprintable()
        for where in (single.value.where, batched.value.where):
            assert where.startswith(r"a\udcff\x1b.tar: " + (key if key.isprintable() else repr(key)[1:-1]))
        broken.close()
        transformed.close()


def test_a_dataset_of_a_dataloader_worker_gives_single_samples(shards: tuple[Daemon, list[str]]) -> None:
    daemon, _ = shards
    ds = daemon.dataset("shards", batch_size=4, select=["cls", "caption.txt"], return_tensors="torch")
    loader: Any = DataLoader(_Single(ds), batch_size=10, num_workers=1, multiprocessing_context="fork")
    batch = next(iter(loader))
    assert batch["cls"].tolist() == [made(number)["cls"] for number in range(10)]
    assert batch["caption.txt"][3] == "sample 3 ü"


class _Single(torch.utils.data.Dataset[dict[str, Any]]):
    """The map-style side of a Dataset."""

    def __init__(self, ds: Any) -> None:
        self.ds = ds

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.ds[index])

"""What a training script does, against a real daemon."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BLOCK, FILES, REPOSITORY, ROWS, Daemon, raw_content
from torch.utils.data import DataLoader, IterableDataset, default_collate
from torch.utils.data import Dataset as MapDataset

import stoker
from stoker.errors import InvalidError, OutOfRangeError, WorkerError


def samples_of(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch.index.tolist()]


def tokens(daemon: Daemon, **arguments: Any) -> stoker.Dataset:
    return daemon.dataset("tokens", **{"batch_size": 64, "block_size": BLOCK, **arguments})


@pytest.mark.parametrize("transport", ["ring", "socket"])
@pytest.mark.parametrize("order", ["global", "windowed", "sequential"])
def test_each_epoch_gives_every_row_once_with_its_tokens(shared_daemon: Daemon, order: str, transport: str) -> None:
    window = 100 if order == "windowed" else None
    ds = tokens(shared_daemon, order=order, window=window, seed=5, transport=transport)
    assert len(ds) == 16
    orders = []
    for _ in range(2):
        seen = []
        for batch in ds:
            index = batch.index
            seen += index.tolist()
            assert torch.equal(batch["x"][:, 0].to(torch.int64), index)
            expected = (index[:, None] * 31 + torch.arange(2, BLOCK)) % 65536
            assert torch.equal(batch["x"][:, 2:].to(torch.int64), expected)
            assert torch.equal(batch["y"][:, :-1].to(torch.int64), batch["x"][:, 1:].to(torch.int64))
        assert sorted(seen) == list(range(ROWS))
        orders.append(seen)
    assert (orders[0] == orders[1]) == (order == "sequential")
    ds.close()


@pytest.mark.parametrize("transport", ["ring", "socket"])
def test_files_come_with_their_bytes_and_labels(shared_daemon: Daemon, transport: str) -> None:
    ds = shared_daemon.dataset("files", batch_size=32, shuffle=True, transport=transport)
    assert ds.classes == ("cat", "dog")
    seen = []
    for batch in ds:
        for number, content, label in zip(batch.index.tolist(), batch["data"], batch["label"].tolist(), strict=True):
            assert content == raw_content(number)
            assert label == int(number >= FILES // 2)
            seen.append(number)
    assert sorted(seen) == list(range(FILES))
    ds.close()


def test_equal_seeds_give_equal_orders_and_others_do_not(shared_daemon: Daemon) -> None:
    def order(seed: int) -> list[int]:
        ds = tokens(shared_daemon, shuffle=True, seed=seed)
        found = samples_of(ds)
        ds.close()
        return found

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(0) != list(range(ROWS))


def test_x_and_y_share_the_slots_memory_and_pointers_lie_in_one_mapping(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon)
    pointers = set()
    for batch in itertools.chain(ds, ds):
        assert batch["y"].data_ptr() - batch["x"].data_ptr() == 2
        assert batch["x"].untyped_storage().data_ptr() == batch["y"].untyped_storage().data_ptr()
        assert batch["x"]._base is not None
        pointers.add(batch.tokens.data_ptr())
    slots = shared_daemon.sessions()[-1]["ring"]["slots"]
    assert len(pointers) <= slots, "batches lie in the slots of the ring, again and again"
    ds.close()


def test_no_warning_of_torch_or_numpy_appears(shared_daemon: Daemon) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ds in (tokens(shared_daemon), shared_daemon.dataset("files", batch_size=50)):
            for batch in ds:
                for value in batch.values():
                    assert value is not None
            ds.close()


def test_int64_comes_on_request(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon, dtype=torch.int64)
    batch = next(iter(ds))
    assert (batch["x"].dtype, batch["y"].dtype) == (torch.int64, torch.int64)
    assert batch["x"][:, 0].tolist() == batch.index.tolist()
    embedded = torch.nn.Embedding(65536, 4)(batch["x"])
    assert embedded.shape == (64, BLOCK, 4)
    assert ds.stats().batches_kept == 0
    ds.close()


def test_autograd_keeps_a_slot_alive(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("files", batch_size=50)
    iterator = iter(ds)
    weight = torch.ones(1, requires_grad=True)
    loss = (next(iterator)["label"] * weight).sum()
    assert ds.stats().batches_kept == 1
    loss.backward()
    del loss
    assert ds.stats().batches_kept == 0
    ds.close()


def test_a_dataloader_passes_whole_batches_on(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon, shuffle=True)
    assert isinstance(ds, IterableDataset)
    loader: DataLoader[Any] = DataLoader(ds, batch_size=None, num_workers=0)
    assert len(loader) == len(ds) == 16
    for epoch in range(2):
        batches = list(loader)
        assert sorted(samples_of(batches)) == list(range(ROWS))
        assert {batch.epoch for batch in batches} == {epoch}
        assert isinstance(batches[0], stoker.Batch)
    raw: DataLoader[Any] = DataLoader(shared_daemon.dataset("files", batch_size=50), batch_size=None, num_workers=0)
    assert all(isinstance(batch["data"], stoker.Ragged) for batch in raw)
    ds.close()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_iterating_in_a_dataloader_worker_is_refused_with_the_reason(shared_daemon: Daemon, context: str) -> None:
    ds = tokens(shared_daemon, return_tensors="torch")
    loader: DataLoader[Any] = DataLoader(ds, batch_size=None, num_workers=1, multiprocessing_context=context)
    with pytest.raises(WorkerError, match="use DataLoader\\(ds, batch_size=None, num_workers=0\\)"):
        list(loader)


class OneByOne(MapDataset[Any]):
    """Samples by number, for workers."""

    def __init__(self, ds: stoker.Dataset) -> None:
        self.ds = ds

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        sample = self.ds[index]
        return index, sample["x"].to(torch.int64) if "x" in sample else sample["label"]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_single_samples_work_in_dataloader_workers(shared_daemon: Daemon, context: str) -> None:
    ds = tokens(shared_daemon)
    next(iter(ds))
    assert ds[3]["x"][0] == 3
    loader: DataLoader[Any] = DataLoader(OneByOne(ds), batch_size=8, num_workers=2, multiprocessing_context=context)
    for index, x in loader:
        assert torch.equal(x[:, 0], index)
    assert ds[4]["x"][0] == 4, "the parent's connection is still its own"
    ds.close()


def test_a_single_sample_is_in_memory_of_its_own(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon)
    sample = ds[7]
    assert sample["x"].tolist() == [7, 0, *((7 * 31 + np.arange(2, BLOCK)) % 65536).tolist()]
    assert sample["y"].tolist()[:-1] == sample["x"].tolist()[1:]
    assert sample.index == 7
    assert "train.bin" in sample.key
    files = shared_daemon.dataset("files", batch_size=1)
    assert files[FILES - 1]["data"] == raw_content(FILES - 1)
    assert (files[0]["label"], files[FILES - 1]["label"]) == (0, 1)
    assert files[0].key == "cat/000000.dat"
    for index in (-1, ROWS, 1 << 62):
        with pytest.raises(OutOfRangeError, match=str(index)) as raised:
            ds[index]
        assert isinstance(raised.value, IndexError)
    ds.close()


def test_the_length_is_known_without_iterating_and_equal_for_all_ranks(shared_daemon: Daemon) -> None:
    for world, batch_size, drop_last in [(1, 64, False), (1, 64, True), (3, 50, False), (3, 50, True), (7, 13, False)]:
        lengths = set()
        for rank in range(world):
            ds = tokens(shared_daemon, rank=rank, world_size=world, batch_size=batch_size, drop_last=drop_last)
            lengths |= {len(ds), len(list(ds))}
            ds.close()
        assert len(lengths) == 1


def test_a_user_who_keeps_every_batch_has_them_all(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon, shuffle=True, batch_size=10)
    kept = [batch for _ in range(3) for batch in ds]
    copied = [(batch["x"].clone(), batch.index.clone()) for batch in kept]
    for _ in ds:
        pass
    for batch, (x, index) in zip(kept, copied, strict=True):
        assert torch.equal(batch["x"], x)
        assert torch.equal(batch.index, index)
        assert torch.equal(x[:, 0].to(torch.int64), index)
    stats = ds.stats(daemon=True)
    slots = stats.daemon["ring"]["slots"] if stats.daemon else 0
    assert stats.batches_kept == slots - 2
    assert stats.batches_copied == stats.batches - (slots - 2)
    ds.close()


def test_stats_agree_with_the_daemons(shared_daemon: Daemon) -> None:
    ds = tokens(shared_daemon)
    batches = list(ds)
    stats = ds.stats(daemon=True)
    assert (stats.batches, stats.samples) == (len(batches), ROWS)
    assert stats.source_bytes == ROWS * (BLOCK + 1) * 2
    assert stats.daemon is not None
    assert abs(stats.daemon["stall"]["total_seconds"] - stats.stall_seconds) < 1e-6
    assert stats.transport == "ring"
    assert "stoker_" in shared_daemon.get("/metrics")
    ds.close()


def test_numpy_alone_is_enough(shared_daemon: Daemon) -> None:
    program = f"""
import sys
sys.modules["torch"] = None  # importing it is an ImportError
import numpy as np, stoker
ds = stoker.Dataset("tokens", batch_size=64, block_size={BLOCK}, shuffle=True)
seen = []
for batch in ds:
    assert type(batch["x"]) is np.ndarray and batch["x"].base is not None
    assert (batch["x"][:, 0] == batch.index).all()
    seen += batch.index.tolist()
assert sorted(seen) == list(range({ROWS}))
assert ds[3]["x"][0] == 3
raw = next(iter(stoker.Dataset("files", batch_size=8)))
assert [bytes(view) for view in raw["data"]] == [raw["data"].values[a:b].tobytes()
    for a, b in zip(raw["data"].offsets[:-1], raw["data"].offsets[1:])]
assert len(stoker.Dataset("tokens", batch_size=8, block_size={BLOCK}, dtype="int64", return_tensors="numpy")) == 125
try:
    stoker.Dataset("tokens", batch_size=1, return_tensors="torch")
except stoker.InvalidError as error:
    assert "torch cannot be imported" in str(error)
    print("fine")
"""
    environment = {
        "PYTHONPATH": str(REPOSITORY / "python"),
        "STOKER_RUNTIME_DIR": str(shared_daemon.runtime_dir),
        "PATH": "/usr/bin",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_without_free_descriptors_there_is_an_error_or_a_slower_way(shared_daemon: Daemon) -> None:
    program = f"""
import sys
sys.modules["torch"] = None
import os, resource, warnings, stoker
ds = stoker.Dataset("tokens", batch_size=64, block_size={BLOCK})
ds._options  # everything is imported
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
used = []
while True:
    try:
        used.append(os.dup(0))
    except OSError:
        break
try:
    iter(ds)
except stoker.UnavailableError as error:
    print("raise the limit of open files" in str(error))
for spare in range(1, 4):
    os.close(used.pop())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            seen = [number for batch in ds for number in batch.index.tolist()]
            print(len(seen) == {ROWS}, ds.stats().transport, len(caught))
        except stoker.StokerError as error:
            print(error)
    ds.close()
"""
    environment = {"PYTHONPATH": str(REPOSITORY / "python"), "STOKER_RUNTIME_DIR": str(shared_daemon.runtime_dir)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    # Two descriptors are enough where a mapping needs none of its own.
    with_two = "True ring 0" if sys.version_info >= (3, 13) else "True socket 1"
    assert done.stdout.splitlines() == ["True", "True socket 1", with_two, "True ring 0"], done.stderr


def test_the_environment_names_the_daemon(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_RUNTIME_DIR", str(shared_daemon.runtime_dir))
    assert {info.name for info in stoker.list_datasets()} == {"tokens", "files"}
    info = stoker.dataset_info("files")
    assert (info.format, info.samples, info.files, info.classes) == ("raw", FILES, FILES, ("cat", "dog"))
    assert stoker.dataset_info("tokens").dtype == "uint16"


def test_more_class_names_than_fit_a_packet_arrive(daemon: Daemon, tmp_path: Path) -> None:
    names = [f"{number:05} {'x' * 200}" for number in range(400)]
    for name in names:
        (tmp_path / "many" / name).mkdir(parents=True)
        (tmp_path / "many" / name / "one").write_bytes(b"1")
    assert daemon.add("many", tmp_path / "many", format="raw").classes == tuple(names)
    ds = daemon.dataset("many", batch_size=8)
    assert ds.classes == tuple(names)
    assert len(ds) == 50
    ds.close()


def test_globs_with_braces_choose_files(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.txt"):
        (folder / name).write_bytes(name.encode())
    seen: list[stoker.Progress] = []
    info = daemon.add("mixed", folder, format="raw", include=["**/*.{jpg,png}"], progress=seen.append)
    assert info.files == 2
    ds = daemon.dataset("mixed", batch_size=2)
    assert [bytes(view) for view in next(iter(ds))["data"]] == [b"a.jpg", b"b.png"]
    ds.close()


def test_more_classes_than_fit_a_packet_arrive_whole(shared_daemon: Daemon, tmp_path: Path) -> None:
    names = [f"{number:04d} {'a long class name ' * 4}" for number in range(1200)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    assert shared_daemon.add("many-classes", tmp_path).classes == tuple(names)
    ds = shared_daemon.dataset("many-classes", batch_size=8)
    assert next(iter(ds))["label"].tolist() == list(range(8))
    assert ds.classes == tuple(names)
    ds.close()


@pytest.mark.parametrize("name", ["tokens", "files"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}], ids=str)
def test_a_dataloader_that_would_batch_batches_says_what_to_do(
    shared_daemon: Daemon, name: str, settings: dict[str, Any]
) -> None:
    block = {"block_size": BLOCK} if name == "tokens" else {}
    ds = shared_daemon.dataset(name, batch_size=10, **block)
    with pytest.raises(InvalidError, match="yields whole batches already") as raised:
        next(iter(DataLoader(ds, **settings)))
    assert "use DataLoader(ds, batch_size=None)" in raised.value.remedy
    ds.close()


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_a_dataloader_that_pins_memory_passes_whole_batches_on(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("tokens", batch_size=10, block_size=BLOCK)
    loader: DataLoader[Any] = DataLoader(ds, batch_size=None, pin_memory=True)
    assert [number for batch in loader for number in batch.index.tolist()] == list(range(ROWS))
    ds.close()


def test_single_samples_are_collated(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("tokens", batch_size=1, block_size=BLOCK)
    assert default_collate([ds[3], ds[4]])["x"].shape == (2, BLOCK)
    ds.close()


def test_samples_fetched_by_several_threads_are_whole(shared_daemon: Daemon) -> None:
    ds = shared_daemon.dataset("files", batch_size=1)

    def fetch(number: int) -> bool:
        return bool(ds[number % FILES]["data"] == raw_content(number % FILES))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(fetch, range(2000)))
    ds.close()

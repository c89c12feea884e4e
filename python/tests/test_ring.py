"""The consumer's side of the ring: cursors, slots that come back, waiting."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import eventually
from fake_daemon import FakeRing
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker import _layout
from stoker._arrays import NumpyArrays
from stoker._layout import KIND_BATCH, KIND_END_OF_EPOCH, NO_SLOT, Entry
from stoker.batch import Batch, BatchBuilder, Column
from stoker.errors import ProtocolError
from stoker.ring import Ring

BUILDER = BatchBuilder([Column("tokens", "uint16", (9,), False)], NumpyArrays())


@pytest.fixture
def fake() -> Iterator[FakeRing]:
    fake = FakeRing(slots=8)
    yield fake
    fake.close()


def take(ring: Ring) -> Entry:
    entry = ring.take()
    assert entry is not None
    return entry


def next_batch(ring: Ring) -> Batch:
    entry = take(ring)
    return BUILDER.build(ring.own(entry), entry)


def is_intact(number: int, batch: Batch) -> bool:
    return bool(batch.index.tolist() == [number] and batch["x"][0].tolist() == list(range(number, number + 8)))


def test_take_gives_entries_in_order_and_none_when_there_are_none(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    assert ring.take() is None
    for number in range(3):
        fake.publish_tokens([number])
    assert [take(ring).sequence for _ in range(3)] == [1, 2, 3]
    assert ring.take() is None
    assert fake.word("taken") == 3


def test_cursors_wrap_around_the_queue_many_times(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    for number in range(10 * fake.queue_entries):
        fake.publish_tokens([number], position=number)
        batch = next_batch(ring)
        assert (batch.position, batch.index.tolist()) == (number, [number])
    assert fake.word("batches_taken") == 10 * fake.queue_entries


def test_a_batch_is_a_view_of_its_slot_and_not_a_copy(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([5])
    batch = next_batch(ring)
    at = fake.slots_offset + _layout.ENTRY_BYTES  # the only column begins there
    fake.memory[at : at + 2] = (4711).to_bytes(2, "little")
    assert batch["x"][0, 0] == 4711
    batch["y"][0, 0] = 1234
    assert int.from_bytes(fake.memory[at + 2 : at + 4], "little") == 1234


@pytest.mark.parametrize("kept", ["batch", "x", "tokens", "slice", "index", "memoryview"])
def test_a_slot_stays_the_trainers_until_the_last_view_is_gone(fake: FakeRing, kept: str) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([5, 6])
    batch = next_batch(ring)
    views: dict[str, Any] = {
        "batch": batch,
        "x": batch["x"],
        "tokens": batch.tokens,
        "slice": batch["y"][1:, 3:][0],
        "index": batch.index[1:],
        "memoryview": batch["x"].data,
    }
    view = views.pop(kept)
    del batch, views
    gc.collect()
    assert fake.released(0) == 0
    assert ring.held == 1
    del view
    assert fake.released(0) == 1
    assert ring.held == 0


def test_release_word_moves_with_each_take_and_each_release(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([1])
    seen = {fake.word("release_word")}
    batch = next_batch(ring)
    seen.add(fake.word("release_word"))
    del batch
    seen.add(fake.word("release_word"))
    assert len(seen) == 3


@pytest.mark.parametrize("order", [pytest.param(order, id=str(order)) for order in itertools.permutations(range(4))])
def test_slots_come_back_in_any_order(fake: FakeRing, order: tuple[int, ...]) -> None:
    ring = Ring(fake.map())
    for number in range(4):
        fake.publish_tokens([number])
    held = {number: next_batch(ring) for number in range(4)}
    free = len(fake.free_slots())
    for count, number in enumerate(order, 1):
        assert held[number].index.tolist() == [number]
        del held[number]
        assert len(fake.free_slots()) == free + count


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=80))
def test_no_pattern_of_keeping_and_dropping_loses_or_overwrites_a_batch(actions: list[int]) -> None:
    fake = FakeRing(slots=6)
    ring = Ring(fake.map())
    kept: list[tuple[int, Batch]] = []
    for number, action in enumerate(actions):
        assert len(fake.free_slots()) >= 2, "the daemon must never be left without slots"
        fake.publish_tokens([number])
        batch = next_batch(ring)
        kept.append((number, batch))
        del batch
        if action < len(kept):
            del kept[action]
        if action == 9:
            kept.clear()
        assert all(is_intact(number, old) for number, old in kept)
    kept.clear()
    assert len(fake.free_slots()) == fake.slots
    fake.close()


def test_keeping_every_batch_copies_and_never_deadlocks(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    kept = []
    for number in range(50):
        fake.publish_tokens([number])
        kept.append(next_batch(ring))
    assert [batch.index.tolist() for batch in kept] == [[number] for number in range(50)]
    assert ring.held == fake.slots - 2
    assert ring.batches_copied == 50 - (fake.slots - 2) == fake.word("batches_copied")
    assert len(fake.free_slots()) == 2


def test_a_copied_batch_is_writable_and_private(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    kept = []
    for number in range(fake.slots):
        fake.publish_tokens([number])
        kept.append(next_batch(ring))
    before = bytes(fake.memory)
    kept[-1]["x"][:] = 0
    assert bytes(fake.memory) == before


def test_live_views_outlive_the_ring(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([7])
    batch = next_batch(ring)
    ring.close()
    del ring
    gc.collect()
    assert batch["x"][0].tolist() == list(range(7, 15))
    del batch
    assert fake.released(0) == 0, "a closed ring gives nothing back"


def test_the_mapping_goes_with_the_last_view() -> None:
    fake = FakeRing(slots=4, slot_bytes=1 << 20)
    own = fake.memory  # the fake's own mapping stays

    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum("fake-ring" in line for line in maps)

    before = mappings()
    ring = Ring(fake.map())
    assert mappings() == before + 1
    fake.publish_tokens([7])
    view = next_batch(ring)["x"][0]
    del ring
    assert mappings() == before + 1
    assert view.tolist() == list(range(7, 15))
    del view
    assert mappings() == before
    assert own is fake.memory
    fake.close()


def test_the_collector_of_a_forked_child_releases_nothing(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([7])
    batch = next_batch(ring)
    child = os.fork()
    if child == 0:
        del batch, ring
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert fake.released(0) == 0
    assert batch["x"][0, 0] == 7
    del batch
    assert fake.released(0) == 1


def test_a_collector_that_runs_anywhere_may_release(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([7])
    cycle: list[Any] = [next_batch(ring)]
    cycle.append(cycle)
    del cycle
    assert fake.released(0) == 0
    gc.collect()
    assert fake.released(0) == 1


def test_views_may_be_dropped_in_other_threads_at_the_same_time() -> None:
    fake = FakeRing(slots=64)
    ring = Ring(fake.map())
    for _ in range(20):
        batches = []
        while len(fake.free_slots()) > 2:
            fake.publish_tokens([1])
            batches.append(next_batch(ring))
        piles = [batches[start::4] for start in range(4)]
        del batches
        threads = [threading.Thread(target=pile.clear) for pile in piles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fake.free_slots()) == 64
    fake.close()


def test_sleep_returns_when_an_entry_is_published(fake: FakeRing) -> None:
    ring = Ring(fake.map())

    def publish_when_it_sleeps() -> None:
        if eventually(lambda: fake.word("trainer_waiting") == 1, 10):
            fake.publish_tokens([1])

    thread = threading.Thread(target=publish_when_it_sleeps)
    thread.start()
    ring.sleep(10_000_000_000)
    thread.join()
    assert take(ring).rows == 1
    assert fake.word("trainer_waiting") == 0


def test_sleep_is_bounded_and_does_not_begin_if_there_is_an_entry(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    began = time.monotonic()
    ring.sleep(20_000_000)
    assert 0.015 < time.monotonic() - began < 5
    fake.publish_tokens([1])
    began = time.monotonic()
    ring.sleep(60_000_000_000)
    assert time.monotonic() - began < 5


def test_ctrl_c_ends_a_sleep(fake: FakeRing) -> None:
    ring = Ring(fake.map())

    def interrupt() -> None:
        if eventually(lambda: fake.word("trainer_waiting") == 1, 10):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            ring.sleep()
    thread.join()
    assert fake.word("trainer_waiting") == 0


def test_a_release_wakes_a_daemon_that_waits(fake: FakeRing) -> None:
    from stoker._futex import Futex

    ring = Ring(fake.map())
    fake.publish_tokens([1])
    batch = [next_batch(ring)]
    futex = Futex(fake.memory, _layout.HEADER_FIELDS["release_word"][0])
    seen = fake.word("release_word")
    fake.set_word("daemon_waiting", 1)
    timer = threading.Timer(0.05, batch.clear)
    timer.start()
    began = time.monotonic()
    futex.wait(seen, 20_000_000_000)
    assert time.monotonic() - began < 10
    timer.join()
    assert fake.free_slots() == list(range(fake.slots))


def test_spinning_happens_only_where_waits_are_short(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    for _ in range(20):
        ring.waited(10_000_000)
    began = time.monotonic_ns()
    assert not ring.spin()
    for _ in range(60):
        ring.waited(1000)
    fake.publish_tokens([1])
    assert ring.spin()
    assert time.monotonic_ns() - began < 5_000_000_000


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"sequence": 9}, "carries the sequence 9"),
        ({"slot": 8}, "names slot 8 of 8"),
        ({"slot": 0xFFFFFFFE}, "names slot 4294967294 of 8"),
        ({"bytes": 4097}, "has 4097 bytes, a slot 4096"),
    ],
)
def test_an_impossible_entry_is_refused(fake: FakeRing, fields: dict[str, int], complaint: str) -> None:
    ring = Ring(fake.map())
    fake.publish(KIND_BATCH, b"x" * 100, **fields)
    with pytest.raises(ProtocolError, match=complaint):
        ring.take()


def test_end_of_epoch_needs_no_slot(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish(KIND_END_OF_EPOCH)
    entry = take(ring)
    assert (entry.kind, entry.slot) == (KIND_END_OF_EPOCH, NO_SLOT)
    ring.release(entry)
    assert len(fake.free_slots()) == fake.slots


def test_releasing_twice_is_harmless(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    fake.publish_tokens([1])
    entry = take(ring)
    ring.release(entry)
    ring.release(entry)
    assert len(fake.free_slots()) == fake.slots
    fake.publish_tokens([2])
    ring.release(entry)
    assert len(fake.free_slots()) == fake.slots - 1


def test_waits_are_written_where_the_metrics_read_them(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    ring.publish_waits(60, {"disk": 10, "index": 11, "order": 12, "ring": 13, "wake": 14, "other": 0, "transform": 15})
    names = ("", "disk_", "index_", "order_", "ring_", "wake_", "transform_")
    assert [fake.word(f"waited_{name}ns") for name in names] == [60, 10, 11, 12, 13, 14, 15]


def test_the_longest_waits_are_written_where_stalls_are_read(fake: FakeRing) -> None:
    ring, words = Ring(fake.map()), fake.words64
    causes = {"disk": 10, "index": 11, "order": 12, "ring": 13, "wake": 14, "other": 0, "transform": 15}
    for place in range(_layout.WORST_WAITS):
        fake.publish_tokens([place])
        entry = take(ring)
        ring.publish_worst(place, 75 + place, causes, entry)
        at = _layout.word64("worst") + place * _layout.WORST_WORDS
        written = [75 + place, 10, 11, 12, 13, 14, entry.sequence, entry.epoch, entry.position, entry.rows]
        assert words[at : at + _layout.WORST_WORDS].tolist() == written
        assert words[_layout.word64("worst_transform_ns") + place] == 15
        ring.release(entry)


def test_twenty_thousand_views_leak_no_slots_and_no_leases(fake: FakeRing) -> None:
    ring = Ring(fake.map())
    for _ in range(20_000):
        fake.publish_tokens([1])
        np.add(next_batch(ring)["x"], 1)
    assert ring.held == 0
    assert len(fake.free_slots()) == fake.slots

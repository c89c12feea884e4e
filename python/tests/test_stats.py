"""Attribution of waits to causes, and their sums."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker._layout import Entry
from stoker.stats import CAUSES, Recorder, attribute


def entry(marks: tuple[int, int, int, int, int] = (10, 20, 30, 40, 50), **fields: int) -> Entry:
    times = dict(zip(("t_wait_slot", "t_order", "t_index", "t_read", "t_done"), marks, strict=True))
    values: dict[str, int] = dict.fromkeys(Entry._fields, 0)
    return Entry(**{**values, **times, **fields})


def test_each_phase_is_its_own_cause() -> None:
    expected = {"other": 10, "ring": 10, "order": 10, "index": 10, "disk": 10, "wake": 5, "transform": 0}
    assert attribute(0, 55, entry()) == expected


def test_only_the_overlap_with_the_wait_counts() -> None:
    assert attribute(45, 60, entry()) == {**dict.fromkeys(CAUSES, 0), "disk": 5, "wake": 10}
    assert attribute(15, 25, entry()) == {**dict.fromkeys(CAUSES, 0), "ring": 5, "order": 5}


def test_a_batch_that_was_done_before_it_was_asked_for_cost_only_the_wake_up() -> None:
    assert attribute(100, 103, entry()) == {**dict.fromkeys(CAUSES, 0), "wake": 3}


@given(
    st.integers(0, 2**63),
    st.integers(0, 2**40),
    st.tuples(*[st.integers(0, 2**64 - 1)] * 5),
)
def test_causes_add_up_to_the_wait_whatever_the_entry_says(
    asked: int, waited: int, marks: tuple[int, int, int, int, int]
) -> None:
    causes = attribute(asked, asked + waited, entry(marks))
    assert sum(causes.values()) == waited
    assert min(causes.values()) >= 0
    assert set(causes) == set(CAUSES)


def test_sums_and_the_worst_batches_are_kept() -> None:
    recorder = Recorder()
    for number in range(100):
        made = entry(position=number, epoch=1, rows=2, source_bytes=7, disk_bytes=3)
        recorder.batch(made)
        recorder.wait(50, 50 + (number * 37) % 100, made)
    recorder.wall_now = 10_000
    stats = recorder.snapshot(copied=4, kept=5, transport="ring", daemon=None)
    assert (stats.batches, stats.samples, stats.source_bytes, stats.disk_bytes) == (100, 200, 700, 300)
    assert [round(batch.seconds * 1e9) for batch in stats.worst] == list(range(99, 89, -1))
    assert abs(stats.stall_seconds - sum(stats.causes.values())) < 1e-12
    assert abs(stats.stall_share - 4950 / 10_000) < 1e-9
    assert (stats.batches_copied, stats.batches_kept, stats.transport) == (4, 5, "ring")


def test_nothing_yielded_is_no_stall() -> None:
    stats = Recorder().snapshot(copied=0, kept=0, transport=None, daemon=None)
    assert (stats.stall_share, stats.first_batch_seconds, stats.worst) == (0.0, None, ())

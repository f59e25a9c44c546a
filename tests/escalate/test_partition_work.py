"""What waits in memory is bounded: a partition is paused above the bound and resumed below half of it."""

from __future__ import annotations

from stream_app.escalate.partition_work import (
    SHARE_RECORDS_MIN,
    WAITING_BYTES_MAX,
    WAITING_RECORDS_MAX,
    PartitionWork,
)
from stream_app.kafka.finished import FinishedOffsets
from tests.kafka.owned import Partition, Record


def work(span_max: int = 20_000, owned: int = 1) -> PartitionWork:
    return PartitionWork(Partition(), FinishedOffsets(0), span_max, owned)


def arrive(here: PartitionWork, count: int, size_bytes: int = 10, start: int = 0) -> None:
    records = [Record(offset, b"x" * size_bytes) for offset in range(start, start + count)]
    here.arrived(records, [1.0] * count)


def test_too_many_records_pause_and_half_of_them_resume():
    """Nothing is dropped: what arrives above the bound is kept."""
    here = work()
    arrive(here, WAITING_RECORDS_MAX + 500)
    assert not here.partition.wanted
    for _ in range(WAITING_RECORDS_MAX // 2 + 499):
        here.next_item()
    assert not here.partition.wanted
    here.next_item()
    assert here.partition.wanted
    assert len(here.waiting) == WAITING_RECORDS_MAX // 2


def test_too_many_bytes_pause_too():
    """A few large records are as bad as many small ones."""
    here = work()
    arrive(here, 20, WAITING_BYTES_MAX // 16)
    assert not here.partition.wanted
    while here.partition.wanted is False:
        assert here.next_item() is not None
    assert here.waiting_bytes <= WAITING_BYTES_MAX // 2


def test_partitions_share_the_bound_of_the_worker():
    """What a worker holds does not grow with the partitions it owns; none is left with nothing."""
    here = work(owned=10)
    arrive(here, WAITING_RECORDS_MAX // 10)
    assert not here.partition.wanted
    many = work(owned=100_000)
    arrive(many, SHARE_RECORDS_MIN - 1, 0)
    assert many.records_max == SHARE_RECORDS_MIN


def test_headers_count():
    """An escalation's header is often longer than its value."""
    here = work()
    here.arrived([Record(0, b"", (("shunt-escalation", b"x" * WAITING_BYTES_MAX),))], [1.0])
    assert not here.partition.wanted


def test_a_record_beyond_the_span_waits_for_the_oldest():
    """No record is started `span_max` offsets beyond the oldest unfinished one: the metadata must fit."""
    here = work(span_max=5)
    arrive(here, 8)
    started = [item.record.offset for item in iter(here.next_item, None)]
    assert started == [0, 1, 2, 3, 4]
    here.finished.finish(1)
    assert here.next_item() is None
    here.finished.finish(0)
    assert [item.record.offset for item in iter(here.next_item, None)] == [5, 6]


def test_what_the_last_owner_had_finished_is_skipped():
    """Its offsets are in the metadata: they are not asked again, and the commit point moves over them."""
    here = work()
    here.finished.restore(frozenset({1, 2}))
    arrive(here, 4)
    assert [item.record.offset for item in iter(here.next_item, None)] == [0, 3]
    assert here.something.is_set()


def test_a_partition_that_closes_starts_nothing():
    """What only waits is left to the next owner."""
    here = work()
    arrive(here, 3)
    here.closing = True
    assert here.next_item() is None

"""What waits of the hot path is bounded: a partition is paused above its share and resumed below half of it."""

from __future__ import annotations

import pytest

from stream_app.classify.feed import Feed
from tests.kafka.owned import Partition, Record


@pytest.mark.parametrize(("records_max", "bytes_max"), [(100, 10**9), (10**9, 1_000)], ids=["records", "bytes"])
async def test_either_bound_pauses_and_half_of_it_resumes(records_max, bytes_max):
    """Nothing above the bound is dropped, and the runs come in order."""
    feed = Feed(Partition(), records_max, bytes_max)
    feed.put([Record(offset, b"x" * 10) for offset in range(120)])
    assert not feed.partition.wanted
    run = feed.take(60)
    assert not feed.partition.wanted
    assert run.next_offset == 60
    assert feed.take(15).next_offset == 75
    assert feed.partition.wanted
    assert (feed.waiting, feed.value_bytes) == (45, 450)


async def test_a_run_lets_its_records_go_and_keeps_their_number():
    """Delivery needs the number alone: inputs are not held while a transaction runs."""
    feed = Feed(Partition(), 100, 10**6)
    feed.put([Record(offset, b"x") for offset in range(3)])
    run = feed.take(10)
    run.records = ()
    assert run.count == 3

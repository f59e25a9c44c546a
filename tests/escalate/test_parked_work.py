"""Parked events: asked only while nobody else wants the LLM, few in memory, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.parked_work import (
    ASKED_REST_MAX_S,
    NOT_ASKED_REST_S,
    SHARE_BYTES_MIN,
    WAITING_BYTES_MAX,
    WAITING_RECORDS_MAX,
    ParkedWork,
    Spared,
    may_start,
    rest_s,
)
from stream_app.escalate.partition_work import PartitionWork
from stream_app.escalate.works import Works
from stream_app.kafka.finished import FinishedOffsets
from tests.kafka.owned import Partition, Record

NOW_S, SOON_S, LATE_S = 100.0, 1_000.0, 2_000.0


def work(number: int = 0, account: int = 0, owned: int = 1) -> ParkedWork:
    return ParkedWork(Partition(number), FinishedOffsets(0), 20_000, owned, account=account)


def arrive(here: PartitionWork, count: int, start: int = 0, until_s: float = SOON_S, size_bytes: int = 1) -> None:
    here.arrived([Record(offset, b"x" * size_bytes) for offset in range(start, start + count)], [until_s] * count)


def free(**changes) -> bool:
    lane = {"others_wait": False, "wait_s": 0.0, "sure": True, "started": 0, "parked": 0, "most": 100}
    return may_start(**(lane | changes))


def test_nothing_parked_starts_while_somebody_waits_or_the_llm_is_away():
    """Who comes now goes first; an open circuit is not asked; the bound on what is under way is one for all."""
    assert free()
    assert not free(others_wait=True)
    assert not free(wait_s=0.1)
    assert not free(started=100)


def test_three_quarters_of_the_calls_are_kept_for_who_comes():
    """A call under way is not broken off: so parked events never take all of `max_in_flight`."""
    assert free(parked=24, started=24)
    assert not free(parked=25, started=25)
    assert not free(parked=1, started=1, most=4)


def test_one_parked_event_may_be_under_way_however_few_calls_there_are():
    """A quarter of three is none: then nothing would be corrected, ever. One it is, which may be all there is."""
    for most in (1, 2, 3):
        assert free(most=most)
    assert not free(parked=1, started=1, most=3)


def test_one_parked_event_may_try_whether_the_llm_is_back():
    """Where nothing else comes, nobody else would; one at a time, after the breaker's cool-down."""
    assert free(sure=False)
    assert not free(sure=False, parked=1, started=1)


def test_an_event_that_was_not_asked_rests_and_comes_back_first():
    """In order: what has rested goes before what came later."""
    here = work()
    arrive(here, 3)
    first, second = here.next_due(NOW_S), here.next_due(NOW_S)
    assert first is not None
    here.rest(first, NOW_S, 1.0, called=False)
    assert second is not None
    assert here.next_due(NOW_S).record.offset == 2
    assert here.next_due(NOW_S + NOT_ASKED_REST_S - 0.1) is None
    assert here.next_due(NOW_S + NOT_ASKED_REST_S) is first


def test_after_one_that_was_not_asked_the_lane_waits_and_then_tries_one():
    """What is short is short for all; the next one that has its call tells that there is something to spare again."""
    spared = Spared()
    assert (spared.wait_s(NOW_S), spared.sure) == (0.0, True)
    spared.refused(NOW_S)
    assert (spared.wait_s(NOW_S), spared.sure) == (NOT_ASKED_REST_S, False)
    assert (spared.wait_s(NOW_S + NOT_ASKED_REST_S), spared.sure) == (0.0, False)
    spared.asked()
    assert spared.sure


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_failed_calls_are_repeated_ever_more_seldom(tries, draw):
    """Each may have been paid: at most once an hour, in the end; and not all of them at the same moment."""
    assert 0 < rest_s(tries, draw) <= ASKED_REST_MAX_S
    assert rest_s(tries, draw) <= rest_s(tries + 1, draw)
    assert rest_s(tries, 0.0) < rest_s(tries, 0.5)


def test_few_are_held_in_memory_however_many_are_parked():
    """Those that rest count: no more are taken up than the bound, and the partition is paused above it."""
    here = work()
    arrive(here, WAITING_RECORDS_MAX)
    assert not here.partition.wanted
    taken = 0
    for offset in range(10):
        while (item := here.next_due(NOW_S)) is not None:
            here.rest(item, NOW_S, 0.5, called=True)
            taken += 1
        if here.partition.wanted:
            arrive(here, WAITING_RECORDS_MAX, WAITING_RECORDS_MAX * (offset + 1))
    assert taken == WAITING_RECORDS_MAX
    assert len(here.waiting) <= WAITING_RECORDS_MAX


def test_what_rests_counts_in_bytes_too():
    """Large ones that rest are as bad as large ones that wait: nothing more is fetched above the bound."""
    here = work()
    size_bytes = WAITING_BYTES_MAX // 10
    for start in range(0, 100, 4):
        if here.partition.wanted:
            arrive(here, 4, start, size_bytes=size_bytes)
        while (item := here.next_due(NOW_S)) is not None:
            here.rest(item, NOW_S, 0.5, called=True)
    assert not here.partition.wanted
    assert here.held_bytes <= WAITING_BYTES_MAX + 4 * (size_bytes + 1_000)
    while (item := here.next_due(LATE_S)) is not None:
        here.forget(item.record.offset)
    assert here.partition.wanted
    assert (here.held_records, here.held_bytes) == (0, 0)


def test_what_comes_back_from_a_try_counts_again():
    """Others may have been fetched meanwhile: then no more are, until there is room."""
    here = work()
    arrive(here, WAITING_RECORDS_MAX // 2)
    tried = list(iter(lambda: here.next_due(NOW_S), None))
    assert here.partition.wanted
    arrive(here, WAITING_RECORDS_MAX - 1, WAITING_RECORDS_MAX)
    assert here.partition.wanted
    here.rest(tried[0], NOW_S, 0.5, called=False)
    assert not here.partition.wanted


def test_one_event_larger_than_the_bound_is_tried_all_the_same():
    """At least one always; while it rests nothing more is fetched, and its end makes room."""
    here = work()
    arrive(here, 1, size_bytes=2 * WAITING_BYTES_MAX)
    assert not here.partition.wanted
    item = here.next_due(NOW_S)
    assert item is not None
    assert here.partition.wanted
    here.rest(item, NOW_S, 0.5, called=False)
    assert not here.partition.wanted
    assert here.take_expired(SOON_S) == [item]
    assert here.partition.wanted


def test_a_small_share_still_has_room_for_some():
    """Among many partitions a few kilobytes would be full with one long text that rests for an hour."""
    assert work(owned=1_000).bytes_max == SHARE_BYTES_MIN
    assert work().bytes_max == WAITING_BYTES_MAX


def test_what_is_too_old_is_given_up_resting_or_not():
    """Also during an outage, so that the topic never holds what nobody would correct any more."""
    here = work()
    arrive(here, 2, until_s=SOON_S)
    arrive(here, 2, start=2, until_s=LATE_S)
    here.rest(here.next_due(NOW_S), NOW_S, 0.5, called=False)
    assert here.take_expired(SOON_S - 1) == []
    assert sorted(item.record.offset for item in here.take_expired(SOON_S)) == [0, 1]
    assert here.next_due(LATE_S).record.offset == 2
    assert [item.record.offset for item in here.take_expired(LATE_S)] == [3]
    assert (here.held_records, here.held_bytes) == (0, 0)


def test_a_partition_that_is_handed_over_tries_and_gives_up_nothing():
    """What waits or rests is its next owner's."""
    here = work()
    arrive(here, 2)
    here.rest(here.next_due(NOW_S), NOW_S, 0.5, called=False)
    here.closing = True
    assert here.next_due(LATE_S) is None
    assert here.take_expired(LATE_S) == []


def test_escalated_and_parked_events_take_turns_among_their_own():
    """A parked event never takes an escalated one's turn, and is tried only where its account is."""
    works = Works()
    escalated, parked, elsewhere = PartitionWork(Partition(0), FinishedOffsets(0), 9), work(0), work(1, account=1)
    for each in (escalated, parked, elsewhere):
        arrive(each, 2)
        works.gain(each)
    assert [works.next_item()[0], works.next_item()[0], works.next_item()] == [escalated, escalated, None]
    tried = iter(lambda: works.next_spare(NOW_S, {0}.__contains__), None)
    assert [each for each, _ in tried] == [parked, parked]
    assert works.next_spare(NOW_S, {1}.__contains__)[0] is elsewhere

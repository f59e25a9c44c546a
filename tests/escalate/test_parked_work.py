"""Parked events: asked only while nobody else wants the LLM, few in memory, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.parked_work import (
    ASKED_REST_MAX_S,
    NOT_ASKED_REST_S,
    WAITING_RECORDS_MAX,
    ParkedWork,
    may_start,
    rest_s,
)
from stream_app.escalate.partition_work import PartitionWork
from stream_app.escalate.works import Works
from stream_app.kafka.finished import FinishedOffsets
from tests.kafka.owned import Partition, Record

NOW_S, SOON_S, LATE_S = 100.0, 1_000.0, 2_000.0


def work(number: int = 0, account: int = 0) -> ParkedWork:
    return ParkedWork(Partition(number), FinishedOffsets(0), 20_000, account=account)


def arrive(here: PartitionWork, count: int, start: int = 0, until_s: float = SOON_S) -> None:
    here.arrived([Record(offset, b"x") for offset in range(start, start + count)], [until_s] * count)


def free(**changes) -> bool:
    lane = {"others_wait": False, "circuit_s": 0.0, "closed": True, "started": 0, "parked": 0, "most": 100}
    return may_start(**(lane | changes))


def test_nothing_parked_starts_while_somebody_waits_or_the_llm_is_away():
    """Who comes now goes first; an open circuit is not asked; the bound on what is under way is one for all."""
    assert free()
    assert not free(others_wait=True)
    assert not free(circuit_s=0.1)
    assert not free(started=100)


def test_three_quarters_of_the_calls_are_kept_for_who_comes():
    """A call under way is not broken off: so parked events never take all of `max_in_flight`."""
    assert free(parked=24, started=24)
    assert not free(parked=25, started=25)
    assert free(most=1)
    assert not free(parked=1, started=1, most=4)


def test_one_parked_event_may_try_whether_the_llm_is_back():
    """Where nothing else comes, nobody else would; one at a time, after the breaker's cool-down."""
    assert free(closed=False)
    assert not free(closed=False, parked=1, started=1)


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
    assert here.waiting_bytes == 0


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
    tried = iter(lambda: works.next_parked(NOW_S, {0}.__contains__), None)
    assert [each for each, _ in tried] == [parked, parked]
    assert works.next_parked(NOW_S, {1}.__contains__)[0] is elsewhere

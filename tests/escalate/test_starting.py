"""What is started when: parked events yield to whoever comes, and are not tried over and over in vain."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from stream_app.escalate.admission import NotAdmitted
from stream_app.escalate.audit_work import AuditWork
from stream_app.escalate.handling import NotNow
from stream_app.escalate.outbox import Outcome
from stream_app.escalate.parked_work import NOT_ASKED_REST_S, ParkedWork
from stream_app.escalate.partition_work import PartitionWork
from stream_app.escalate.starting import Starting
from stream_app.escalate.works import Works
from stream_app.kafka.finished import FinishedOffsets
from tests.escalate import escalated
from tests.escalate.test_admission import FREE, Lane
from tests.kafka.owned import Partition, Record

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S, HOUR_S = 0.5, 3_600.0
DONE = Outcome((), None)
CORRECTED = Outcome((), None, gave_up="refused")


class Calls:
    """In the place of `Handling`: who was started, and how each try ends. Parked ones wait at the real admission."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.says: Callable[[int], Outcome | NotNow | None] = lambda _: None
        self.tried: list[tuple[int, int]] = []
        self.outcomes: list[int] = []
        self.audits = 0

    async def outcome(self, work: PartitionWork, item) -> Outcome:
        self.outcomes.append(item.record.offset)
        await asyncio.Event().wait()
        return DONE

    async def audit(self, deadline_s: float) -> NotNow | Outcome:
        self.audits += 1
        try:
            await self.lane.admission.reserve(0, [FREE], deadline_s, first=False, spare=True)
        except NotAdmitted:
            return NotNow(refused=True)
        return CORRECTED

    async def correction(self, work: ParkedWork, item, deadline_s: float) -> Outcome | NotNow:
        self.tried.append((work.number, item.record.offset))
        if (said := self.says(item.record.offset)) is not None:
            return said
        try:
            await self.lane.admission.reserve(work.account, [FREE], deadline_s, first=False, spare=True)
        except NotAdmitted:
            return NotNow(refused=True)
        return CORRECTED


class Audits:
    """In the place of `Auditing`: how many were started. They wait at the real admission."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def outcome(self, work: AuditWork, item, deadline_s: float) -> Outcome | NotNow:
        return await self.calls.audit(deadline_s)

    def expired(self, item) -> Outcome:
        return DONE


class Started:
    """A lane of two parked partitions and one of escalations, whose clock stands where the test puts it."""

    in_doubt = False

    def __init__(self, most: int = 8, parked: int = 40, *, spare_rate: float = 1e6) -> None:
        self.admission_lane = Lane(requests_per_minute=spare_rate)
        self.calls, self.works = Calls(self.admission_lane), Works()
        self.at_s, self.tasks = 100.0, []
        llm = escalated.settings("127.0.0.1:1", "http://127.0.0.1:1/v1", "shop", max_in_flight=most).llm
        admission = self.admission_lane.admission
        self.starting = Starting(
            llm,
            self.works,
            admission,
            self.calls,
            Audits(self.calls),
            self,
            lambda: self.at_s,
            time.time,
            lambda: 0.5,
        )
        self.escalated = PartitionWork(Partition(0), FinishedOffsets(0), 20_000)
        self.parked = [self.gain(number, parked // 2) for number in (0, 1)]
        self.works.gain(self.escalated)

    def gain(self, number: int, count: int, left_s: float = 86_400.0, kind: type = ParkedWork) -> ParkedWork:
        work = kind(Partition(number), FinishedOffsets(0), 20_000, account=number)
        work.arrived([Record(offset, b"x") for offset in range(count)], [time.time() + left_s] * count)
        self.works.gain(work)
        return work

    def spawn(self, coroutine) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))
        return self.tasks[-1]

    def failed(self, error: Exception) -> None:
        raise error

    async def tick(self, s: float = TICK_S) -> int:
        """That much later: how many more parked events were tried."""
        before = len(self.calls.tried)
        self.at_s += s
        self.starting.fill()
        await settled()
        return len(self.calls.tried) - before

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.admission_lane.admission.close()


async def settled() -> None:
    """Until all that is ready has run."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def make():
    """Makes a lane; what it started ends with the test."""
    made: list[Started] = []

    def one(*args, **options) -> Started:
        made.append(Started(*args, **options))
        return made[-1]

    yield one
    for each in made:
        await each.close()


async def test_where_one_could_not_be_asked_no_other_is_tried_for_a_while(make):
    """A budget that is short is short for all: an hour of it costs one try in five seconds, however many wait."""
    lane = make()
    lane.calls.says = lambda _: NotNow(refused=True)
    assert await lane.tick() <= 2  # a quarter of eight
    assert sum([await lane.tick() for _ in range(int(NOT_ASKED_REST_S / TICK_S) - 1)]) == 0
    assert await lane.tick() == 1
    tries = sum([await lane.tick() for _ in range(int(HOUR_S / TICK_S))])
    assert HOUR_S / NOT_ASKED_REST_S / 2 < tries <= HOUR_S / NOT_ASKED_REST_S
    assert len(set(lane.calls.tried)) <= 4, "the same ones go first again: no others are taken up in vain"


async def test_when_one_is_asked_again_all_are(make):
    """The first that gets its call tells that there is something to spare."""
    lane = make()
    lane.calls.says = lambda _: NotNow(refused=True)
    await lane.tick()
    lane.calls.says = lambda _: CORRECTED
    await lane.tick(NOT_ASKED_REST_S)
    for _ in range(5):
        await settled()
    assert all(not work.finished.unfinished for work in lane.parked)


async def test_one_whose_own_time_is_up_holds_up_nobody_else(make):
    """In a backlog as old as may be the first are always about to expire: that says nothing of those behind."""
    lane = make(parked=0)
    lane.gain(0, 5, left_s=-1.0)
    lane.calls.says = lambda _: NotNow(refused=True)
    assert await lane.tick() == 5
    assert lane.starting.under_way == set()


async def test_one_that_waits_for_its_like_holds_up_nobody_else(make):
    """The same question is under way, or its partition closes: that says nothing of the others."""
    lane = make()
    lane.calls.says = lambda offset: NotNow() if offset == 0 else CORRECTED
    await lane.tick()
    for _ in range(5):
        await settled()
    assert [work.finished.unfinished for work in lane.parked] == [1, 1]


@pytest.mark.parametrize(("most", "spares"), [(1, 1), (8, 2)])
async def test_a_parked_event_that_only_waits_gives_its_slot_to_who_comes(make, most, spares):
    """Of `max_in_flight` calls all are there for a burst, also where parked events wait for full buckets."""
    lane = make(most, spare_rate=0.1)
    assert await lane.tick() == spares
    lane.escalated.arrived([Record(offset, b"x") for offset in range(most)], [1e9] * most)
    await lane.tick(0.0)
    assert lane.calls.outcomes == list(range(most))
    assert sum(len(work.resting) for work in lane.parked) == spares
    assert await lane.tick(NOT_ASKED_REST_S) == 0


async def test_a_parked_event_that_only_waits_keeps_a_slot_that_nobody_wants(make):
    """Where there is room for all there is no reason to begin again."""
    lane = make(8, spare_rate=0.1)
    await lane.tick()
    lane.escalated.arrived([Record(offset, b"x") for offset in range(6)], [1e9] * 6)
    await lane.tick(0.0)
    assert lane.calls.outcomes == list(range(6))
    assert not any(work.resting for work in lane.parked)


async def test_parked_calls_of_a_partition_that_went_away_count(make):
    """Its calls go on: another quarter beside them would take the slots that are kept for who comes."""
    lane = make(spare_rate=0.1)
    assert await lane.tick() == 2
    for number, work in enumerate(lane.parked):
        lane.works.lose(work.partition)
        lane.gain(number, 20)
    assert await lane.tick() == 0


async def test_the_end_of_a_try_for_a_partition_that_went_away_tells_all_the_same(make):
    """The lane had nothing to spare, whoever owns the event now."""
    lane = make(spare_rate=0.1)
    await lane.tick()
    lost = lane.parked[0]
    lane.works.lose(lost.partition)
    lane.admission_lane.admission.give_way()
    await settled()
    assert not lost.resting
    assert await lane.tick() == 0


async def test_a_crowd_is_started_over_several_turns_of_the_event_loop(make):
    """What is started runs before the loop's next timer: a hundred at once would make heartbeats and commits late."""
    lane = make(most=1_000, parked=0)
    lane.escalated.arrived([Record(offset, b"x") for offset in range(100)], [time.time() + 60.0] * 100)
    turns = [0]
    lane.starting.fill()
    while len(lane.calls.outcomes) < 100 and len(turns) < 100:
        await asyncio.sleep(0)
        turns.append(len(lane.calls.outcomes))
        lane.starting.fill()  # whoever calls it meanwhile does not hurry it
    assert lane.calls.outcomes == list(range(100))
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 10


async def test_a_bug_in_a_later_turn_ends_the_lane(make):
    """Asyncio would only log what a callback raises."""
    lane, failures = make(most=1_000, parked=0), []
    lane.failed = failures.append
    lane.escalated.arrived([Record(offset, b"x") for offset in range(20)], [time.time() + 60.0] * 20)
    lane.starting.fill()
    bug = RuntimeError("bug")

    def next_item():
        raise bug

    lane.works.next_item = next_item
    await settled()
    assert failures == [bug]


async def test_audits_take_a_part_of_what_is_spare(make):
    """However many wait: parked events, which a correction is owed to, find most slots free, and go first."""
    lane = make(64, parked=0, spare_rate=0.1)
    lane.gain(0, 100, kind=AuditWork)
    await lane.tick()
    assert lane.calls.audits == 4
    lane.gain(1, 30)
    assert await lane.tick() == 64 // 4 - 4
    lane = make(64, parked=40, spare_rate=0.1)
    lane.gain(0, 100, kind=AuditWork)
    assert await lane.tick() == 64 // 4
    assert lane.calls.audits == 0


async def test_audits_that_only_wait_give_their_slots_to_who_comes(make):
    """As parked events do: of `max_in_flight` calls all are there for a burst."""
    lane = make(32, parked=0, spare_rate=0.1)
    lane.gain(0, 100, kind=AuditWork)
    await lane.tick()
    lane.escalated.arrived([Record(offset, b"x") for offset in range(32)], [1e9] * 32)
    await lane.tick(0.0)
    assert lane.calls.outcomes == list(range(32))

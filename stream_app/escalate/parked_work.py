"""What the slow lane knows of one owned partition of the parked topic: events that were decided without the LLM.

Their owner is the one writer of corrections: the LLM's later answers, and people's verdicts (`verdict_queue`).
They wait in Kafka, a few of them here. Each is tried while the lane is free; one that could not be asked, or got no
answer, rests here a while and is tried again, until its time is up.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.escalate.partition_work import SHARE_RECORDS_MIN, Item, PartitionWork, record_bytes
from stream_app.escalate.verdict_queue import VerdictQueue

if TYPE_CHECKING:
    import asyncio

    from stream_app.telemetry import Lane

WAITING_RECORDS_MAX = 200
WAITING_BYTES_MAX = 1_000_000
"""What all partitions of a worker may hold of parked events, those that rest among them: as much as is asked in the
next moments, no more."""
SHARE_BYTES_MIN = 64 * 1024
"""What the 32 records that each partition may hold come to. A few kilobytes would be full with one long text, whose
rests would hold up all behind it."""
NOT_ASKED_REST_S = 5.0
"""For one that was not asked: the lane had other work, no money to spare, or no LLM. All others wait as long."""
ASKED_REST_S = 30.0
ASKED_REST_MAX_S = 3_600.0
"""For one whose call failed, which may have been paid: doubled each time."""
IN_FLIGHT_SHARE = 0.25
"""Of `llm.max_in_flight`, but one at least: the rest stays free for whoever comes, since a call under way is not
broken off."""


def rest_s(tries: int, draw: float) -> float:
    """How long an event rests that was called about so often, with `draw` in [0, 1) so that not all come at once."""
    longest_s = NOT_ASKED_REST_S if tries == 0 else min(ASKED_REST_MAX_S, ASKED_REST_S * 2 ** min(tries - 1, 16))
    return longest_s * (1 + draw) / 2


def may_start(*, others_wait: bool, wait_s: float, sure: bool, started: int, parked: int, most: int) -> bool:
    """Whether the lane is free for one more parked event.

    `others_wait`: an event of the escalation topic, or its call, waits here. `wait_s`: until the breaker lets a call
    through, or the last one's refusal is over (`Spared`). Where it is not `sure` that a call would go, one parked
    event at a time may try whether the LLM is back, or there is something to spare: nobody would where nothing else
    comes. `started` events are under way, `parked` ones of them; `most` may be.
    """
    if others_wait or wait_s > 0 or started >= most:
        return False
    return parked < (max(1, int(most * IN_FLIGHT_SHARE)) if sure else 1)


@dataclass(slots=True)
class Spared:
    """Whether the lane has something to spare for parked events, by what became of the last ones that were tried.

    Money, or a call's slot, that is not there for one of them is not there for the others: each try would only cost
    the worker's time. So none is tried for a while, and then one at a time until one gets its call.
    """

    sure: bool = True
    _until_s: float = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until one may be tried."""
        return max(0.0, self._until_s - now_s)

    def refused(self, now_s: float) -> None:
        """There was nothing to spare for one."""
        self.sure, self._until_s = False, now_s + NOT_ASKED_REST_S

    def asked(self) -> None:
        """One got its call, or needed none."""
        self.sure = True


@dataclass(slots=True)
class ParkedWork(PartitionWork):
    """One parked partition's work in one assignment. An item's `deadline_s` is its expiry here, by the wall clock.

    `account` is the partition of the escalation topic that pays for it.
    """

    account: int = 0
    resting: list[tuple[float, int, Item]] = field(default_factory=list["tuple[float, int, Item]"])
    """A heap: when, which offset, what."""
    resting_bytes: int = 0
    tries: dict[int, int] = field(default_factory=dict[int, int])
    """Calls made in vain, by offset."""
    verdicts: VerdictQueue = field(default_factory=lambda: VerdictQueue(known=True))
    """People's verdicts of this number: the same owner, in the same transactions."""
    judging: asyncio.Task[None] | None = None
    """Works the verdicts off."""

    @property
    def lane(self) -> Lane:
        """Its name in the metrics."""
        return "parked"

    @property
    def held_records(self) -> int:
        """What waits or rests here."""
        return len(self.waiting) + len(self.resting)

    @property
    def held_bytes(self) -> int:
        """The same in bytes."""
        return self.waiting_bytes + self.resting_bytes

    @property
    def records_max(self) -> int:
        """Its share of the records that may wait or rest."""
        return max(SHARE_RECORDS_MIN, WAITING_RECORDS_MAX // self.owned)

    @property
    def bytes_max(self) -> int:
        """Its share of the bytes that may wait or rest."""
        return max(SHARE_BYTES_MIN, WAITING_BYTES_MAX // self.owned)

    def next_due(self, now_s: float) -> Item | None:
        """The next event to try: one that has rested, else one that came. None where none may be tried now."""
        if self.closing or not self.verdicts.known:
            return None
        if not self.resting or self.resting[0][0] > now_s:
            return self.next_item()
        item = heapq.heappop(self.resting)[2]
        self.resting_bytes -= record_bytes(item.record)
        self.resume_if_room()
        return item

    def rest(self, item: Item, now_s: float, draw: float, *, called: bool) -> None:
        """Not now: it is tried again later, the later the more often it was `called` about in vain."""
        offset = item.record.offset
        if called:
            self.tries[offset] = self.tries.get(offset, 0) + 1
        heapq.heappush(self.resting, (now_s + rest_s(self.tries.get(offset, 0), draw), offset, item))
        self.resting_bytes += record_bytes(item.record)
        self.pause_if_full()

    def take_expired(self, wall_s: float) -> list[Item]:
        """Takes out what need not be tried any more: all that is too old by now, what is under way aside."""
        if self.closing:
            return []
        expired = [item for _, _, item in self.resting if item.deadline_s <= wall_s]
        if expired:
            self.resting = [each for each in self.resting if each[2].deadline_s > wall_s]
            heapq.heapify(self.resting)
            self.resting_bytes -= sum([record_bytes(item.record) for item in expired])
            self.resume_if_room()
        while self.waiting and self.waiting[0].deadline_s <= wall_s:
            expired.append(self.take_first())
        return expired

    def forget(self, offset: int) -> None:
        """The event has an outcome."""
        self.tries.pop(offset, None)

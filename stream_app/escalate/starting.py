"""What the slow lane starts next: escalated events while there is room, parked ones and audits while nobody waits."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from stream_app.escalate.audit_work import AUDITS_IN_FLIGHT_SHARE, AuditWork
from stream_app.escalate.handling import NotNow
from stream_app.escalate.outbox import given_up
from stream_app.escalate.parked_work import ParkedWork, Spared, may_start

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stream_app.escalate.admission import Admission
    from stream_app.escalate.auditing import Auditing
    from stream_app.escalate.handling import Handling
    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.escalate.works import Works
    from stream_app.settings import Llm

log = logging.getLogger(__name__)

STARTS_AT_ONCE = 10
"""A started event is decoded, rendered and sent in the event loop's next turn, about a millisecond each, and all of
a turn before any timer: more of them wait for the turn after it, so that heartbeats and commits go on time."""


class Runs(Protocol):
    """The lane, as what is started sees it."""

    @property
    def in_doubt(self) -> bool:
        """True while another worker may own the partitions: nothing is started."""
        ...

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task of the lane, which ends with it; the lane ends with the task's failure."""
        ...

    def failed(self, error: Exception) -> None:
        """A bug in a callback: the lane dies of it."""
        ...


class Starting:
    """Starts events of `works`, at most `llm.max_in_flight` at a time; parked ones with what is left, audits last."""

    def __init__(
        self,
        llm: Llm,
        works: Works,
        admission: Admission,
        handling: Handling,
        auditing: Auditing,
        lane: Runs,
        now_s: Callable[[], float],
        wall_s: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._llm, self._works, self._admission = llm, works, admission
        self._handling, self._auditing = handling, auditing
        self._lane = lane
        self._now_s, self._wall_s, self._draw = now_s, wall_s, draw
        self.under_way: set[asyncio.Task[None]] = set()
        self._parked: set[asyncio.Task[None]] = set()
        """Those of parked events and audits, also where their partition has gone: their calls go on."""
        self._audits: set[asyncio.Task[None]] = set()
        """Of those, the audits'."""
        self._spared = Spared()
        self._going_on = False
        """More is started in the event loop's next turn."""

    def fill(self) -> None:
        """Starts what may be started, one of each partition in turn; nothing while the group may have expelled us."""
        if self._lane.in_doubt or self._going_on:
            return
        started = 0
        while len(self.under_way) < self._llm.max_in_flight:
            if started == STARTS_AT_ONCE:
                self._going_on = True
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            if (turn := self._works.next_item()) is None:
                break
            self._start(turn[0], self._handle(*turn))
            started += 1
        if len(self.under_way) >= self._llm.max_in_flight and self._others_wait:
            self._admission.give_way()  # each slot they leave is filled when its task has ended
        while self._is_free:
            audits = len(self._audits) < max(1, int(self._llm.max_in_flight * AUDITS_IN_FLIGHT_SHARE))
            spare = self._works.next_spare(self._now_s(), self._admission.owns, audits=audits)
            if spare is None:
                return
            self._start(spare[0], self._try(*spare))

    def _go_on(self) -> None:
        self._going_on = False
        try:
            self.fill()
        except Exception as error:  # noqa: BLE001 - any bug
            self._lane.failed(error)

    @property
    def _is_free(self) -> bool:
        """Whether one more parked event may be tried now. Asked after every event: the usual answer comes first."""
        if not self._works.any_spare:
            return False
        gate, now_s = self._admission.gate, self._now_s()
        return may_start(
            others_wait=self._admission.queued or self._others_wait,
            wait_s=max(self._spared.wait_s(now_s), gate.circuit_s(now_s)),
            sure=self._spared.sure and not gate.is_out,
            started=len(self.under_way),
            parked=len(self._parked),
            most=self._llm.max_in_flight,
        )

    @property
    def _others_wait(self) -> bool:
        return any(work.waiting for work in self._works.escalated)

    def _start(self, work: PartitionWork, handling: Coroutine[None, None, None]) -> None:
        task = self._lane.spawn(handling)
        work.running.add(task)
        self.under_way.add(task)
        if isinstance(work, ParkedWork):
            self._parked.add(task)
        if isinstance(work, AuditWork):
            self._audits.add(task)
        task.add_done_callback(partial(self._handled, work))

    async def _handle(self, work: PartitionWork, item: Item) -> None:
        """One event from start to outcome."""
        outcome = await self._handling.outcome(work, item)
        if outcome is not None and work in self._works:
            work.finish(item.record.offset, outcome)

    async def _try(self, work: ParkedWork, item: Item) -> None:
        """One try to correct a parked event, or to get an audit answered."""
        left_s = min(self._llm.deadline_s, item.deadline_s - self._wall_s())
        deadline_s = self._admission.running_s + left_s
        if isinstance(work, AuditWork):
            outcome = await self._auditing.outcome(work, item, deadline_s)
        else:
            outcome = await self._handling.correction(work, item, deadline_s)
        if not isinstance(outcome, NotNow) or outcome.called:
            self._spared.asked()
        elif outcome.refused and item.deadline_s > self._wall_s():  # else it was its own time that was up
            self._spared.refused(self._now_s())
        if work not in self._works:
            return
        if isinstance(outcome, NotNow):
            work.rest(item, self._now_s(), self._draw(), called=outcome.called)
        else:
            work.forget(item.record.offset)
            work.finish(item.record.offset, outcome)

    def give_up_expired(self) -> None:
        """Parked events whose time is up keep their finals; audits have had no answer."""
        for work in self._works.audits:
            for item in work.take_expired(self._wall_s()):
                work.forget(item.record.offset)
                work.finish(item.record.offset, self._auditing.expired(item))
        for work in self._works.parked:
            for item in work.take_expired(self._wall_s()):
                offset = item.record.offset
                log.info("the event parked at %d/%d is not asked any more: its final stands", work.number, offset)
                work.forget(offset)
                work.finish(offset, given_up("expired"))

    def _handled(self, work: PartitionWork, task: asyncio.Task[None]) -> None:
        """Makes room for the next event, and tells a hand-over that waits for the last."""
        work.running.discard(task)
        self.under_way.discard(task)
        self._parked.discard(task)
        self._audits.discard(task)
        if task.cancelled() or task.exception() is not None:
            return  # the lane ends
        try:
            if work.closing and not work.running:
                work.rush()
            self.fill()
        except Exception as error:  # noqa: BLE001 - any bug
            self._lane.failed(error)

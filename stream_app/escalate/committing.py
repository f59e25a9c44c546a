"""Commits what a partition finished: outcomes, commit point, map of what is finished beyond it, and spend lease."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from stream_app.errors import MembershipLost
from stream_app.escalate.parked_work import ParkedWork
from stream_app.events import NO_LABEL, Kind, each_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.escalate.admission import Admission
    from stream_app.escalate.outbox import Outcome
    from stream_app.escalate.partition_work import PartitionWork
    from stream_app.escalate.waste import Waste
    from stream_app.escalate.works import Works
    from stream_app.events import Decision
    from stream_app.settings import Settings
    from stream_app.telemetry import Lane, Metrics

log = logging.getLogger(__name__)


class Committing:
    """One transaction at a time for each of `works`, `linger_s` apart. `committed` is called after each."""

    def __init__(
        self,
        settings: Settings,
        works: Works,
        admission: Admission,
        waste: Waste,
        metrics: Metrics,
        wall_s: Callable[[], float],
        committed: Callable[[], None],
    ) -> None:
        self._settings, self._works, self._admission = settings, works, admission
        self._waste, self._metrics = waste, metrics
        self._wall_s = wall_s
        self._committed = committed

    async def run(self, work: PartitionWork) -> None:
        """Commits a partition's outcomes until it is handed over, or lost, or the lane ends."""
        try:
            while not work.handed_over:
                await work.something.wait()
                await self._linger(work)
                work.something.clear()
                work.hurry.clear()
                work.handed_over = work.closing and not work.running
                await self._commit(work)
        except MembershipLost as loss:
            log.info("partition %d is lost, its outcomes with it: %s", work.number, loss)
        finally:
            self._waste.uncommitted(work)

    @property
    def linger_s(self) -> float:
        """How long outcomes gather: long enough to stay below `transactions_per_s_max`; no longer in a hand-over."""
        handing_over = any(work.closing for work in self._works)
        base_s = 0.0 if handing_over else self._settings.escalate.linger_ms / 1000
        return max(base_s, self._works.busy / self._settings.kafka.transactions_per_s_max)

    async def _linger(self, work: PartitionWork) -> None:
        """Lets outcomes gather; not in a hurry."""
        try:
            async with asyncio.timeout(self.linger_s):
                await work.hurry.wait()
        except TimeoutError:
            return

    async def _commit(self, work: PartitionWork) -> None:
        """A parked partition has no lease of its own: the escalation partition of its number pays."""
        budget = None if isinstance(work, ParkedWork) else self._admission.gate.budgets[work.number]
        outcomes, flushes, paid = work.take_outcomes(), work.take_flushes(), list(work.paid)
        offset = work.finished.advance(work.partition.position)
        if budget is None and not outcomes and offset == work.partition.committed:
            _tell(flushes)
            return  # nothing is new: an idle partition is handed over without a transaction
        lease = None if budget is None else budget.lease(self._wall_s(), closing=work.closing)
        authority_nusd = 0 if budget is None or lease is None else budget.authority_of(lease)
        outgoing = [record for outcome in outcomes for record in outcome.outgoing]
        extra = work.verdicts.text() if isinstance(work, ParkedWork) else "" if lease is None else lease.text()
        metadata = work.finished.metadata(extra)
        began_s = time.perf_counter()
        work.delivering = True
        try:
            await work.partition.deliver(outgoing, offset, metadata)
        except MembershipLost:
            self._metrics.transaction(work.lane, "fenced", time.perf_counter() - began_s)
            raise
        finally:
            work.delivering = False
        _tell(flushes)
        for each in paid:
            del work.paid[each]
        self._metrics.transaction(work.lane, "committed", time.perf_counter() - began_s)
        if work.partition.may_deliver:  # else it was taken away meanwhile, and somebody else reports it
            self._metrics.committed(work.lane, work.number, offset)
        if budget is not None:
            budget.committed(authority_nusd)
        self._admission.pump()
        self._count(work.lane, outcomes)
        self._committed()

    def _count(self, lane: Lane, outcomes: Sequence[Outcome]) -> None:
        waited_s: list[float] = []
        self._metrics.feedback("audit", sum([outcome.labels for outcome in outcomes if outcome.audits]))
        self._metrics.feedback("escalated", sum([outcome.labels for outcome in outcomes if not outcome.audits]))
        self._metrics.feedback_left_out(sum([outcome.labels_left_out for outcome in outcomes]))
        for outcome in outcomes:
            if outcome.verdict is not None:
                self._metrics.verdicts(outcome.verdict)
            if outcome.decision is None:
                self._count_undecided(lane, outcome)
                continue
            self._metrics.decisions(outcome.decision.kind, outcome.decision.decided_by)
            if outcome.decision.kind is not Kind.CORRECTION:
                waited_s.append(self._count_final(outcome.decision, parked=outcome.parked))
        if waited_s:
            self._metrics.latencies("llm", np.asarray(waited_s, np.float64))

    def _count_undecided(self, lane: Lane, outcome: Outcome) -> None:
        """What became of a parked event, an audit or a verdict that led to no decision, or of a dead letter."""
        if outcome.gave_up is not None:
            self._metrics.parked_given_up(outcome.gave_up)
        elif outcome.audits:
            for task, result in outcome.audits:
                self._metrics.audited(task, result)
        elif outcome.verdict is None:
            self._metrics.dead_letters(lane, outcome.dead_cause or "unknown")

    def _count_final(self, decision: Decision, *, parked: bool) -> float:
        """How long its event waited, in seconds."""
        if parked:
            self._metrics.parked(decision.degraded_reason or "unknown")
        for task, answer in decision.answers.items():
            for label in each_label(answer.label) or (NO_LABEL,):
                self._metrics.answers(task, label, answer.decided_by)
        if decision.degraded_reason is not None:
            self._metrics.degraded(decision.degraded_reason)
        return (decision.decided_at_ms - decision.event.source.timestamp_ms) / 1000


def _tell(flushes: Sequence[asyncio.Future[None]]) -> None:
    for flush in flushes:
        if not flush.done():  # who waited may have been cancelled
            flush.set_result(None)

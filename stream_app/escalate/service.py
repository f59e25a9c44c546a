"""The slow lane: hundreds of LLM calls under way at once, finishing in any order, each event with one outcome.

    arrived ─► waiting ─► started (at most `max_in_flight`) ─► asked ─► finished ─► one transaction a partition
                  ▲ partitions take turns                        └ any order        └ every `linger_ms`

Exactly once: an outcome, the oldest unfinished offset and the map of what is finished beyond it commit together.
Whoever owns the partition next skips what the map names and asks the rest.

An event that had to be decided without the LLM is parked: it comes back from a topic of its own, and is asked while
the lane is free. The answer is a correction. A person's verdict is one too, by the same owner (`verdict_desk`).
Audits of accepted answers come from another topic, and are asked last.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from stream_app.escalate.ask import Asker
from stream_app.escalate.audit_work import AuditWork
from stream_app.escalate.auditing import Auditing
from stream_app.escalate.budget import parse_lease
from stream_app.escalate.cache import AnswerCache
from stream_app.escalate.committing import Committing
from stream_app.escalate.handling import Handling
from stream_app.escalate.line import Line
from stream_app.escalate.outbox import Outbox
from stream_app.escalate.parked_work import ParkedWork
from stream_app.escalate.partition_work import PartitionWork
from stream_app.escalate.reporting import Reporting
from stream_app.escalate.second_admission import FirstAdmission, admission_of
from stream_app.escalate.second_opinion import SecondOpinion
from stream_app.escalate.starting import Starting
from stream_app.escalate.verdict_desk import VerdictDesk
from stream_app.escalate.verdict_log import VerdictLog
from stream_app.escalate.verdict_queue import VerdictQueue, parse_done
from stream_app.escalate.waste import Waste
from stream_app.escalate.works import Works
from stream_app.kafka import finished as finished_map
from stream_app.kafka.finished import FinishedOffsets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import Codec
    from stream_app.escalate.line import PricedClient
    from stream_app.escalate.prompt import Prompter
    from stream_app.kafka.connection import Connection
    from stream_app.kafka.membership import Membership
    from stream_app.kafka.owned import Committed, OwnedPartition
    from stream_app.kafka.topics import TopicFound
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

TICK_S = 0.5


class EscalateLane:
    """Owns the partitions of escalations, parked events and audits that the group gives it. Implements `LaneWork`.

    `topics` are the pipeline's topics by name (`stream_app.kafka.topics.require`); `make_membership` gets this
    lane and gives its membership. `endpoints` and `prompters` are those of `settings.llm.endpoints`, in their order;
    the clients stay their owner's to close.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        endpoints: Sequence[PricedClient],
        prompters: Sequence[Prompter],
        topics: Mapping[str, TopicFound],
        metrics: Metrics,
        make_membership: Callable[[EscalateLane], Membership],
        connection: Connection,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._metrics, self._now_s, self._wall_s = settings, metrics, now_s, wall_s
        self._works = Works()
        self._waste = Waste(self._works, metrics, now_s)
        self._partitions = topics[settings.kafka.names.escalations].partitions
        self._admission = admission_of(
            settings,
            self._partitions,
            now_s=now_s,
            wall_s=wall_s,
            want_lease=self._want_lease,
            failed=self.failed,
            in_doubt=lambda: self.in_doubt,
        )
        first, gates = len(settings.llm.in_turn), [*self._admission.gate.endpoints]
        line = Line(endpoints[:first], self._admission, settings.llm.timeout_s, metrics, now_s, wall_s, draw)
        second: SecondOpinion | None = None
        if isinstance(self._admission, FirstAdmission):
            beside = replace(line, endpoints=endpoints[first:], admission=self._admission.second)
            second = SecondOpinion(beside, prompters[-1])
            gates += self._admission.second.gate.endpoints
        asker, outbox = Asker(line, AnswerCache()), Outbox(settings, codec, topics)
        handling = Handling(codec, prompters[:first], asker, outbox, self._waste, wall_s, second)
        results = topics[settings.kafka.names.audit_results]
        auditing = Auditing(codec, prompters[:first], asker, outbox, results, self._waste, wall_s)
        self._starting = Starting(
            settings.llm, self._works, self._admission, handling, auditing, self, now_s, wall_s, draw
        )
        self._committing = Committing(
            settings, self._works, self._admission, self._waste, metrics, wall_s, committed=self._starting.fill
        )
        named = {one.client.name: gate for one, gate in zip(endpoints, gates, strict=True)}
        verdicts = topics[settings.kafka.names.verdicts]
        log_of = VerdictLog(connection, verdicts.name, verdicts.partitions)
        self._desk = VerdictDesk(settings, connection, log_of, outbox, wall_s)
        self._reporting = Reporting(self._works, self._admission, metrics, named)
        self._tasks: asyncio.TaskGroup | None = None
        self.membership = make_membership(self)

    @property
    def in_doubt(self) -> bool:
        """True while another worker may own the partitions: nothing is started."""
        return self.membership.in_doubt

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then drains. Raises what ends the worker, bare."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                ticking = self._tasks.create_task(self._tick())
                verdicts = self._tasks.create_task(self._desk.run())
                await self.membership.run(stop)
                if left := self._starting.under_way:
                    log.warning("%d events under way are left to their next owner, who asks again", len(left))
                for task in (ticking, verdicts, *left):
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._admission.close()
            self._waste.give_up()

    # LaneWork

    def opened(self, partition: OwnedPartition, committed: Committed) -> None:
        """Takes over what the last owner had finished and leased."""
        restored = finished_map.decode(committed.metadata, committed.offset)
        if restored.doubt is not None:
            log.error(
                "partition %d: the offset's metadata is not believed (%s): finished events may be asked again",
                partition.number,
                restored.doubt,
            )
        finished = FinishedOffsets(committed.offset)
        finished.restore(restored.finished)
        topic, span_max = partition.tp.topic, self._settings.escalate.span_max
        owned = max(1, sum(each.tp.topic == topic for each in self.membership.owned))
        spare = {self._settings.kafka.names.parked: ParkedWork, self._settings.kafka.names.audits: AuditWork}
        if (kind := spare.get(topic)) is not None:
            account = partition.number % self._partitions
            work = kind(partition, finished, span_max, owned, restored.finished, account=account)
            self._works.gain(work)
            if kind is ParkedWork:
                work.verdicts = VerdictQueue(parse_done(restored.extra))
                self._desk.follow(work, self.spawn)
        else:
            work = PartitionWork(partition, finished, span_max, owned, restored.finished)
            self._works.gain(work)
            self._admission.gain(partition.number, parse_lease(restored.extra))
        work.committer = self.spawn(self._committing.run(work))
        self._waste.came_back(work, committed.offset)
        self._metrics.committed(work.lane, partition.number, committed.offset)

    def arrived(self, partition: OwnedPartition, records: Sequence[Record]) -> None:
        """Queues the records, each with its deadline."""
        work = self._works[partition]
        deadlines = self._expiries(work, records) if isinstance(work, ParkedWork) else self._deadlines(records)
        self._metrics.records(work.lane, work.arrived(records, deadlines))
        self._starting.fill()

    async def hand_over(self, partitions: frozenset[OwnedPartition]) -> None:
        """Starts nothing new, waits for the calls under way, delivers; what only waits is left to the next owner."""
        works = [work for work in self._works if work.partition in partitions]
        for work in works:
            work.closing = True
            if not isinstance(work, ParkedWork):
                self._admission.stop(work.number)
            if not work.running:
                work.rush()
        committers = [work.committer for work in works if work.committer is not None]
        if committers:
            await asyncio.wait(committers)

    def lost(self, partition: OwnedPartition) -> None:
        """Drops the partition's work. Calls under way go on: if it comes back, the cache has their answers.

        A transaction that was begun runs to its end, which its committer sees and counts.
        """
        work = self._works.lose(partition)
        if work is not None:
            work.closing = work.handed_over = True
            if isinstance(work, ParkedWork):
                self._desk.leave(work)
            else:
                self._admission.lose(work.number)
            if work.committer is None or work.committer.done():
                self._waste.uncommitted(work)
            elif not work.delivering:
                work.committer.cancel()
            self._metrics.partition_gone(work.lane, partition.number)

    def membership_lost(self) -> None:
        """Counts it."""
        self._metrics.membership_lost("escalate")

    def _deadlines(self, records: Sequence[Record]) -> list[float]:
        """When each record's time is up, in running time: counted from now, or from its own timestamp."""
        deadline_s = self._admission.running_s + self._settings.llm.deadline_s
        if self._settings.llm.deadline_from == "fetch":
            return [deadline_s] * len(records)
        wall_s = self._wall_s()
        return [deadline_s - max(0.0, wall_s - record.timestamp / 1000) for record in records]

    def _expiries(self, work: ParkedWork, records: Sequence[Record]) -> list[float]:
        """Until when each parked event or audit may be asked, by the wall clock; its timestamp is when it came."""
        audit, llm = self._settings.audit, self._settings.llm
        max_age_s = audit.max_age_s if isinstance(work, AuditWork) else llm.parked_max_age_s
        return [record.timestamp / 1000 + max_age_s for record in records]

    def failed(self, error: Exception) -> None:
        """A bug in a callback, which asyncio would only log: a task dies of it, and the lane with that."""

        async def die() -> None:
            raise error

        self.spawn(die())

    def _want_lease(self, partitions: Iterable[int]) -> None:
        """Calls wait until a larger lease of these partitions is committed."""
        wanted = set(partitions)
        for work in self._works.escalated:
            if work.number in wanted:
                work.rush()

    async def _tick(self) -> None:
        """Commits positions behind transaction markers, so that lag reaches zero; reports lag."""
        while True:
            await asyncio.sleep(TICK_S)
            self._waste.settle()
            self._starting.give_up_expired()
            self._reporting.report(self._now_s(), joined=self.membership.joined)
            for work in self._works:
                if work.idle_behind:
                    work.something.set()
            self._starting.fill()  # what was held back while membership was in doubt, or had to rest

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task of the lane, which ends with it; the lane ends with the task's failure."""
        return cast("asyncio.TaskGroup", self._tasks).create_task(coroutine)

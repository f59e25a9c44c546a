"""The slow lane: hundreds of LLM calls under way at once, finishing in any order, each event with one outcome.

    arrived ─► waiting ─► started (at most `max_in_flight`) ─► asked ─► finished ─► one transaction a partition
                  ▲ partitions take turns                        └ any order        └ every `linger_ms`

Exactly once: an outcome, the oldest unfinished offset and the map of what is finished beyond it commit together.
Whoever owns the partition next skips what the map names and asks the rest.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from stream_app.escalate.admission import Admission
from stream_app.escalate.ask import Asker
from stream_app.escalate.breaker import Circuit
from stream_app.escalate.budget import parse_lease
from stream_app.escalate.cache import AnswerCache
from stream_app.escalate.committing import Committing
from stream_app.escalate.gate import gate_of
from stream_app.escalate.handling import Handling
from stream_app.escalate.line import Line
from stream_app.escalate.outbox import Outbox
from stream_app.escalate.partition_work import PartitionWork
from stream_app.escalate.waste import Waste
from stream_app.escalate.works import Works
from stream_app.kafka import finished as finished_map
from stream_app.kafka.finished import FinishedOffsets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import Codec
    from stream_app.escalate.line import PricedClient
    from stream_app.escalate.partition_work import Item
    from stream_app.escalate.prompt import Prompter
    from stream_app.kafka.membership import Membership
    from stream_app.kafka.owned import Committed, OwnedPartition
    from stream_app.kafka.topics import TopicFound
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

LANE = "escalate"
TICK_S = 0.5


class EscalateLane:
    """Owns the partitions of the escalation topic that the group gives it. Implements `LaneWork`.

    `topics` are the pipeline's topics by name (`stream_app.kafka.topics.require`); `make_membership` gets this
    lane and gives its membership. `endpoints` and `prompters` are those of the settings' endpoints, in their order;
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
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._metrics, self._now_s, self._wall_s = settings, metrics, now_s, wall_s
        self._endpoints = [endpoint.client.name for endpoint in endpoints]
        self._works = Works()
        self._waste = Waste(self._works, metrics, now_s)
        partitions = topics[settings.kafka.names.escalations].partitions
        self._admission = Admission(
            gate_of(settings, partitions),
            now_s=now_s,
            wall_s=wall_s,
            want_lease=self._want_lease,
            failed=self._failed,
            in_doubt=lambda: self.membership.in_doubt,
        )
        line = Line(endpoints, self._admission, settings.llm.timeout_s, metrics, now_s, wall_s, draw)
        asker, outbox = Asker(line, AnswerCache()), Outbox(settings, codec, topics)
        self._event = Handling(codec, prompters, asker, outbox, self._waste, wall_s)
        self._committing = Committing(
            settings, self._works, self._admission, self._waste, metrics, wall_s, committed=self._fill
        )
        self._under_way: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self.membership = make_membership(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then drains. Raises what ends the worker, bare."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                ticking = self._tasks.create_task(self._tick())
                await self.membership.run(stop)
                if self._under_way:
                    left = len(self._under_way)
                    log.warning("%d events under way are left to their next owner, who asks again", left)
                for task in (ticking, *self._under_way):
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
        owned = max(1, len(list(self.membership.owned)))
        work = PartitionWork(partition, finished, self._settings.escalate.span_max, owned, restored.finished)
        self._works.gain(work)
        self._admission.gain(partition.number, parse_lease(restored.extra))
        work.committer = self._spawn(self._committing.run(work))
        self._waste.came_back(work, committed.offset)
        self._metrics.committed(LANE, partition.number, committed.offset)

    def arrived(self, partition: OwnedPartition, records: Sequence[Record]) -> None:
        """Queues the records, each with its deadline."""
        taken = self._works[partition].arrived(records, self._deadlines(records))
        self._metrics.records(LANE, taken)
        self._fill()

    async def hand_over(self, partitions: frozenset[OwnedPartition]) -> None:
        """Starts nothing new, waits for the calls under way, delivers; what only waits is left to the next owner."""
        works = [work for work in self._works if work.partition in partitions]
        for work in works:
            work.closing = True
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
            self._admission.lose(work.number)
            if work.committer is None or work.committer.done():
                self._waste.uncommitted(work)
            elif not work.delivering:
                work.committer.cancel()
        self._metrics.partition_gone(LANE, partition.number)

    def membership_lost(self) -> None:
        """Counts it."""
        self._metrics.membership_lost(LANE)

    # Starting

    def _deadlines(self, records: Sequence[Record]) -> list[float]:
        """When each record's time is up, in running time: counted from now, or from its own timestamp."""
        deadline_s = self._admission.running_s + self._settings.llm.deadline_s
        if self._settings.llm.deadline_from == "fetch":
            return [deadline_s] * len(records)
        wall_s = self._wall_s()
        return [deadline_s - max(0.0, wall_s - record.timestamp / 1000) for record in records]

    def _fill(self) -> None:
        """Starts what may be started, one of each partition in turn; nothing while the group may have expelled us."""
        if self.membership.in_doubt:
            return
        while len(self._under_way) < self._settings.llm.max_in_flight:
            if (turn := self._works.next_item()) is None:
                return
            work, item = turn
            task = self._spawn(self._handle(work, item))
            work.running.add(task)
            self._under_way.add(task)
            task.add_done_callback(partial(self._handled, work))

    async def _handle(self, work: PartitionWork, item: Item) -> None:
        """One event from start to outcome."""
        outcome = await self._event.outcome(work, item)
        if outcome is not None and work in self._works:
            work.finish(item.record.offset, outcome)

    def _handled(self, work: PartitionWork, task: asyncio.Task[None]) -> None:
        """Makes room for the next event, and tells a hand-over that waits for the last."""
        work.running.discard(task)
        self._under_way.discard(task)
        if task.cancelled() or task.exception() is not None:
            return  # the lane ends
        try:
            if work.closing and not work.running:
                work.rush()
            self._fill()
        except Exception as error:  # noqa: BLE001 - any bug
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A bug in a callback, which asyncio would only log: a task dies of it, and the lane with that."""

        async def die() -> None:
            raise error

        self._spawn(die())

    def _want_lease(self, partitions: Iterable[int]) -> None:
        """Calls wait until a larger lease of these partitions is committed."""
        wanted = set(partitions)
        for work in self._works:
            if work.number in wanted:
                work.rush()

    async def _tick(self) -> None:
        """Commits positions behind transaction markers, so that lag reaches zero; reports lag."""
        while True:
            await asyncio.sleep(TICK_S)
            if self.membership.joined:
                paused = sum(not work.partition.wanted for work in self._works)
                self._metrics.partitions_owned(LANE, len(self._works), paused)
            self._waste.settle()
            self._report_endpoints()
            self._metrics.waiting(LANE, self._admission.waits_for)
            self._metrics.in_flight(LANE, sum(work.finished.unfinished for work in self._works))
            for work in self._works:
                self._metrics.lag(LANE, work.number, work.partition.lag)
                if work.idle_behind:
                    work.something.set()
            self._fill()  # what was held back while membership was in doubt

    def _report_endpoints(self) -> None:
        for name, gate in zip(self._endpoints, self._admission.gate.endpoints, strict=True):
            factors = gate.rate.factors(self._now_s())
            self._metrics.llm_limits(name, factors.requests, factors.tokens, gate.rate.learner.refusals)
            self._metrics.llm_estimates(name, gate.use.error, gate.use.bias)
            self._metrics.llm_circuit(name, is_open=gate.breaker.circuit is not Circuit.CLOSED)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return cast("asyncio.TaskGroup", self._tasks).create_task(coroutine)

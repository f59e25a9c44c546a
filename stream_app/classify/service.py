"""The hot path: fetched records are batched over partitions, decided, and delivered, partition by partition.

    arrived ─► feeds ─► batch ─► decode ─► score and route ─► outbox ─► one transaction a partition
                          └ the next batch is scored while the last one is delivered

Exactly once: a run's outcomes and its offset commit together, runs of a partition in order (`Run.turn`), and a
run that fails ends its partition for this membership.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from stream_app.classify import first_look
from stream_app.classify.batch import BatchWork
from stream_app.classify.batch_size import BatchSize
from stream_app.classify.batching import Batching
from stream_app.classify.delivering import Delivering
from stream_app.classify.holding import levels_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.feed import Feed, Run
    from stream_app.classify.in_force import Policing
    from stream_app.classify.swapping import Swapper
    from stream_app.codec import Codec
    from stream_app.kafka.membership import Membership
    from stream_app.kafka.owned import Committed, OwnedPartition
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics

    Record = ConsumerRecord[bytes | None, bytes | None]

BATCHES_IN_FLIGHT = 3
"""One being scored, one being delivered, one being decoded."""
TICK_S = 0.5


class ClassifyLane:
    """Owns the partitions of the input topic that the group gives it. Implements `LaneWork`.

    `make_membership` gets this lane and gives its membership: tests put in one with a fault. `swapper` brings other
    policies into force.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        policing: Policing,
        metrics: Metrics,
        make_membership: Callable[[ClassifyLane], Membership],
        swapper: Swapper | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._input_topic = settings.kafka.input_topic
        self._metrics = metrics
        self._feeds: dict[OwnedPartition, Feed] = {}
        size = BatchSize(settings.classify.batch_records_max)
        self._batching = Batching(settings, size, self._feeds)
        self._batch_work = BatchWork(codec, policing, metrics, size, now_ms)
        self._swapper = swapper
        self._delivering = Delivering(metrics, self._batching.wake)
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._tasks: asyncio.TaskGroup | None = None
        self._working: set[asyncio.Task[None]] = set()
        self.membership = make_membership(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then drains. Raises what ends the worker, bare."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                pumping = self._tasks.create_task(self._pump())
                ticking = self._tasks.create_task(self._tick())
                works = [] if self._swapper is None else self._swapper.works(self)
                beside = [self._tasks.create_task(work) for work in works]
                await self.membership.run(stop)
                # What still works has lost its partitions: it would wait for Triton, and keep the worker from ending.
                for task in (pumping, ticking, *beside, *self._working):
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    def put_in_force(self, policing: Policing) -> Policing:
        """The next batch is decided by it; what went before. Waits of batches for a model of that one end."""
        before = self._batch_work.policing
        self._batch_work.policing = policing
        before.decider.retire()
        return before

    # LaneWork

    def opened(self, partition: OwnedPartition, committed: Committed) -> None:
        """A queue for the partition."""
        levels = levels_in(committed, partition.number)
        self._batching.open(partition, max(1, len(list(self.membership.owned))), levels)
        self._metrics.committed("classify", partition.number, committed.offset)

    def arrived(self, partition: OwnedPartition, records: Sequence[Record]) -> None:
        """Queues the records."""
        self._feeds[partition].put(records)
        self._metrics.records("classify", len(records))
        self._batching.wake()

    async def hand_over(self, partitions: frozenset[OwnedPartition]) -> None:
        """What is in a batch is delivered; what only waits is left to the next owner."""
        feeds = [self._feeds[partition] for partition in partitions if partition in self._feeds]
        for feed in feeds:
            feed.close()
        await asyncio.gather(*(feed.drained() for feed in feeds))

    def lost(self, partition: OwnedPartition) -> None:
        """Forgets the partition; runs under way find it lost when their turn comes."""
        feed = self._feeds.pop(partition, None)
        if feed is not None:
            feed.close()
        self._metrics.partition_gone("classify", partition.number)

    def membership_lost(self) -> None:
        """Counts it."""
        self._metrics.membership_lost("classify")

    # Batches

    async def _pump(self) -> None:
        """Forms batches for ever: after a short linger, no sooner than transactions may follow each other."""
        judged = False
        while True:
            await self._batching.changed()
            if not judged:
                judged = await first_look.judged(self._feeds, self._batch_work.decode, self._input_topic)
                if not judged:
                    continue
            await self._batching.linger()
            await self._slots.acquire()
            runs = self._batching.take()
            if not runs:
                self._slots.release()
                continue
            working = cast("asyncio.TaskGroup", self._tasks).create_task(self._work(runs))
            self._working.add(working)
            working.add_done_callback(self._working.discard)

    async def _work(self, runs: list[Run]) -> None:
        released = False
        try:
            outcomes = await self._batch_work.outcomes(runs)
            self._slots.release()
            released = True
            outcomes.tally.count_into(self._metrics)
            await self._delivering.deliver_all(runs, outcomes)
        finally:
            if not released:
                self._slots.release()
            for run in runs:
                run.feed.finish(run, delivered=False)
            self._batching.wake()

    # What time brings

    async def _tick(self) -> None:
        """Commits positions behind transaction markers, so that lag reaches zero; reports lag."""
        while True:
            await asyncio.sleep(TICK_S)
            feeds = list(self._feeds.values())
            if self.membership.joined:
                paused = sum(not feed.partition.wanted for feed in feeds)
                self._metrics.partitions_owned("classify", len(feeds), paused)
            self._metrics.in_flight("classify", sum(feed.waiting for feed in feeds))
            for feed in feeds:
                partition = feed.partition
                self._metrics.lag("classify", partition.number, partition.lag)
                if feed.idle and not (feed.closing or feed.broken) and partition.position > partition.committed >= 0:
                    mark = feed.mark(partition.position)
                    cast("asyncio.TaskGroup", self._tasks).create_task(self._delivering.commit(mark))

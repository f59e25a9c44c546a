"""The hot path: fetched records are batched over partitions, decided, and delivered, partition by partition.

    arrived ─► feeds ─► batch ─► decode ─► score and route ─► outbox ─► one transaction a partition
                          └ the next batch is scored while the last one is delivered

Exactly once: a run's outcomes and its offset commit together, runs of a partition in order (`Run.turn`), and a
run that fails ends its partition for this membership.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stream_app.classify.batch_size import BatchSize
from stream_app.classify.feed import Feed, Run
from stream_app.classify.first_look import RECORDS_MAX, RECORDS_MIN, due, look
from stream_app.classify.outbox import Outbox, Tally
from stream_app.codec import Cause
from stream_app.errors import MembershipLost, UnreadableRecord
from stream_app.events import Event, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.deciding import Decider
    from stream_app.codec import Codec
    from stream_app.kafka.membership import Membership
    from stream_app.kafka.owned import Committed, OwnedPartition
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 3
"""One being scored, one being delivered, one being decoded."""
BATCH_BYTES_MAX = 2_500_000
"""The values of a batch. A record under way costs about eight times its value: the record, its text, the request to
Triton, the decision, the batch for Kafka. 12,500 records of 200 bytes still fit."""
WAITING_BYTES_MAX = 2 * BATCH_BYTES_MAX
"""The values that all partitions of a worker may hold before they are decided: the next batch, and one to come while
it is made. Twice `batch_records_max` records is the other bound, at about 500 bytes each beside their values. Above
its share of either a partition is paused; one fetch of it may still arrive."""
SHARE_RECORDS_MIN, SHARE_BYTES_MIN = 512, 128 * 1024
"""No partition's share is less, however many are owned: a share is what one transaction carries, and their number a
second is bounded, so that 96 partitions at 50 transactions/s can take 25,000 records/s."""
FULL_BATCH_WITHIN_S = 0.1
TICK_S = 0.5
DECODE_CHUNK = 2_048
"""Records decoded before the event loop gets a turn: about 10 ms."""


@dataclass(slots=True)
class Decoded:
    """A batch's records as events, and where each stands. `out` has one list of records to produce for each."""

    records: list[Record]
    out: list[Outgoing | None]
    events: list[Event]
    places: list[int]
    tally: Tally


class ClassifyLane:
    """Owns the partitions of the input topic that the group gives it. Implements `LaneWork`.

    `make_membership` gets this lane and gives its membership: tests put in one with a fault.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        decider: Decider,
        outbox: Outbox,
        metrics: Metrics,
        make_membership: Callable[[ClassifyLane], Membership],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._codec = codec
        self._decider = decider
        self._outbox = outbox
        self._metrics = metrics
        self._now_ms = now_ms
        self._feeds: dict[OwnedPartition, Feed] = {}
        self._ripe = asyncio.Event()
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._tasks: asyncio.TaskGroup | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._judged = False
        self._next_start_s = 0.0
        self._turn = 0
        self._size = BatchSize(settings.classify.batch_records_max)
        self.membership = make_membership(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then drains. Raises what ends the worker, bare."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                pumping = self._tasks.create_task(self._pump())
                ticking = self._tasks.create_task(self._tick())
                await self.membership.run(stop)
                # What still works has lost its partitions: it would wait for Triton, and keep the worker from ending.
                for task in (pumping, ticking, *self._working):
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    # LaneWork

    def opened(self, partition: OwnedPartition, committed: Committed) -> None:
        """A queue for the partition."""
        batch = self._settings.classify.batch_records_max
        owned = max(1, len(list(self.membership.owned)))
        records_max = max(SHARE_RECORDS_MIN, 2 * batch // owned)
        self._feeds[partition] = Feed(partition, records_max, max(SHARE_BYTES_MIN, WAITING_BYTES_MAX // owned))
        self._metrics.committed("classify", partition.number, committed.offset)

    def arrived(self, partition: OwnedPartition, records: Sequence[Record]) -> None:
        """Queues the records."""
        self._feeds[partition].put(records)
        self._metrics.records("classify", len(records))
        self._ripe.set()

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

    # Batching

    async def _pump(self) -> None:
        """Forms batches for ever: after a short linger, no sooner than transactions may follow each other."""
        while True:
            await self._ripe.wait()
            self._ripe.clear()
            if not self._judged and not await self._judge():
                continue
            await self._linger()
            await self._slots.acquire()
            runs = self._take()
            if not runs:
                self._slots.release()
                continue
            # A transaction costs about 1 ms of CPU, so their number a second is bounded.
            pause_s = len(runs) / self._settings.kafka.transactions_per_s_max
            self._next_start_s = asyncio.get_running_loop().time() + pause_s
            working = cast("asyncio.TaskGroup", self._tasks).create_task(self._work(runs))
            self._working.add(working)
            working.add_done_callback(self._working.discard)
            if any(feed.can_run for feed in self._feeds.values()):
                self._ripe.set()

    async def _linger(self) -> None:
        loop = asyncio.get_running_loop()
        linger_s = 0.0 if self._full() else self._settings.classify.linger_ms / 1000
        pause_s = max(linger_s, self._next_start_s - loop.time())
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        if self._behind():
            await self._until_full()

    def _full(self) -> bool:
        """As much waits as one batch takes."""
        feeds = self._feeds.values()
        records, value_bytes = sum(feed.waiting for feed in feeds), sum(feed.value_bytes for feed in feeds)
        return records >= self._size.records or value_bytes >= BATCH_BYTES_MAX

    def _behind(self) -> bool:
        """More than a batch is still on the broker: then records are cheaper in full batches, and none is late."""
        ahead = sum(max(0, feed.partition.end - feed.partition.position) for feed in self._feeds.values())
        return ahead > self._size.records

    async def _until_full(self) -> None:
        """Returns when a full batch waits, or after `FULL_BATCH_WITHIN_S`."""
        try:
            async with asyncio.timeout(FULL_BATCH_WITHIN_S):
                while not self._full() and self._more_comes():
                    self._ripe.clear()
                    await self._ripe.wait()
        except TimeoutError:
            return

    def _more_comes(self) -> bool:
        """The broker has more of a partition that is not paused."""
        partitions = [feed.partition for feed in self._feeds.values()]
        return any(partition.wanted and partition.end > partition.position for partition in partitions)

    def _take(self) -> list[Run]:
        """Runs of all that waits, whole partitions at a time, those first that had none for longest.

        Full runs are what makes transactions cheap: a little of each of 96 partitions would be as many transactions.
        """
        ready = [feed for feed in self._feeds.values() if feed.can_run]
        # As if all were of one size, as in `Feed.take`.
        value_bytes = sum(feed.value_bytes for feed in ready)
        fits = sum(feed.waiting for feed in ready) * BATCH_BYTES_MAX // max(1, value_bytes)
        room = min(self._size.records, max(1, fits))
        runs: list[Run] = []
        for feed in sorted(ready, key=lambda feed: feed.ran_at):
            self._turn += 1
            feed.ran_at = self._turn
            runs.append(feed.take(room))
            room -= runs[-1].count
            if room <= 0:
                break
        return runs

    async def _judge(self) -> bool:
        """Whether work may begin; raises UnreadableTopic where most of the first records are no events."""
        started_s = asyncio.get_running_loop().time()
        while True:
            first = [record for feed in self._feeds.values() for record in feed.peek(RECORDS_MAX)][:RECORDS_MAX]
            if not first:
                return False
            final = due(len(first), asyncio.get_running_loop().time() - started_s)
            if len(first) >= RECORDS_MIN or final:
                found = look(first, self._decode)
                if found.passes() or len(first) < RECORDS_MIN:
                    self._judged = True
                    return True
                if final:
                    raise found.failure(self._settings.kafka.input_topic)
            await asyncio.sleep(0.05)

    # One batch

    async def _work(self, runs: list[Run]) -> None:
        released = False
        try:
            out, extra, tally = await self._outcomes(runs)
            self._slots.release()
            released = True
            self._count(tally)
            await self._deliver_all(runs, out, extra)
        finally:
            if not released:
                self._slots.release()
            for run in runs:
                run.feed.finish(run, delivered=False)
            self._ripe.set()

    async def _outcomes(self, runs: list[Run]) -> tuple[list[Outgoing | None], dict[int, Outgoing], Tally]:
        """What becomes of every record. Inputs and texts are let go here: delivery needs them no more."""
        decoded = await self._decode_all(runs)
        for run in runs:
            run.records = ()
        started_s = time.perf_counter()
        extra = await self._decide(decoded)
        self._size.took(len(decoded.records), time.perf_counter() - started_s)
        return decoded.out, extra, decoded.tally

    def _decode(self, record: Record) -> object:
        return self._codec.decode(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.headers,
        )

    async def _decode_all(self, runs: list[Run]) -> Decoded:
        records = [record for run in runs for record in run.records]
        decoded = Decoded(records, [None] * len(records), [], [], Tally())
        decode, out, tally = self._codec.decode, decoded.out, decoded.tally
        add_event, add_place = decoded.events.append, decoded.places.append
        for place, record in enumerate(records):
            if not place % DECODE_CHUNK:
                await asyncio.sleep(0)  # heartbeats get their turn
            topic, partition, offset, stamp_ms = record.topic, record.partition, record.offset, record.timestamp
            try:
                item = decode(topic, partition, offset, stamp_ms, record.key, record.value, record.headers)
            except UnreadableRecord as error:
                out[place] = self._outbox.unreadable(record, error)
                tally.dead[error.cause] += 1
                continue
            if type(item) is Event:  # the only other kind is a tombstone; this is asked for every record
                add_event(item)
                add_place(place)
            else:
                out[place] = self._outbox.tombstone(cast("Any", item))
                tally.tombstones += 1
        return decoded

    async def _decide(self, decoded: Decoded) -> dict[int, Outgoing]:
        """Fills `decoded.out` for every event; gives the provisional decisions by place."""
        extra: dict[int, Outgoing] = {}
        events, places, records = decoded.events, decoded.places, decoded.records
        if not events:
            return extra
        verdicts = await self._decider.decide([event.text for event in events])
        at_ms = self._now_ms()
        rows = np.flatnonzero(verdicts.accepted).tolist()
        behind = records if len(places) == len(records) else [records[place] for place in places]
        finals, tally = self._outbox.accepted(rows, events, behind, verdicts, at_ms)
        tally.dead += decoded.tally.dead
        tally.tombstones = decoded.tally.tombstones
        decoded.tally = tally
        if len(finals) == len(records):
            decoded.out[:] = finals  # nothing but finals: nearly every batch of an easy stream
        else:
            for row, final in zip(rows, finals, strict=True):
                decoded.out[places[row]] = final
        for row in np.flatnonzero(~verdicts.accepted).tolist():
            place = places[row]
            if row in verdicts.refused:
                cause = Cause("classify", "model_refused", "ModelRefused", verdicts.refused[row].message)
                decoded.out[place] = self._outbox.dead(records[place], cause)
                tally.dead["model_refused"] += 1
                continue
            escalated = self._outbox.escalated(row, events[row], records[place], verdicts, at_ms, tally)
            decoded.out[place] = escalated[0]
            if len(escalated) > 1:
                extra[place] = escalated[1]
        self._note_latency(decoded, rows, at_ms)
        return extra

    async def _deliver_all(self, runs: list[Run], out: list[Outgoing | None], extra: dict[int, Outgoing]) -> None:
        """Every partition's part in a transaction of its own, side by side."""
        deliveries: list[Any] = []
        start = 0
        for run in runs:
            end = start + run.count
            outgoing = cast("list[Outgoing]", out[start:end])
            if extra:
                outgoing = outgoing + [extra[place] for place in range(start, end) if place in extra]
            deliveries.append(self._deliver(run, outgoing))
            start = end
        out.clear()  # each part is let go as soon as it stands in batches
        await asyncio.gather(*deliveries)

    async def _deliver(self, run: Run, outgoing: Sequence[Outgoing]) -> None:
        feed, partition = run.feed, run.feed.partition
        if run.turn is not None:
            await run.turn
        if feed.broken:
            return
        started_s = time.perf_counter()
        try:
            await partition.deliver(outgoing, run.next_offset)
        except MembershipLost as loss:
            log.info("%d records of partition %d are dropped: %s", run.count, partition.number, loss)
            self._metrics.transaction("classify", "fenced", time.perf_counter() - started_s)
            return
        feed.finish(run, delivered=True)
        self._ripe.set()
        self._metrics.transaction("classify", "committed", time.perf_counter() - started_s)
        self._metrics.committed("classify", partition.number, run.next_offset)

    # Counting, and what time brings

    def _note_latency(self, decoded: Decoded, rows: Sequence[int], at_ms: int) -> None:
        events = decoded.events
        stamps = np.array([events[row].source.timestamp_ms for row in rows], np.float64)
        self._metrics.latencies("small", (at_ms - stamps) / 1000)

    def _count(self, tally: Tally) -> None:
        metrics = self._metrics
        if tally.accepted:
            metrics.decisions("final", "small", tally.accepted)
        for (task, label), count in tally.answers.items():
            if count:
                metrics.answers(task, label, "small", count)
        for (task, because), count in tally.escalated.items():
            metrics.escalated(task, because, count)
        for cause, count in tally.dead.items():
            metrics.dead_letters("classify", cause, count)
        if tally.tombstones:
            metrics.tombstones(tally.tombstones)
        if tally.provisional:
            metrics.decisions("provisional", "small", tally.provisional)

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
                    cast("asyncio.TaskGroup", self._tasks).create_task(self._commit(feed.mark(partition.position)))

    async def _commit(self, mark: Run) -> None:
        try:
            await self._deliver(mark, ())
        finally:
            mark.feed.finish(mark, delivered=False)

"""Workers for the model of one partition: the real gate and transactions, with each lane's way of delivering.

The steps of the membership are written out here as they stand in `stream_app.kafka.assignment`. The hot lane's way
is `Feed` and `Run` with the steps of `Delivering.deliver`; the slow lane's is `PartitionWork` and its ledger with
the steps of `Committing`. Records are decided, and calls answered, when the test says so.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError

from stream_app.classify.feed import Feed, Run
from stream_app.errors import DeliveryRefused, MembershipLost
from stream_app.escalate.outbox import Outcome
from stream_app.escalate.partition_work import PartitionWork
from stream_app.events import Outgoing
from stream_app.kafka import finished as finished_map
from stream_app.kafka.finished import FinishedOffsets
from stream_app.kafka.partition import PartitionLife, PartitionStatus
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.kafka_model import (
    TP,
    Broker,
    Delivered,
    ModelProducer,
    Process,
    Record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from aiokafka.structs import OffsetAndMetadata

HANDOVER_S = 5.0
COMMIT_TIMEOUT_S = 30.0
SPAN_MAX = 12
"""Small, so that the span is full now and then."""


class Partition:
    """A partition in one assignment, as `OwnedPartition` is: the real life and the real transactions."""

    def __init__(self, number: int, output: TransactionalOutput, lose: Callable[[Partition], None]) -> None:
        self.assignment = number
        self.number = 0
        self.life = PartitionLife()
        self.output = output
        self.committed = -1
        self.position = 0
        self.wanted = True
        self.failed = False
        self.opening: asyncio.Task[None] | None = None
        self._lose = lose

    def pause(self) -> None:
        self.wanted = False

    def resume(self) -> None:
        self.wanted = True

    async def deliver(self, outgoing: Sequence[Outgoing], offset: int, metadata: str = "") -> None:
        """All or nothing. After one that did not succeed there is no other: it would pass this one's records."""
        if not self.life.may_deliver or self.failed:
            raise MembershipLost("not owned any more")
        self.failed = True
        try:
            await self.output.commit(outgoing, TP, offset, metadata)
        except MembershipLost:
            self._lose(self)
            raise
        self.failed = False
        self.committed = offset


class Worker:
    """One worker process, with the steps of the membership; a subclass is its lane. Needs a running event loop."""

    make_output: Callable[..., TransactionalOutput] = TransactionalOutput

    def __init__(self, broker: Broker) -> None:
        self.process = Process(broker)
        self.owned: Partition | None = None
        """The partition, if this worker believes that it has it."""
        self.fetch_from = 0
        """aiokafka's position: its own at an assignment, set by the opening."""
        self.lost_membership = False
        self.handing_over = False
        self.undecided: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.unforeseen: list[Exception] = []
        self.taken: list[int] = []
        """The offsets that passed the gate."""

    # What the group does with it

    def assign(self, number: int) -> None:
        """The group gives it the partition: a life and a producer of its own, opened by a task."""
        self.fetch_from = max(0, self.process.broker.committed.offset)
        output = self.make_output(lambda: cast("Any", ModelProducer(self.process, number)), "g", COMMIT_TIMEOUT_S)
        self.owned = Partition(number, output, self._note_loss)
        self.owned.opening = self._spawn(self.open(self.owned))

    async def open(self, partition: Partition) -> None:
        """Fence, read what is committed, seek, open the gate."""
        try:
            await partition.output.open()
            committed = await self.read_committed()
        except (MembershipLost, KafkaError):
            self._note_loss(partition)
            return
        if partition.life.status is not PartitionStatus.OPENING:
            return
        self.fetch_from = partition.position = partition.committed = max(0, committed.offset)
        partition.life.ready(partition.position)
        self.opened(partition, committed.metadata)

    async def read_committed(self) -> OffsetAndMetadata:
        return await self.process.ask(self.process.broker.read_committed)

    def revoke(self) -> None:
        """The group asks for the partition back."""
        self._spawn(self._revoked(cast("Partition", self.owned)))

    async def _revoked(self, partition: Partition) -> None:
        """Hands over what is in flight, in bounded time."""
        self.handing_over = True
        was_ready = partition.life.status is PartitionStatus.READY
        partition.life.move(PartitionStatus.CLOSING)
        try:
            async with asyncio.timeout(HANDOVER_S):
                if was_ready:
                    await self.hand_over(partition)
        except TimeoutError:
            pass
        finally:
            self._drop(partition)
            self.handing_over = False

    def _note_loss(self, partition: Partition) -> None:
        if partition.life.status in {PartitionStatus.OPENING, PartitionStatus.READY}:
            self.lost_membership = True

    def join_again(self) -> None:
        """Membership was lost: everything is dropped, and the group will give anew."""
        self.lost_membership = False
        if self.owned is not None:
            self._drop(self.owned)

    def _drop(self, partition: Partition) -> None:
        partition.life.move(PartitionStatus.LOST)
        self.lost(partition)
        cast("asyncio.Task[None]", partition.opening).cancel()
        self._spawn(partition.output.close())
        self.owned = None

    # Records

    def fetch(self, count: int) -> None:
        """aiokafka's `getmany`: moves over holes too, as behind transaction markers."""
        log, records = self.process.broker.log, self.process.broker.records(self.fetch_from, count)
        self.fetch_from = records[-1].offset + 1 if records else self.fetch_from
        while self.fetch_from < len(log) and not log[self.fetch_from]:
            self.fetch_from += 1
        self.hand_out(records)

    def hand_out(self, records: list[Record]) -> None:
        """Through the gate, as `Fetching` does it."""
        partition = self.owned
        if partition is None or not records:
            return
        accepted_from = partition.life.admit(records[0].offset, records[-1].offset)
        if accepted_from is None:
            return
        records = [record for record in records if record.offset >= accepted_from]
        partition.position = partition.life.next_offset
        self.taken += [record.offset for record in records]
        self.arrived(partition, records)

    def tick(self) -> None:
        """What both lanes do twice a second: a position behind markers is noted and committed."""
        partition = cast("Partition", self.owned)
        partition.position = max(partition.position, self.fetch_from)
        self.commit_position()

    def commit_position(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Takes up what waits."""
        raise NotImplementedError

    def decide(self, place: int) -> None:
        """One of those under way is decided: in any order."""
        if self.undecided:
            decided = self.undecided.pop(place % len(self.undecided))
            if not decided.done():
                decided.set_result(None)

    def _new_undecided(self) -> asyncio.Future[None]:
        decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.undecided.append(decided)
        return decided

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except DeliveryRefused:
                self.process.ended = True  # it ends the worker, with status 1
            except Exception as error:
                self.unforeseen.append(error)

        task = asyncio.create_task(guarded())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _outgoing(self, partition: Partition, record: Record) -> Outgoing:
        delivered = Delivered(record.offset, partition.assignment)
        return Outgoing("out", 0, None, cast("Any", delivered), ())

    # The lane

    def opened(self, partition: Partition, metadata: str) -> None:
        raise NotImplementedError

    def arrived(self, partition: Partition, records: Sequence[Record]) -> None:
        raise NotImplementedError

    async def hand_over(self, partition: Partition) -> None:
        raise NotImplementedError

    def lost(self, partition: Partition) -> None:
        raise NotImplementedError


class HotWorker(Worker):
    """Runs of a partition, at most two under way, delivered in order."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.feeds: dict[Partition, Feed] = {}
        self.early: list[Record] = []
        """What arrived before the partition was opened: nothing, if the gate holds."""

    def opened(self, partition: Partition, metadata: str) -> None:
        del metadata
        self.feeds[partition] = Feed(cast("Any", partition), 8, 1_000_000)
        if self.early:
            self.feeds[partition].put(cast("Any", self.early))
            self.early = []

    def arrived(self, partition: Partition, records: Sequence[Record]) -> None:
        if partition in self.feeds:
            self.feeds[partition].put(cast("Any", records))
        else:
            self.early += records

    async def hand_over(self, partition: Partition) -> None:
        self.feeds[partition].close()
        await self.feeds[partition].drained()

    def lost(self, partition: Partition) -> None:
        feed = self.feeds.pop(partition, None)
        if feed is not None:
            feed.close()

    def start(self) -> None:
        for feed in self.feeds.values():
            if feed.can_run:
                self._spawn(self._work(feed.take(3), self._new_undecided()))

    def commit_position(self) -> None:
        for feed in self.feeds.values():
            partition = feed.partition
            if feed.idle and not (feed.closing or feed.broken) and partition.position > partition.committed >= 0:
                self._spawn(self._work(feed.mark(partition.position), None))

    async def _work(self, run: Run, decided: asyncio.Future[None] | None) -> None:
        """`ClassifyLane._work` for a batch of one partition."""
        try:
            if decided is not None:
                await decided
            await self._deliver(run)
        finally:
            run.feed.finish(run, delivered=False)

    async def _deliver(self, run: Run) -> None:
        """`Delivering.deliver`, without its metrics."""
        feed, partition = run.feed, run.feed.partition
        if run.turn is not None:
            await run.turn
        if feed.broken:
            return
        try:
            await partition.deliver([self._outgoing(partition, cast("Any", r)) for r in run.records], run.next_offset)
        except MembershipLost:
            return
        feed.finish(run, delivered=True)


class SlowWorker(Worker):
    """Records finish in any order; what is finished beyond the commit point stands in the offset's metadata."""

    decode = staticmethod(finished_map.decode)

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.works: dict[Partition, PartitionWork] = {}

    def opened(self, partition: Partition, metadata: str) -> None:
        restored = self.decode(metadata, partition.committed)
        ledger = FinishedOffsets(partition.committed)
        ledger.restore(restored.finished)
        work = self.works[partition] = PartitionWork(cast("Any", partition), ledger, SPAN_MAX)
        work.committer = self._spawn(self._commit(work))

    def arrived(self, partition: Partition, records: Sequence[Record]) -> None:
        self.works[partition].arrived(cast("Any", records), [0.0] * len(records))

    async def hand_over(self, partition: Partition) -> None:
        work = self.works[partition]
        work.closing = True
        if not work.running:
            work.rush()
        await asyncio.wait([cast("asyncio.Task[None]", work.committer)])

    def lost(self, partition: Partition) -> None:
        work = self.works.pop(partition, None)
        if work is not None:
            work.closing = True
            cast("asyncio.Task[None]", work.committer).cancel()

    def start(self) -> None:
        for work in self.works.values():
            item = work.next_item()
            if item is not None:
                task = self._spawn(self._handle(work, cast("Any", item.record), self._new_undecided()))
                work.running.add(task)
                task.add_done_callback(functools.partial(self._handled, work))

    async def _commit(self, work: PartitionWork) -> None:
        """`Committing.run`, without its linger, its lease and its metrics."""
        partition = cast("Partition", work.partition)
        try:
            while not work.handed_over:
                await work.something.wait()
                work.something.clear()
                work.handed_over = work.closing and not work.running
                outgoing = [record for outcome in work.take_outcomes() for record in outcome.outgoing]
                offset = work.finished.advance(partition.position)
                await partition.deliver(outgoing, offset, work.finished.metadata("lease"))
        except MembershipLost:
            return

    async def _handle(self, work: PartitionWork, record: Record, decided: asyncio.Future[None]) -> None:
        await decided
        if self.works.get(work.partition) is work:
            outcome = Outcome((self._outgoing(work.partition, record),), decision=None, dead_cause="model")
            work.finish(record.offset, outcome)

    def _handled(self, work: PartitionWork, task: asyncio.Task[None]) -> None:
        work.running.discard(task)
        if work.closing and not work.running:
            work.rush()

    def commit_position(self) -> None:
        for work in self.works.values():
            if work.idle_behind:
                work.something.set()

"""A lane's membership in its consumer group: which partitions it owns, and the records that reach it.

Callbacks of a rebalance only change state, and wait at most `handover_s` for what is in flight: no heartbeat is
sent in them (FACTS: a 9 s callback was expelled twice). A task outside the callback opens each partition, in
this order, which is what makes the hand-over exact:

1. start its transactional producer: fences the previous owner and waits for its last transaction to end;
2. read the committed offset and its metadata: nobody but us can change them now;
3. seek there;
4. open the gate (READY).

One `transactional.id` per input partition, `<group>:<topic>:<partition>`: with one per worker a stalled worker
came back and committed duplicates (FACTS).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import (
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from stream_app.errors import KafkaUnreachable, MembershipLost, MembershipLostTooOften, ShuntError, StartError
from stream_app.kafka.partition import PartitionLife, PartitionStatus
from stream_app.kafka.transactions import BATCH_BYTES_MAX, TransactionalOutput, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

    from stream_app.events import Outgoing
    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

LOSSES_MAX = 5
LOSSES_WINDOW_S = 600.0
"""Membership lost five times in ten minutes: this worker hinders the group, and ends with status 3."""
POLL_MS = 50
"""How long one fetch waits: bounds how late a resumed partition is seen."""
POSITIONS_EVERY_S = 0.5
"""How often positions and ends are read: bounds how long a lag of one stays behind a transaction marker."""
OPEN_TIMEOUT_S = 60.0
DRAIN_SHARE = 0.8
"""Of `drain_timeout_s`, after which the process is ended: the rest is for producers to close."""
REJOIN_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a partition's work begins. `offset` is the next record's; `metadata` what stood beside it."""

    offset: int
    metadata: str


class OwnedPartition:
    """A partition this worker owns, in one assignment. Lanes keep what they know of it under this object."""

    def __init__(self, tp: TopicPartition, output: TransactionalOutput, membership: Membership) -> None:
        self.tp = tp
        self.life = PartitionLife()
        self.committed = -1
        self.position = 0
        """Next offset to fetch: every record below it has reached the lane."""
        self.end = 0
        """The last stable offset the broker told; `end - committed` is the lag."""
        self.wanted = True
        self.opening: asyncio.Task[None] | None = None
        self._output = output
        self._membership = membership
        self._failed = False

    @property
    def number(self) -> int:
        """The partition's number within its topic."""
        return self.tp.partition

    @property
    def may_deliver(self) -> bool:
        """True while outcomes may still be delivered (owned, or being handed over)."""
        return self.life.may_deliver

    @property
    def lag(self) -> int:
        """Records on the broker that are not committed yet."""
        return max(0, self.end - self.committed) if self.committed >= 0 else 0

    def pause(self) -> None:
        """Asks for no more records; those already on the way still arrive. Never drops any."""
        self.wanted = False

    def resume(self) -> None:
        """Asks for records again."""
        if not self.wanted:
            self.wanted = True
            self._membership.wake()

    async def deliver(self, outgoing: Sequence[Outgoing], offset: int, metadata: str = "") -> None:
        """Delivers `outgoing` and commits `offset`, all or nothing; one call at a time for each partition.

        Raises MembershipLost when the partition is not ours any more (the membership knows by then, and joins
        again: the caller just drops the work), DeliveryRefused when the broker never will.
        """
        if not self.may_deliver or self._failed:
            raise MembershipLost(f"{self.tp.topic}/{self.number} is not owned any more")
        # Until it has succeeded it counts as failed: a later commit must never pass this one's records.
        self._failed = True
        try:
            await self._output.commit(outgoing, self.tp, offset, metadata)
        except MembershipLost as error:
            self._membership.lose(error, self)
            raise
        self._failed = False
        self.committed = offset

    async def open_output(self) -> None:
        """Fences the previous owner."""
        await self._output.open()

    async def pin(self, start: Committed) -> None:
        """Commits where a new group begins, before its first record."""
        await self._output.commit((), self.tp, start.offset, start.metadata)

    async def close_output(self) -> None:
        """Ends the opening, if it still runs, and the producer, after a transaction that still runs."""
        if self.opening is not None:
            self.opening.cancel()
            await asyncio.wait({self.opening})
        await self._output.close()


class LaneWork(Protocol):
    """What a lane does with the partitions it is given. All but `hand_over` are synchronous and must be quick."""

    def opened(self, partition: OwnedPartition, committed: Committed) -> None:
        """The partition is ready; its first record comes from `committed.offset` on."""
        ...

    def arrived(self, partition: OwnedPartition, records: Sequence[Record]) -> None:
        """Accepted records, in order. Bounded by the lane through `partition.pause()`."""
        ...

    async def hand_over(self, partitions: frozenset[OwnedPartition]) -> None:
        """Starts no new work for `partitions`, finishes and delivers what is in flight. May be cancelled."""
        ...

    def lost(self, partition: OwnedPartition) -> None:
        """Nothing of this partition may be delivered any more: drop its work."""
        ...

    def membership_lost(self) -> None:
        """The group went on without this worker, which joins again. For counting: `lost` was called for each."""
        ...


class Membership(ConsumerRebalanceListener):
    """Keeps this worker in the group, through rebalances, fencing and broker restarts, until told to stop."""

    def __init__(
        self,
        connection: Connection,
        *,
        topic: str,
        group: str,
        work: LaneWork,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        make_output: Callable[..., TransactionalOutput] = TransactionalOutput,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group = group
        self._work = work
        self._batch_bytes_max = min(batch_bytes_max, BATCH_BYTES_MAX)
        self._make_output = make_output
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._epoch = 0
        self._leaving = False
        self._losses: deque[float] = deque()
        self._failure: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._closings: set[asyncio.Task[None]] = set()
        self._held: set[TopicPartition] = set()
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    @property
    def owned(self) -> Iterable[OwnedPartition]:
        """The partitions of the current assignment, in whatever state."""
        return self._owned.values()

    @property
    def joined(self) -> bool:
        """True once the group has assigned partitions (or none) to this worker for the first time."""
        return self._epoch > 0

    @property
    def lost_count(self) -> int:
        """How often membership was lost within the last ten minutes."""
        return len(self._losses)

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes until `stop`; then hands over what is in flight, commits and leaves the group.

        A broker that goes away after the start is waited for. Raises MembershipLostTooOften, StartError (no
        broker at the start; an offset that does not exist any more), DeliveryRefused.
        """
        while not stop.is_set():
            try:
                await self._stay_joined(stop)
            except MembershipLost as loss:
                self._note_loss(loss)
                await asyncio.sleep(REJOIN_PAUSE_S)
            except KafkaUnreachable as error:
                if self._epoch == 0:
                    raise
                log.warning("%s; trying again", error.one_line())
                await asyncio.sleep(REJOIN_PAUSE_S)

    def _note_loss(self, loss: MembershipLost) -> None:
        self._work.membership_lost()
        now_s = asyncio.get_running_loop().time()
        self._losses.append(now_s)
        while self._losses[0] < now_s - LOSSES_WINDOW_S:
            self._losses.popleft()
        log.warning("membership of group %s lost (%d in ten minutes): %s", self._group, len(self._losses), loss)
        if len(self._losses) >= LOSSES_MAX:
            raise MembershipLostTooOften(
                f"group {self._group}: membership lost {LOSSES_MAX} times in ten minutes, last: {loss.message}",
                advice="look for a worker with the same group that is stalled, or raise kafka.session_timeout_ms",
            )

    async def _stay_joined(self, stop: asyncio.Event) -> None:
        """One membership: from joining to `stop`, or to its loss (MembershipLost)."""
        self._failure = asyncio.get_running_loop().create_future()
        self._leaving = False
        async with self._connection.admin() as self._admin:
            consumer = self._consumer = self._connection.consumer(self._group, f"{self._group}-worker")
            stopping = asyncio.create_task(stop.wait())
            try:
                consumer.subscribe([self._topic], listener=self)
                await self._connection.start(consumer)
                fetching = asyncio.create_task(self._fetch(consumer))
                try:
                    await asyncio.wait({fetching, stopping, self._failure}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    fetching.cancel()
                    await asyncio.wait({fetching})
                if not fetching.cancelled():
                    fetching.result()
                if self._failure.done():
                    self._failure.result()
                drain_s = DRAIN_SHARE * self._connection.kafka.drain_timeout_s
                await self._hand_over(frozenset(self._owned.values()), drain_s)
            except KafkaError as error:
                raise translate(error, f"reading {self._topic}") from error
            finally:
                stopping.cancel()
                self._leaving = True
                self._drop(list(self._owned.values()))
                await self._finish_tasks()
                await self._stop(consumer)
                self._failure.cancel()

    @staticmethod
    async def _stop(consumer: AIOKafkaConsumer) -> None:
        """Leaves the group. aiokafka raises here again what its fetching died of, with its connections open."""
        try:
            await consumer.stop()
        except KafkaError as error:
            log.warning("a consumer did not stop cleanly: %r", error)
            await cast("Any", consumer)._client.close()  # noqa: SLF001

    # Fetching

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        """Hands fetched records to the lane. `getmany` is awaited directly, never through a task: between its

        return and the gate nothing else may run, or a seek could come in between.
        """
        loop = asyncio.get_running_loop()
        positions_due_s = 0.0
        while True:
            self._hold_unwanted(consumer)
            wanted = [partition.tp for partition in self._owned.values() if partition.wanted]
            if wanted:
                await self._fetch_once(consumer, wanted)
            else:
                await self._wait_for_wake(consumer)
            if loop.time() >= positions_due_s:
                await self._note_positions(consumer)
                positions_due_s = loop.time() + POSITIONS_EVERY_S

    async def _fetch_once(self, consumer: AIOKafkaConsumer, wanted: list[TopicPartition]) -> None:
        try:
            fetched = await consumer.getmany(*wanted, timeout_ms=POLL_MS, max_records=16_384)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError) as error:
            self._judge_offset_error(error)
            return
        for tp, records in fetched.items():
            self._admit(tp, records)

    def _admit(self, tp: TopicPartition, records: list[Record]) -> None:
        partition = self._owned.get(tp)
        if partition is None or not records:
            return
        accepted_from = partition.life.admit(records[0].offset, records[-1].offset)
        if accepted_from is None:
            return
        if accepted_from > records[0].offset:
            records = [record for record in records if record.offset >= accepted_from]
        partition.position = partition.life.next_offset
        self._work.arrived(partition, records)

    def _judge_offset_error(self, error: KafkaError) -> None:
        """Before a partition is opened, aiokafka's own position means nothing; after, an offset has expired."""
        about: Any = error.args[0] if error.args else ()
        for partition in self._owned.values():
            named = about == partition.tp or (isinstance(about, dict) and partition.tp in about)
            if named and partition.life.status is PartitionStatus.READY:
                raise StartError(
                    f"group {self._group}: the records of {partition.tp.topic}/{partition.number} from offset "
                    f"{partition.life.next_offset} are gone from the broker ({type(error).__name__})",
                    advice="they were deleted unread: set the group's offset by hand, knowing what is skipped",
                )

    def _hold_unwanted(self, consumer: AIOKafkaConsumer) -> None:
        """Pauses at the broker what no lane wants, and resumes what is wanted again.

        aiokafka forgets pauses in a rebalance, and throws away what was fetched for a paused partition.
        """
        unwanted = {partition.tp for partition in self._owned.values() if not partition.wanted}
        assigned = consumer.assignment()
        for tp in (self._held - unwanted) & assigned:
            consumer.resume(tp)
        self._held &= unwanted
        if not unwanted:
            return
        stopped = {tp for tp in unwanted - self._held if tp in assigned}
        if stopped:
            consumer.pause(*stopped)
            self._held |= stopped

    async def _wait_for_wake(self, consumer: AIOKafkaConsumer) -> None:
        """Nothing is wanted: wait for a resume or an assignment, but keep the consumer's errors coming."""
        self._wake.clear()
        if not self._owned:
            await self._fetch_once(consumer, [])  # aiokafka raises here what happened to the group
            return
        try:
            async with asyncio.timeout(POSITIONS_EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            pass

    def wake(self) -> None:
        """A partition wants records again."""
        self._wake.set()

    async def _note_positions(self, consumer: AIOKafkaConsumer) -> None:
        # aiokafka's task that fetches may die; `getmany` then returns nothing for ever, and says nothing.
        fetcher = cast("Any", consumer)._fetcher.error_future  # noqa: SLF001
        if fetcher.done():
            fetcher.result()
        for partition in list(self._owned.values()):
            if partition.life.status is not PartitionStatus.READY or partition.tp not in consumer.assignment():
                continue
            position = await consumer.position(partition.tp)
            if partition.life.status is PartitionStatus.READY:
                partition.position = max(partition.position, position)
            partition.end = consumer.last_stable_offset(partition.tp) or partition.end

    # The callbacks: state only, and a bounded wait

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # may be a coroutine
        self, revoked: Any
    ) -> None:
        """Stops work for what is taken away; waits `handover_s` at most for what is in flight."""
        del revoked  # an eager assignor takes all
        partitions = list(self._owned.values())
        try:
            await self._hand_over(frozenset(partitions), self._connection.kafka.handover_s)
        except Exception as error:  # aiokafka logs and drops what a callback raises  # noqa: BLE001
            self._fail(error)
        finally:
            self._drop(partitions)

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]  # may be a coroutine
        self, assigned: Any
    ) -> None:
        """Notes what was given, and leaves the opening to tasks of their own."""
        self._epoch += 1
        if self._leaving:
            return  # a rebalance while producers close: nobody would ever drop what is opened now
        for tp in sorted(cast("set[TopicPartition]", assigned)):
            producer_id = f"{self._group}:{tp.topic}:{tp.partition}"
            kafka = self._connection.kafka
            output = self._make_output(
                lambda name=producer_id: self._connection.transactional_producer(name, self._batch_bytes_max),
                self._group,
                kafka.transaction_timeout_ms / 1000 * 2,
            )
            partition = self._owned[tp] = OwnedPartition(tp, output, self)
            partition.opening = asyncio.create_task(self._open(partition))
            partition.opening.add_done_callback(self._note_opening)

    # Opening and closing

    def _note_opening(self, task: asyncio.Task[None]) -> None:
        """An opening that dies of something unforeseen ends the worker: nobody else would ever look at it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _open(self, partition: OwnedPartition) -> None:
        """The four steps at the head of this module."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await partition.open_output()
                committed = await self._read_committed(partition)
        except TimeoutError:
            self.lose(MembershipLost(f"opening {partition.tp} took longer than {OPEN_TIMEOUT_S:.0f} s"), partition)
            return
        except KafkaError as error:
            self._fail(translate(error, f"opening {partition.tp.topic}/{partition.number}"))
            return
        except MembershipLost as loss:
            self.lose(loss, partition)
            return
        except ShuntError as error:
            self._fail(error)
            return
        if partition.life.status is not PartitionStatus.OPENING or self._consumer is None:
            return  # taken away meanwhile
        self._consumer.seek(partition.tp, committed.offset)
        partition.position = committed.offset
        partition.committed = committed.offset
        partition.life.ready(committed.offset)
        self._work.opened(partition, committed)
        self.wake()

    async def _read_committed(self, partition: OwnedPartition) -> Committed:
        """The committed offset with its metadata, or where `kafka.start` says a new group begins."""
        tp = partition.tp
        if self._admin is None or self._consumer is None:
            raise MembershipLost("the consumer is gone")
        stored = await self._stored(self._admin, tp)
        first = (await self._consumer.beginning_offsets([tp]))[tp]
        if stored.offset >= 0:
            if stored.offset < first:
                raise StartError(
                    f"group {self._group}: offset {stored.offset} of {tp.topic}/{tp.partition} has expired, "
                    f"the topic begins at {first}",
                    advice="records were deleted unread: set the group's offset by hand, knowing what is skipped",
                )
            return Committed(stored.offset, stored.metadata or "")
        if self._connection.kafka.start == "earliest":
            return Committed(first, "")
        latest = Committed((await self._consumer.end_offsets([tp]))[tp], "")
        # Committed at once: else the next start before the first record would begin at an end that has moved on.
        await partition.pin(latest)
        return latest

    async def _stored(self, admin: AIOKafkaAdminClient, tp: TopicPartition) -> OffsetAndMetadata:
        """What the group has committed of `tp`, offset -1 where nothing; the caller sets the deadline.

        aiokafka looks past an error about the whole group (its coordinator is loading, or has moved): the answer
        then names no partition at all, which must not pass for a group that begins.
        """
        while (stored := (await admin.list_consumer_group_offsets(self._group, partitions=[tp])).get(tp)) is None:
            log.warning("group %s: its coordinator does not tell the offset of %s yet", self._group, tp)
            await asyncio.sleep(REJOIN_PAUSE_S)
        return stored

    async def _hand_over(self, partitions: frozenset[OwnedPartition], within_s: float) -> None:
        """CLOSING, then the lane finishes what it can within the time."""
        live = frozenset(p for p in partitions if p.life.status in {PartitionStatus.OPENING, PartitionStatus.READY})
        ready = frozenset(p for p in live if p.life.status is PartitionStatus.READY)
        for partition in live:
            partition.life.move(PartitionStatus.CLOSING)
        if not ready:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._work.hand_over(ready)
        except TimeoutError:
            log.warning("%d partitions handed over with work in flight after %.1f s", len(ready), within_s)
        except MembershipLost:
            pass  # already noted by `lose`

    def _drop(self, partitions: Iterable[OwnedPartition]) -> None:
        """LOST: the lane drops its work, the producer is ended in the background."""
        for partition in partitions:
            if partition.life.status is not PartitionStatus.LOST:
                partition.life.move(PartitionStatus.LOST)
                self._work.lost(partition)
                task = asyncio.create_task(partition.close_output())
                self._closings.add(task)
                task.add_done_callback(self._closings.discard)
            if self._owned.get(partition.tp) is partition:
                del self._owned[partition.tp]

    async def _finish_tasks(self) -> None:
        """Waits for producers to close, so that nothing outlives the membership."""
        if self._closings:
            await asyncio.wait(self._closings)

    # Failing

    def lose(self, loss: MembershipLost, partition: OwnedPartition) -> None:
        """Called where a partition turned out not to be ours: the whole membership is joined anew.

        A partition that was given up already is no news.
        """
        if partition.life.status in {PartitionStatus.OPENING, PartitionStatus.READY}:
            self._fail(loss)

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

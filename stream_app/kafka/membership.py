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
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from stream_app.errors import KafkaUnreachable, MembershipLost, ShuntError
from stream_app.kafka.fetching import Fetching
from stream_app.kafka.group_offsets import standing
from stream_app.kafka.losses import Losses
from stream_app.kafka.owned import Committed, OwnedPartition
from stream_app.kafka.partition import PartitionStatus
from stream_app.kafka.transactions import BATCH_BYTES_MAX, TransactionalOutput, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import TopicPartition

    from stream_app.kafka.connection import Connection
    from stream_app.kafka.owned import LaneWork

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60.0
DRAIN_SHARE = 0.8
"""Of `drain_timeout_s`, after which the process is ended: the rest is for producers to close."""
REJOIN_PAUSE_S = 0.5


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
        self._losses = Losses(group)
        self._failure: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._closings: set[asyncio.Task[None]] = set()
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
                self._work.membership_lost()
                self._losses.note(loss, asyncio.get_running_loop().time())
                await asyncio.sleep(REJOIN_PAUSE_S)
            except KafkaUnreachable as error:
                if self._epoch == 0:
                    raise
                log.warning("%s; trying again", error.one_line())
                await asyncio.sleep(REJOIN_PAUSE_S)

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
                fetching = asyncio.create_task(
                    Fetching(consumer, self._group, self._owned, self._work, self._wake).run()
                )
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

    def wake(self) -> None:
        """A partition wants records again, or there is a new one."""
        self._wake.set()

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
        if (committed := await standing(self._admin, self._consumer, self._group, tp)) is not None:
            return committed
        if self._connection.kafka.start == "earliest":
            return Committed((await self._consumer.beginning_offsets([tp]))[tp], "")
        latest = Committed((await self._consumer.end_offsets([tp]))[tp], "")
        # Committed at once: else the next start before the first record would begin at an end that has moved on.
        await partition.pin(latest)
        return latest

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

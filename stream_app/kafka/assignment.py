"""The partitions that a membership is given: each is taken, opened, handed over and dropped.

A task outside the callbacks of a rebalance opens each partition, in this order, which is what makes the hand-over
exact:

1. open its transactional producer: fences the previous owner, waits for its last transaction to end, and ends what
   Kafka may have left of it without an end (`hanging`);
2. read the committed offset and its metadata: nobody but us can change them now;
3. seek there;
4. open the gate (READY).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from stream_app.errors import MembershipInterrupted, MembershipLost, ShuntError
from stream_app.kafka.opening import open_partition
from stream_app.kafka.owned import OwnedPartition
from stream_app.kafka.partition import PartitionStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import TopicPartition

    from stream_app.kafka.owned import Committed, LaneWork, Owner
    from stream_app.kafka.transactions import TransactionalOutput

    Begins = Callable[[OwnedPartition], Awaitable[Committed]]

log = logging.getLogger(__name__)


class Assignment:
    """The partitions that `owner` has now, in whatever state. `fail` is told what ends the membership."""

    def __init__(
        self,
        work: LaneWork,
        owner: Owner,
        make_output: Callable[[TopicPartition], TransactionalOutput],
        fail: Callable[[BaseException], None],
        lead: str,
    ) -> None:
        """`lead` is the topic whose partitions open first: those of other topics are in no hurry."""
        self.owned: dict[TopicPartition, OwnedPartition] = {}
        self._work = work
        self._owner = owner
        self._make_output = make_output
        self._fail = fail
        self._lead = lead
        self._handing_over: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()

    def take(self, tp: TopicPartition, consumer: AIOKafkaConsumer, begins: Begins) -> None:
        """OPENING. A position keeps aiokafka from looking for one of its own, over and over while we open."""
        consumer.seek(tp, 0)
        consumer.pause(tp)
        partition = self.owned[tp] = OwnedPartition(tp, partial(self._make_output, tp), self._owner)
        partition.opening = asyncio.create_task(self._open(partition, consumer, begins))
        partition.opening.add_done_callback(partial(self._note_opening, partition))

    async def _open(self, partition: OwnedPartition, consumer: AIOKafkaConsumer, begins: Begins) -> None:
        """The four steps at the head of this module."""
        if partition.tp.topic != self._lead:
            await self._leading_are_open()
        try:
            committed = await open_partition(partition, begins)
        except MembershipLost as loss:
            self._owner.lose(loss, partition)
            return
        except ShuntError as error:
            self._fail(error)
            return
        if partition.life.status is not PartitionStatus.OPENING:
            return  # taken away meanwhile
        consumer.seek(partition.tp, committed.offset)
        partition.position = committed.offset
        partition.begins(committed)
        partition.life.ready(committed.offset)
        self._work.opened(partition, committed)
        self._owner.wake()

    async def _leading_are_open(self) -> None:
        """Waits for the openings of the leading topic, whatever becomes of them."""
        openings = {
            one.opening for one in self.owned.values() if one.tp.topic == self._lead and one.opening is not None
        }
        if openings:
            await asyncio.wait(openings)

    def _note_opening(self, partition: OwnedPartition, task: asyncio.Task[None]) -> None:
        """An opening that dies of something unforeseen ends the worker: nobody else would ever look at it.

        One that aiokafka cancelled from within is tried again with the whole membership.
        """
        if task.cancelled():
            if partition.life.status is PartitionStatus.OPENING:
                self._fail(MembershipInterrupted(f"opening {partition.tp} was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(error)

    async def hand_over(self, partitions: Iterable[OwnedPartition], within_s: float) -> None:
        """CLOSING, then the lane finishes what it can within the time.

        A drain and a rebalance may meet. Who comes second finds the partitions closing already and waits for the
        hand-over that runs; whose time is up first ends it for both.
        """
        live = [p for p in partitions if p.life.status in {PartitionStatus.OPENING, PartitionStatus.READY}]
        ready = frozenset(p for p in live if p.life.status is PartitionStatus.READY)
        for partition in live:
            partition.life.move(PartitionStatus.CLOSING)
        if ready:
            self._handing_over = asyncio.create_task(self._work.hand_over(ready))
        if (handing := self._handing_over) is None:
            return
        try:
            await asyncio.wait({handing}, timeout=within_s)
            if not handing.done():
                log.warning("partitions are handed over with work in flight after %.1f s", within_s)
        finally:
            handing.cancel()
            self._handing_over = None
        await asyncio.wait({handing})
        error = None if handing.cancelled() else handing.exception()
        if error is not None and not isinstance(error, MembershipLost):  # that one is noted by `lose` already
            raise error

    def drop(self, partitions: Iterable[OwnedPartition]) -> None:
        """LOST: the lane drops its work, the producer is ended in the background."""
        for partition in partitions:
            if partition.life.status is not PartitionStatus.LOST:
                partition.life.move(PartitionStatus.LOST)
                self._work.lost(partition)
                task = asyncio.create_task(partition.close_output())
                self._closings.add(task)
                task.add_done_callback(self._closings.discard)
            if self.owned.get(partition.tp) is partition:
                del self.owned[partition.tp]

    async def closed(self, within_s: float | None) -> None:
        """Waits for the producers of dropped partitions to close; without end where `within_s` is None."""
        if self._closings:
            await asyncio.wait(self._closings, timeout=within_s)

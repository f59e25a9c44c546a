"""The way of a record from the consumer to its lane: one loop that fetches, through each partition's gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from stream_app.errors import StartError
from stream_app.kafka.partition import PartitionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError
    from aiokafka.structs import TopicPartition

    from stream_app.kafka.owned import LaneWork, OwnedPartition, Record
    from stream_app.kafka.stalls import StallWatch

    Fetched = dict[TopicPartition, list[Record]]

POLL_MS = 50
"""How long one fetch waits: bounds how late a resumed partition is seen."""
POSITIONS_EVERY_S = 0.5
"""How often positions and ends are read: bounds how long a lag of one stays behind a transaction marker."""
PAUSE_SHARE, PAUSE_MAX_S = 0.25, 0.1
"""Of the time between two transactions of a partition: what is fetched sooner than that only waits in the lane."""
FEW_RECORDS = 16
"""A partition, on average: fewer are dearer to fetch than to decide (`benchmarks/many_partitions.py`: 8 µs a record
of 96 partitions)."""


class Fetching:
    """Hands the records of `owned` to the lane, from one consumer, in one membership."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        group: str,
        owned: Mapping[TopicPartition, OwnedPartition],
        work: LaneWork,
        wake: asyncio.Event,
        watch: StallWatch,
        records_max: int,
        transactions_per_s_max: float,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._owned = owned
        self._work = work
        self._wake = wake
        self._watch = watch
        self.turns = 0
        """Rises as long as fetching goes on, records or not."""
        self._records_max = records_max
        self._transactions_per_s_max = transactions_per_s_max

    async def run(self) -> None:
        """Fetches until cancelled. Raises KafkaError for what ended the membership, StartError for lost records.

        `getmany` is awaited directly, never through a task: between its return and the gate nothing else may
        run, or a seek could come in between.
        """
        loop = asyncio.get_running_loop()
        positions_due_s = 0.0
        while True:
            self.turns += 1
            held = self._hold_unwanted()
            wanted = [tp for tp in self._owned if tp not in held]
            if wanted:
                await self._fetch_once(wanted)
            else:
                await self._wait_for_wake()
            if loop.time() >= positions_due_s:
                await self._note_positions()
                positions_due_s = loop.time() + POSITIONS_EVERY_S

    async def _fetch_once(self, wanted: list[TopicPartition]) -> None:
        try:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=POLL_MS, max_records=self._records_max)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError) as error:
            self._judge_offset_error(error)
            return
        if fetched and self._watch.in_doubt:
            fetched = await self._kept_through_doubt(fetched)
        for tp, records in fetched.items():
            self._admit(tp, records)
        if 0 < sum([len(records) for records in fetched.values()]) < FEW_RECORDS * len(self._owned):
            await asyncio.sleep(self._pause_s)

    @property
    def _pause_s(self) -> float:
        """How long more may gather after a fetch that brought little: 10 ms for six partitions, 100 ms for sixty."""
        return min(PAUSE_MAX_S, PAUSE_SHARE * len(self._owned) / self._transactions_per_s_max)

    async def _kept_through_doubt(self, fetched: Fetched) -> Fetched:
        """What was fetched, once the group is known to count us in; of partitions that are ours all the time."""
        ready = {tp: p for tp in fetched if (p := self._owned.get(tp)) and p.life.status is PartitionStatus.READY}
        while self._watch.in_doubt and any(self._owned.get(tp) is partition for tp, partition in ready.items()):
            await self._watch.trusted(POSITIONS_EVERY_S)
            self._look_for_errors()
        return {tp: fetched[tp] for tp, partition in ready.items() if self._owned.get(tp) is partition}

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

    def _hold_unwanted(self) -> set[TopicPartition]:
        """Pauses at the broker what no lane wants or may have yet, resumes the rest; what is held back.

        aiokafka is asked what is paused, nothing is remembered here: it forgets pauses in a rebalance, and one
        that was paused when it was assigned may be ready before this loop has looked. It throws away what was
        fetched for a paused partition.
        """
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        ready = PartitionStatus.READY
        held = {tp for tp, p in self._owned.items() if not p.wanted or p.life.status is not ready}
        for tp in paused - held:
            if tp in self._owned:
                self._consumer.resume(tp)
        self._consumer.pause(*(held & assigned - paused))
        return held

    async def _wait_for_wake(self) -> None:
        """Nothing is wanted: wait for a resume or an assignment, but look for errors from time to time."""
        self._wake.clear()
        if not self._owned:
            await self._fetch_once([])  # aiokafka raises here what happened to the group
            return
        try:
            async with asyncio.timeout(POSITIONS_EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _look_for_errors(self) -> None:
        """Raises what happened to the group, also while all is paused and nobody asks for records."""
        consumer = cast("Any", self._consumer)
        consumer._coordinator.check_errors()  # noqa: SLF001 - `getmany` alone asks it
        # aiokafka's task that fetches may die; `getmany` then returns nothing for ever, and says nothing.
        fetcher = consumer._fetcher.error_future  # noqa: SLF001 - no public way leads to it
        if fetcher.done():
            fetcher.result()

    async def _note_positions(self) -> None:
        self._look_for_errors()
        for partition in list(self._owned.values()):
            if partition.life.status is not PartitionStatus.READY or partition.tp not in self._consumer.assignment():
                continue
            position = await self._consumer.position(partition.tp)
            if partition.life.status is PartitionStatus.READY:
                partition.position = max(partition.position, position)
            partition.end = self._consumer.last_stable_offset(partition.tp) or partition.end

"""The smallest lane there is: every record is copied to an output topic, exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from stream_app.errors import MembershipLost
from stream_app.events import Outgoing
from stream_app.kafka.connection import Connection
from stream_app.kafka.membership import Membership
from stream_app.kafka.transactions import TransactionalOutput
from stream_app.settings import Kafka

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.owned import Committed, OwnedPartition


class CopyLane:
    """Copies records in order, one transaction at a time for each partition. Implements LaneWork."""

    def __init__(
        self,
        bootstrap_servers: str,
        source: str,
        target: str,
        group: str,
        *,
        make_output: type[TransactionalOutput] = TransactionalOutput,
        **kafka: object,
    ) -> None:
        settings = Kafka.model_validate(
            {"bootstrap_servers": bootstrap_servers, "input_topic": source, "session_timeout_ms": 6_000, **kafka}
        )
        self.target = target
        self.membership = Membership(
            Connection(settings),
            topic=source,
            group=group,
            work=self,
            reach=lambda number: [TopicPartition(target, number)],
            make_output=make_output,
        )
        self.pending: dict[OwnedPartition, list[ConsumerRecord]] = {}
        self.tasks: dict[OwnedPartition, asyncio.Task[None]] = {}
        self.failures: list[BaseException] = []
        self.copied = 0
        self.losses = 0

    async def run(self, stop: asyncio.Event) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            await self.membership.run(stop)
        finally:
            ticking.cancel()

    def opened(self, partition: OwnedPartition, committed: Committed) -> None:
        self.pending[partition] = []

    def arrived(self, partition: OwnedPartition, records: Sequence[ConsumerRecord]) -> None:
        self.pending[partition] += records
        self._start(partition)

    def _start(self, partition: OwnedPartition) -> None:
        if partition not in self.tasks or self.tasks[partition].done():
            task = self.tasks[partition] = asyncio.create_task(self._copy(partition))
            task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """Kept here: the next task of its partition takes its place."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def _copy(self, partition: OwnedPartition) -> None:
        while records := self.pending.get(partition):
            self.pending[partition] = []
            outgoing = [
                Outgoing(self.target, partition.number, record.key, record.value, record.headers)
                for record in records
            ]
            try:
                await partition.deliver(outgoing, records[-1].offset + 1)
            except MembershipLost:
                return
            self.copied += len(records)

    async def _tick(self) -> None:
        """Commits the position behind transaction markers, so that lag reaches zero."""
        while True:
            await asyncio.sleep(0.2)
            for partition in list(self.pending):
                busy = partition in self.tasks and not self.tasks[partition].done()
                if not busy and not self.pending[partition] and partition.position > partition.committed >= 0:
                    self.tasks[partition] = asyncio.create_task(self._commit_position(partition))

    async def _commit_position(self, partition: OwnedPartition) -> None:
        try:
            await partition.deliver([], partition.position)
        except MembershipLost:
            return
        await self._copy(partition)

    async def hand_over(self, partitions: frozenset[OwnedPartition]) -> None:
        tasks = [self.tasks[partition] for partition in partitions if partition in self.tasks]
        if tasks:
            await asyncio.wait(tasks)

    def lost(self, partition: OwnedPartition) -> None:
        self.pending.pop(partition, None)

    def membership_lost(self) -> None:
        self.losses += 1

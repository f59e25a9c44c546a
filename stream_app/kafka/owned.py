"""A partition that this worker owns, and what a lane does with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiokafka.errors import KafkaError

from stream_app.errors import MembershipInterrupted, MembershipLost
from stream_app.kafka.partition import PartitionLife, PartitionStatus
from stream_app.kafka.refusals import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import ConsumerRecord, TopicPartition

    from stream_app.events import Outgoing
    from stream_app.kafka.transactions import TransactionalOutput

    Record = ConsumerRecord[bytes | None, bytes | None]

RENEW_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a partition's work begins. `offset` is the next record's; `metadata` what stood beside it."""

    offset: int
    metadata: str


class Owner(Protocol):
    """Whose the partition is: the membership, as its partitions see it."""

    def wake(self) -> None:
        """A partition wants records again."""
        ...

    def lose(self, loss: MembershipLost, partition: OwnedPartition) -> None:
        """The partition turned out not to be ours."""
        ...

    async def trust(self, partition: OwnedPartition) -> None:
        """Returns when the group is known to count this worker in, or the partition has been given up."""
        ...

    async def stored(self, partition: OwnedPartition) -> Committed:
        """What the group has committed of the partition. Raises KafkaError or ShuntError."""
        ...


class OwnedPartition:
    """A partition this worker owns, in one assignment. Lanes keep what they know of it under this object."""

    def __init__(self, tp: TopicPartition, make_output: Callable[[], TransactionalOutput], owner: Owner) -> None:
        self.tp = tp
        self.life = PartitionLife()
        self.position = 0
        """Next offset to fetch: every record below it has reached the lane."""
        self.end = 0
        """The last stable offset the broker told; `end - committed` is the lag."""
        self.wanted = True
        self.opening: asyncio.Task[None] | None = None
        self._make_output = make_output
        self._output = make_output()
        self._retired: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._owner = owner
        self._failed = False
        self._stands = Committed(-1, "")
        """What the group has committed of it, as far as we know."""

    @property
    def number(self) -> int:
        """The partition's number within its topic."""
        return self.tp.partition

    @property
    def committed(self) -> int:
        """The committed offset, as far as we know; -1 before the partition is open."""
        return self._stands.offset

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
            self._owner.wake()

    async def deliver(self, outgoing: Sequence[Outgoing], offset: int, metadata: str = "") -> None:
        """Delivers `outgoing` and commits `offset`, all or nothing; one call at a time for each partition.

        Raises MembershipLost when the partition is not ours any more (the membership knows by then, and joins
        again: the caller just drops the work), DeliveryRefused when the broker never will.
        """
        await self._owner.trust(self)
        if not self.may_deliver or self._failed:
            raise MembershipLost(f"{self.tp.topic}/{self.number} is not owned any more")
        # Until it has succeeded it counts as failed: a later commit must never pass this one's records.
        self._failed = True
        try:
            if self._output.in_doubt:
                await self._renew()
            await self._output.commit(outgoing, self.tp, offset, metadata)
        except MembershipLost as error:
            self._owner.lose(error, self)
            raise
        self._failed = False
        self.begins(Committed(offset, metadata))

    def begins(self, committed: Committed) -> None:
        """The group has committed so much of it."""
        self._stands = committed

    async def _renew(self) -> None:
        """`_renew_epoch`, until the partition is given up: then MembershipLost."""
        self._renewing = asyncio.create_task(self._renew_epoch())
        try:
            await asyncio.wait({self._renewing})
        finally:
            self._renewing.cancel()  # where we are cancelled
        if self._renewing.cancelled():
            raise MembershipLost(f"{self.tp.topic}/{self.number} was given up while its producer was renewed")
        self._renewing.result()

    async def _renew_epoch(self) -> None:
        """Another producer, whose epoch nothing that was sent before can have (`TransactionalOutput.in_doubt`).

        It fences whoever has opened the partition meanwhile, so it must be shown that nobody has: what is committed
        must be what we committed last. Raises MembershipLost.
        """
        doing = f"renewing the producer of {self.tp.topic}/{self.number}"
        try:
            async with asyncio.timeout(RENEW_WITHIN_S):
                await self.renew_output()
                await self._output.open()
                found = await self._owner.stored(self)
        except TimeoutError as error:
            raise MembershipInterrupted(f"{doing} took longer than {RENEW_WITHIN_S:.0f} s") from error
        except KafkaError as error:
            raise translate(error, doing, self.tp.topic) from error
        if found != self._stands:
            raise MembershipLost(f"{self.tp.topic}/{self.number} has had another owner meanwhile")

    async def open_output(self) -> None:
        """Fences the previous owner. Raises MembershipLost where the partition has been given up meanwhile."""
        await self._owner.trust(self)
        if self.life.status is not PartitionStatus.OPENING:  # the group may have a new owner, whom this would fence
            raise MembershipLost(f"{self.tp.topic}/{self.number} was given up while it was opened")
        await self._output.open()

    async def renew_output(self) -> None:
        """A new producer for the next try: one whose start failed or was cut off cannot be started again."""
        retired = self._retired = asyncio.create_task(self._output.close())
        last_word = self._output.last_word
        self._output = self._make_output()
        self._output.last_word = last_word
        await asyncio.shield(retired)

    async def close_output(self) -> None:
        """Ends the opening or renewing, if it still runs, and the producer, after a transaction that still runs."""
        for task in (self.opening, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._retired is not None:
            await asyncio.wait({self._retired})
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

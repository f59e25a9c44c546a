"""A lane's membership in its consumer group: which partitions it owns, and the records that reach it.

Callbacks of a rebalance only change state, and wait at most `handover_s` for what is in flight: no heartbeat is
sent in the assigned one (one of 9 s was expelled twice, when measured). What becomes of the partitions they give
and take is in `assignment`.

One `transactional.id` per input partition, `<group>:<topic>:<partition>`: with one per worker a stalled worker
came back and committed duplicates, when measured.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from stream_app.errors import KafkaUnreachable, MembershipInterrupted, MembershipLost
from stream_app.kafka.assignment import Assignment
from stream_app.kafka.beginning import Beginnings
from stream_app.kafka.connection import FULL_FETCHES, FetchBounds
from stream_app.kafka.fetching import Fetching
from stream_app.kafka.leaving import leave
from stream_app.kafka.losses import Losses
from stream_app.kafka.opening import growing_pauses_s
from stream_app.kafka.partition import PartitionStatus
from stream_app.kafka.stalls import StallWatch
from stream_app.kafka.transactions import BATCH_BYTES_MAX, TransactionalOutput, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import TopicPartition

    from stream_app.kafka.connection import Connection
    from stream_app.kafka.owned import Committed, LaneWork, OwnedPartition

log = logging.getLogger(__name__)

DRAIN_SHARE = 0.6
CLOSINGS_SHARE = 0.1
"""Of `drain_timeout_s`, after which the process is ended: for what is in flight, and for producers to close.

Leaving the group takes 6 s more where no broker answers.
"""
JOIN_SLACK_S = 60.0
"""A rebalance takes a session and a hand-over at most; beyond that and a minute something hangs."""
DOUBT_POLL_S = 0.1
GAP_OF_SESSION = 0.5
"""An event loop that stood still for longer than this share of the session is in doubt."""
JOINED_WELL_S = 60.0
"""A membership that lasted so long was sound: the next pause is short again."""


def client_id(group: str, name: str = "") -> str:
    """What Kafka knows a member of the group by; with a name, no other has it."""
    return f"{group}-worker-{name}" if name else f"{group}-worker"


class Membership(ConsumerRebalanceListener):
    """Keeps this worker in the group, through rebalances, fencing and broker restarts, until told to stop."""

    def __init__(
        self,
        connection: Connection,
        *,
        topic: str,
        group: str,
        work: LaneWork,
        reach: Callable[[int], Collection[TopicPartition]],
        followers: Collection[str] = (),
        batch_bytes_max: int = BATCH_BYTES_MAX,
        fetch: FetchBounds = FULL_FETCHES,
        name: str = "",
        make_output: Callable[..., TransactionalOutput] = TransactionalOutput,
    ) -> None:
        """`reach` tells for a partition number every partition that `work` may write to when it delivers from it.

        `followers` are topics read beside `topic`, equal numbers by the same worker (`together`). `name` is this
        worker's own, by which others know it among the group's members.
        """
        self._connection = connection
        self._topics = (topic, *followers)
        self._group = group
        self._work = work
        self._reach = reach
        self._fetch = fetch
        self._client_id = client_id(group, name)
        self._batch_bytes_max = min(batch_bytes_max, BATCH_BYTES_MAX)
        self._make_output = make_output
        self._assignment = Assignment(work, self, self._output, self._fail, topic)
        self._epoch = 0
        self._leaving = False
        self._losses = Losses(group)
        self._watch = StallWatch(GAP_OF_SESSION * connection.kafka.session_timeout_ms / 1000, time.monotonic)
        self._failure: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None
        self._beginnings: Beginnings | None = None

    @property
    def owned(self) -> Iterable[OwnedPartition]:
        """The partitions of the current assignment, in whatever state."""
        return self._assignment.owned.values()

    @property
    def joined(self) -> bool:
        """True once the group has assigned partitions (or none) to this worker for the first time."""
        return self._epoch > 0

    @property
    def in_doubt(self) -> bool:
        """True while nothing new should be started: the event loop stood still, and no heartbeat succeeded since."""
        return self._watch.in_doubt

    @property
    def lost_count(self) -> int:
        """How often membership was lost, in the ten minutes up to the last time."""
        return len(self._losses)

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes until `stop`; then hands over what is in flight, commits and leaves the group.

        A broker that goes away after the start is waited for. Raises MembershipLostTooOften, StartError (no
        broker at the start; an offset that does not exist any more), DeliveryRefused.
        """
        stopping, ticking = asyncio.create_task(stop.wait()), asyncio.create_task(self._watch.tick())
        now_s = asyncio.get_running_loop().time
        pauses = growing_pauses_s()
        try:
            while not stop.is_set():
                since_s = now_s()
                try:
                    await self._stay_joined(stopping)
                except MembershipInterrupted as error:
                    self._work.membership_lost()
                    log.warning("group %s: %s; joining again", self._group, error)
                except MembershipLost as loss:
                    self._work.membership_lost()
                    self._losses.note(loss, now_s())
                except KafkaUnreachable as error:
                    if self._epoch == 0 and not stop.is_set():
                        raise
                    log.warning("%s; trying again", error.one_line())
                if now_s() - since_s > JOINED_WELL_S:
                    pauses = growing_pauses_s()
                await asyncio.wait({stopping}, timeout=next(pauses))
        finally:
            stopping.cancel()
            ticking.cancel()

    async def _stay_joined(self, stopping: asyncio.Task[Any]) -> None:
        """One membership: from joining to the stop, or to its loss (MembershipLost)."""
        failure = self._failure = asyncio.get_running_loop().create_future()
        self._leaving = False
        lead = self._topics[0] if len(self._topics) > 1 else None
        consumer = self._connection.consumer(self._group, self._client_id, self._fetch, lead)
        self._consumer = consumer
        consumer.subscribe(list(self._topics), listener=self)
        async with AsyncExitStack() as clients:
            joining = asyncio.create_task(self._join(consumer, clients))
            try:
                await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if joining.done():
                    joining.result()
                    await self._consume(consumer, stopping, failure)
            except KafkaError as error:
                raise translate(error, f"reading {', '.join(self._topics)}") from error
            finally:
                joining.cancel()
                await asyncio.wait({joining})
                self._leaving = True
                self._assignment.drop(list(self.owned))
                if stopping.done():
                    await self._assignment.closed(CLOSINGS_SHARE * self._connection.kafka.drain_timeout_s)
                    await leave(consumer)
                else:  # others get the partitions at once: this worker has nothing more to do for them
                    await leave(consumer)
                    await self._assignment.closed(None)  # so that nothing outlives the membership
                if not failure.cancel():
                    failure.exception()  # asyncio complains of those that are thrown away unseen

    async def _join(self, consumer: AIOKafkaConsumer, clients: AsyncExitStack) -> None:
        """Returns with the first assignment. aiokafka waits without end where its coordination has died."""
        within_s = self._assigned_within_s
        try:
            async with asyncio.timeout(within_s):
                admin = await clients.enter_async_context(self._connection.admin())
                self._beginnings = Beginnings(self._connection, admin, consumer, self._group, self._topics)
                await self._connection.start(consumer)
        except TimeoutError as error:
            raise MembershipInterrupted(
                f"the group gave no assignment within {self._assigned_within_s:.0f} s"
            ) from error

    async def _consume(
        self, consumer: AIOKafkaConsumer, stopping: asyncio.Task[Any], failure: asyncio.Future[None]
    ) -> None:
        """Fetches until the stop, then hands over. Raises what ended the membership."""
        self._watch.listen(consumer)
        loop = Fetching(
            consumer,
            self._group,
            self._assignment.owned,
            self._work,
            self._wake,
            self._watch,
            self._fetch.records,
            self._connection.kafka.transactions_per_s_max,
        )
        fetching, watching = asyncio.create_task(loop.run()), asyncio.create_task(self._watch_over(loop))
        try:
            await asyncio.wait({fetching, watching, stopping, failure}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (fetching, watching):
                task.cancel()
            await asyncio.wait({fetching, watching})
        for task in (fetching, watching):
            if not task.cancelled():
                task.result()
        if failure.done():
            failure.result()
        if not stopping.done():  # aiokafka's coordination was cancelled from within, and cancelled who asked it
            raise MembershipInterrupted("aiokafka gave up coordinating")
        self._leaving = True
        await self._assignment.hand_over(list(self.owned), DRAIN_SHARE * self._connection.kafka.drain_timeout_s)

    async def _watch_over(self, loop: Fetching) -> None:
        """Raises MembershipInterrupted where fetching stands still: aiokafka may hang while it joins again."""
        turns = -1
        while turns != loop.turns:
            turns = loop.turns
            await asyncio.sleep(self._assigned_within_s)
        raise MembershipInterrupted(f"the group gave no new assignment within {self._assigned_within_s:.0f} s")

    @property
    def _assigned_within_s(self) -> float:
        kafka = self._connection.kafka
        return kafka.session_timeout_ms / 1000 + kafka.handover_s + JOIN_SLACK_S

    async def trust(self, partition: OwnedPartition) -> None:
        """Returns when the group is known to count this worker in, or the partition has been given up."""
        while self._watch.in_doubt and partition.life.status in {PartitionStatus.OPENING, PartitionStatus.READY}:
            await self._watch.trusted(DOUBT_POLL_S)

    async def stored(self, partition: OwnedPartition) -> Committed:
        """What the group has committed of the partition."""
        return await cast("Beginnings", self._beginnings).read(partition)

    def wake(self) -> None:
        """A partition wants records again, or there is a new one."""
        self._wake.set()

    # The callbacks: state only, and a bounded wait

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # may be a coroutine
        self, revoked: Any
    ) -> None:
        """Stops work for what is taken away; waits `handover_s` at most for what is in flight."""
        del revoked  # an eager assignor takes all
        partitions = list(self.owned)
        try:
            try:
                await self._assignment.hand_over(partitions, self._connection.kafka.handover_s)
            finally:
                self._assignment.drop(partitions)
        except Exception as error:  # aiokafka logs and drops what a callback raises  # noqa: BLE001
            self._fail(error)

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]  # may be a coroutine
        self, assigned: Any
    ) -> None:
        """Notes what was given, and leaves the opening to tasks of their own."""
        self._epoch += 1
        if self._leaving:
            return  # a rebalance during the drain, or while producers close: nobody would drop what is opened now
        try:
            consumer, begins = cast("AIOKafkaConsumer", self._consumer), cast("Beginnings", self._beginnings).read
            for tp in sorted(cast("set[TopicPartition]", assigned)):
                self._assignment.take(tp, consumer, begins)
        except Exception as error:  # aiokafka logs and drops what a callback raises  # noqa: BLE001
            self._fail(error)

    def _output(self, tp: TopicPartition) -> TransactionalOutput:
        """The one transactional producer of that partition, not opened."""
        producer_id = f"{self._group}:{tp.topic}:{tp.partition}"
        return self._make_output(
            lambda: self._connection.transactional_producer(producer_id, self._batch_bytes_max),
            self._group,
            self._connection.kafka.transaction_timeout_ms / 1000 * 2,
            self._reach(tp.partition),
        )

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

"""One transactional producer, and the one way anything leaves a lane: a checked transaction.

aiokafka commits a transaction whose produce failed, if nobody looks at the send's future. So every future
is awaited and checked before the offsets are sent; any failure aborts. Nothing between begin and commit may be
cancelled, so the transaction runs as a task of its own to its end, whoever waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError, NodeNotReadyError, ProducerClosed
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream_app.errors import MembershipInterrupted, MembershipLost
from stream_app.kafka.hanging import end_what_hangs
from stream_app.kafka.last_transaction import LastTransaction, LastWord
from stream_app.kafka.proven_end import ProvenEnd
from stream_app.kafka.refusals import LOST, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaProducer

    from stream_app.events import Outgoing

log = logging.getLogger(__name__)

BATCH_BYTES_MAX = 512 * 1024
"""Half of Kafka's default `max.message.bytes` (1,048,588), which bounds a batch, not only a record."""
CLOSE_TIMEOUT_S = 5.0
CUT_OFF_S = 1.0


def _look_at(future: asyncio.Future[Any]) -> None:
    """Marks a future's exception as seen: asyncio complains of those that are thrown away unseen."""
    if not future.cancelled():
        future.exception()


class TransactionalOutput:
    """The producer of one input partition. Not safe for two commits at a time: the caller takes turns.

    Whoever opens an output with the same `transactional_id` later fences this one: its commits then raise
    MembershipLost and leave nothing behind.
    """

    def __init__(
        self,
        make_producer: Callable[[], AIOKafkaProducer],
        group: str,
        commit_timeout_s: float,
        reach: Collection[TopicPartition] = (),
    ) -> None:
        """`reach`: every partition that this output, and the earlier ones of its transactional id, may write to."""
        self._producer = make_producer()
        self._group = group
        self._commit_timeout_s = commit_timeout_s
        self._reach = reach
        self._running: asyncio.Task[None] | None = None
        self._unanswered = False
        self._end: ProvenEnd | None = None
        self.last_word = LastWord()
        """Give it to the output that is opened in this one's place."""

    @property
    def in_doubt(self) -> bool:
        """Open another output before the next transaction, which ends what is in doubt, and for another epoch.

        Either a request was given up without an answer, and sent again. The broker may still handle the first one,
        and takes it for part of a later transaction of the same epoch: a late commit ends that before its offsets, a
        late offset takes the place of its own. Or the last transaction may have ended without its markers
        (`stream_app.kafka.hanging`): the connection is gone on which it ended, or too much time has passed.
        """
        return self._unanswered or self._end is None or self._end.in_doubt

    async def open(self) -> None:
        """InitProducerId: fences the previous owner and waits for its last transaction to end.

        Then ends what Kafka may have left of it without an end (`stream_app.kafka.hanging`). Raises DeliveryRefused,
        MembershipLost, or MembershipInterrupted where another try may succeed; the caller sets the deadline.
        """
        doing = "opening a transactional producer"
        LastTransaction(self._producer, self.last_word)
        try:
            await self._producer.start()
        except KafkaError as error:
            raise translate(error, doing) from error
        except AssertionError as error:  # the broker told of no broker that lives, itself included: it was suspended
            raise MembershipInterrupted(f"lost while {doing} ({error})") from error
        self._listen()
        try:
            await end_what_hangs(self._producer, self._reach, self._group, commit=self.last_word.committed)
        except (*LOST, KafkaError, AssertionError) as error:
            self._look_at_leftovers()
            raise translate(error, "ending what an earlier transaction left open", source="") from error
        self.last_word.epoch = -1
        self._end = ProvenEnd(self._producer)

    def _listen(self) -> None:
        """Hears of requests without an answer: aiokafka repeats them by itself, and tells nobody."""
        client = cast("Any", self._producer).client
        send = client.send

        async def sending(node_id: int, request: object, **rest: object) -> object:
            try:
                return await send(node_id, request, **rest)
            except NodeNotReadyError:  # it was not sent
                raise
            except KafkaError:
                self._unanswered = True
                raise

        client.send = sending

    async def commit(self, outgoing: Sequence[Outgoing], source: TopicPartition, offset: int, metadata: str) -> None:
        """Delivers `outgoing` and commits `offset` of `source` with `metadata`: all of it or nothing.

        A list is emptied on the way. Once begun it runs to its end, even if the caller is cancelled. Raises
        MembershipLost (nothing of it counts unless it was committed; the next owner reads the truth) or
        DeliveryRefused.
        """
        doing = f"delivering {len(outgoing)} records of {source.topic}/{source.partition} up to {offset}"
        await self._carry_out(outgoing, {source: OffsetAndMetadata(offset, metadata)}, doing)

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commits offsets of one topic and nothing else: all of them or none. Raises as `commit` does."""
        doing = f"committing the offsets of {len(offsets)} partitions"
        await self._carry_out((), {tp: OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}, doing)

    async def publish(self, outgoing: Sequence[Outgoing], doing: str) -> None:
        """Delivers `outgoing` and commits no offset: all of it or nothing. `doing` is what an error names.

        Raises as `commit` does; where the last one is in doubt MembershipInterrupted, or MembershipLost if that is
        for too long a pause, in which another may have begun.
        """
        if self._end is not None and self._end.late:
            raise MembershipLost(f"lost while {doing} (too long a pause since the last transaction)")
        if self.in_doubt:
            raise MembershipInterrupted(f"lost while {doing} (what became of earlier requests is in doubt)")
        await self._carry_out(outgoing, {}, doing)

    async def _carry_out(
        self, outgoing: Sequence[Outgoing], offsets: dict[TopicPartition, OffsetAndMetadata], doing: str
    ) -> None:
        if self._running is not None and not self._running.done():
            raise RuntimeError("two transactions at a time on one producer")
        self._running = asyncio.create_task(self._transaction(outgoing, offsets, doing))
        await asyncio.shield(self._running)

    async def _transaction(
        self, outgoing: Sequence[Outgoing], offsets: dict[TopicPartition, OffsetAndMetadata], doing: str
    ) -> None:
        source = next((tp.topic for tp in offsets), "")
        step = "begin"
        try:
            async with asyncio.timeout(self._commit_timeout_s):
                if self._end is not None:
                    self._end.next_begins()
                await self._producer.begin_transaction()
                try:
                    futures: list[asyncio.Future[Any]] = []
                    step = "sends"
                    await self._send(outgoing, futures)
                    await self._check_sends(futures)
                    step = "offsets"
                    await self._send_offsets(offsets)
                except Exception:
                    await self._abort()
                    raise
                step = "commit"
                if self._end is not None:
                    self._end.begins()
                await self._producer.commit_transaction()
                if self._end is not None:
                    self._end.answered()
        except (*LOST, KafkaError, AssertionError) as error:  # AssertionError: aiokafka's state table
            raise translate(error, doing, source) from error
        except TimeoutError as error:
            raise MembershipInterrupted(
                f"{doing} took longer than {self._commit_timeout_s:.0f} s, at: {step}"
            ) from error

    async def _send(self, outgoing: Iterable[Outgoing], futures: list[asyncio.Future[Any]]) -> None:
        """Hands all records to the producer, in order per output partition; adds one future per batch."""
        batches = self._batches(outgoing)
        if isinstance(outgoing, list):
            outgoing.clear()  # the batches hold it now; kept twice it was a tenth of a worker's memory
        sends = [self._send_in_order(target, builders, futures) for target, builders in batches.items()]
        await self._check_sends([asyncio.ensure_future(send) for send in sends])

    def _batches(self, outgoing: Iterable[Outgoing]) -> dict[tuple[str, int], list[Any]]:
        """Full batches by output partition. Runs once for every record that leaves, so it looks up little."""
        create = self._producer.create_batch
        batches: dict[tuple[str, int], list[Any]] = {}
        appends: dict[tuple[str, int], Callable[..., Any]] = {}
        append: Callable[..., Any] | None = None
        last_topic, last_partition = "", -1
        for topic, partition, key, value, headers, timestamp_ms in outgoing:
            if partition != last_partition or topic != last_topic:
                last_topic, last_partition = topic, partition
                append = appends.get((topic, partition))
            listed = list(headers)  # aiokafka's C code takes nothing else
            if append is None or append(timestamp=timestamp_ms, key=key, value=value, headers=listed) is None:
                builder = create()
                batches.setdefault((topic, partition), []).append(builder)
                append = appends[topic, partition] = builder.append
                append(timestamp=timestamp_ms, key=key, value=value, headers=listed)  # the first one always fits
        return batches

    async def _send_in_order(
        self, target: tuple[str, int], builders: list[Any], futures: list[asyncio.Future[Any]]
    ) -> None:
        topic, partition = target
        for builder in builders:
            future = await self._producer.send_batch(builder, topic, partition=partition)
            future.add_done_callback(_look_at)
            futures.append(future)

    async def _check_sends(self, futures: list[asyncio.Future[Any]]) -> None:
        """Awaits every future, so that none is left unretrieved; raises the first failure."""
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_offsets(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if offsets:
            await self._producer.send_offsets_to_transaction(cast("Any", offsets), self._group)

    async def _abort(self) -> None:
        """Aborts as far as that is possible: a fenced producer cannot, and need not."""
        self._look_at_leftovers()  # the abort puts another future in the place of one that was refused
        with contextlib.suppress(KafkaError, AssertionError):
            await self._producer.abort_transaction()
        self._look_at_leftovers()

    def _look_at_leftovers(self) -> None:
        """A fenced producer fails futures that nobody can await: the transaction's end, and its queued batches'."""
        producer = cast("Any", self._producer)
        left = [producer._txn_manager.wait_for_transaction_end()]  # noqa: SLF001 - no public way leads to them
        queues = producer._message_accumulator._batches.values()  # noqa: SLF001 - as above
        left += [batch._drain_waiter for queue in queues for batch in queue]  # noqa: SLF001 - as above
        for future in left:
            if future is not None and future.done():
                _look_at(future)

    async def close(self) -> None:
        """Waits for a running transaction, then ends the producer. Never raises; bounded in time."""
        if self._end is not None:
            self._end.close()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=self._commit_timeout_s)
            if self._running.done():
                _look_at(self._running)
        stopping = asyncio.create_task(self._producer.stop())
        await asyncio.wait({stopping}, timeout=CLOSE_TIMEOUT_S)
        self._look_at_leftovers()
        if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
            return
        why = stopping.exception() if stopping.done() and not stopping.cancelled() else "it takes too long"
        log.warning("a producer did not close cleanly: %s", why)
        await self._cut_off(stopping)

    async def _cut_off(self, stopping: asyncio.Task[None]) -> None:
        """Aiokafka counts the producer as closed now, and would leave its sender at work and its connections open."""
        producer = cast("Any", self._producer)
        sender = producer._sender and producer._sender.sender_task  # noqa: SLF001 - no public way leads to it
        producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - as above
        tasks: set[asyncio.Task[Any]] = {stopping} if sender is None else {stopping, sender}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CUT_OFF_S)
        tasks.add(closing := asyncio.create_task(producer.client.close()))
        await asyncio.wait({closing}, timeout=CUT_OFF_S)
        for task in tasks:
            if task.done():
                _look_at(task)
        self._look_at_leftovers()

"""Sends people's labels, each once, however often this is run, killed, or run twice at a time.

1. The producer opens. Its transactional id belongs to the verdicts topic, so another one that still runs is fenced
   from now on, and what it left open is aborted.
2. A first transaction writes an opening record to each partition of that topic, and it is read until they come: every
   verdict that was ever committed is known now, and nobody else can commit another.
3. What the newest verdict on an event and task does not say yet is sent; each transaction holds rows of the feedback
   topic and their verdicts, so both count or neither.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

from stream_app.cli.verdict_fate import Sends
from stream_app.codec import decode_verdict
from stream_app.errors import MembershipInterrupted, MembershipLost, ShuntError, UnreadableRecord
from stream_app.events import Outgoing
from stream_app.kafka.reader import read_topic
from stream_app.kafka.transactions import BATCH_BYTES_MAX, TransactionalOutput

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from stream_app.cli.said import Said
    from stream_app.cli.verdict_fate import Before, Fate, VerdictJudge
    from stream_app.kafka.connection import Connection
    from stream_app.kafka.topics import TopicFound

ROWS_PER_TRANSACTION = 200
OPEN_WITHIN_S = 60.0
"""An earlier run's transaction is aborted, and its markers written, before ours may begin."""
VERDICTS_WITHIN_S = 300.0
"""Reading a million verdicts takes some ten seconds."""
OPENED = b"opened"
"""Key of the records with which a run begins. Workers pass over them."""


class FeedbackOutput(TransactionalOutput):
    """A transactional producer that consumes nothing: what was sent stands on the verdicts topic."""

    def __init__(self, connection: Connection, verdicts: TopicFound, feedback: TopicFound) -> None:
        producer_id = f"shunt-feedback-{verdicts.name}"
        batch_bytes_max = min(BATCH_BYTES_MAX, verdicts.message_bytes_max, feedback.message_bytes_max)
        super().__init__(
            lambda: connection.transactional_producer(producer_id, batch_bytes_max),
            "",
            connection.kafka.transaction_timeout_ms / 1000 * 2,
            [*verdicts.each_partition, *feedback.each_partition],
        )


class Sending:
    """One run over what people said."""

    def __init__(
        self,
        connection: Connection,
        verdicts: TopicFound,
        feedback: TopicFound,
        judge: VerdictJudge,
        now_ms: Callable[[], int],
    ) -> None:
        self._connection, self._verdicts, self._feedback = connection, verdicts, feedback
        self._judge, self._now_ms = judge, now_ms

    async def rehearse(self, said: Sequence[Said]) -> list[Fate]:
        """What would become of each. Writes nothing."""
        before = await read_before(self._connection, self._verdicts, None)
        return [self._judge.fate(one, before, self._now_ms()) for one in said]

    async def run(self, said: Sequence[Said]) -> AsyncGenerator[list[Fate]]:
        """What became of each; those that are sent are committed when they are told.

        Raises ShuntError, which says what to do: another run took over, Kafka was away, a right is missing.
        """
        output = FeedbackOutput(self._connection, self._verdicts, self._feedback)
        sent = 0
        try:
            before = await self._open(output)
            for start in range(0, len(said), ROWS_PER_TRANSACTION):
                chunk = said[start : start + ROWS_PER_TRANSACTION]
                fates = [self._judge.fate(one, before, self._now_ms()) for one in chunk]
                sends = [fate for fate in fates if isinstance(fate, Sends)]
                if sends:
                    outgoing = [record for fate in sends for record in fate.outgoing]
                    await output.publish(outgoing, f"sending {len(sends)} labels")
                    sent += len(sends)
                yield fates
        except MembershipInterrupted as error:
            raise ShuntError(
                f"Kafka did not answer in time, after {sent:,} were sent ({error.message})",
                advice="run the same command again: nothing is sent twice",
            ) from error
        except MembershipLost as error:
            raise ShuntError(
                f"another `shunt feedback` has begun, or this one stood still for too long; it sent {sent:,}",
                advice="run the same command again when no other runs: nothing is sent twice",
            ) from error
        finally:
            await output.close()

    async def _open(self, output: FeedbackOutput) -> Before:
        """What every verdict has said, when nobody but we can write another."""
        opened = uuid.uuid4().hex.encode()
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await output.open()
        except TimeoutError as error:
            raise MembershipInterrupted(f"opening the producer took longer than {OPEN_WITHIN_S:.0f} s") from error
        topic = self._verdicts
        marks = [Outgoing(topic.name, number, OPENED, opened, ()) for number in range(topic.partitions)]
        await output.publish(marks, f"opening {topic.name}")
        return await read_before(self._connection, topic, opened)


async def read_before(connection: Connection, topic: TopicFound, opened: bytes | None) -> Before:
    """The newest verdict on each record and task. With `opened`, until each partition's opening record has come.

    Raises MembershipInterrupted where that takes too long.
    """
    found: Before = {}
    left = set(range(topic.partitions))
    try:
        async with (
            asyncio.timeout(VERDICTS_WITHIN_S),
            aclosing(read_topic(connection, topic.name, to_end=opened is None)) as batches,
        ):
            async for batch in batches:
                for record in batch:
                    if opened is not None and record.key == OPENED and record.value == opened:
                        left.discard(record.partition)
                    try:
                        verdict = decode_verdict(record.value)
                    except UnreadableRecord:
                        continue
                    found[verdict.ref, verdict.task] = verdict.label
                if not left:
                    break
    except TimeoutError as error:
        raise MembershipInterrupted(f"reading {topic.name} took longer than {VERDICTS_WITHIN_S:.0f} s") from error
    return found

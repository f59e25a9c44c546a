"""Sends people's labels, each once (`stream_app.cli.sent_once`).

The transactional id belongs to the verdicts topic, which tells what was sent before. What the newest verdict on an
event and task does not say yet is sent: rows of the feedback topic, their verdicts and audits' results, together.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from stream_app.cli.sent_once import OPENED, SendingOutput, sent_once
from stream_app.cli.verdict_fate import Before, Sends
from stream_app.codec import decode_verdict
from stream_app.errors import MembershipInterrupted, UnreadableRecord
from stream_app.kafka.reader import read_topic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from stream_app.cli.said import Said
    from stream_app.cli.verdict_fate import Fate, VerdictJudge
    from stream_app.kafka.connection import Connection
    from stream_app.kafka.topics import TopicFound

ROWS_PER_TRANSACTION = 200
VERDICTS_WITHIN_S = 300.0
"""Reading a million verdicts takes some ten seconds."""


class Sending:
    """One run over what people said. `others`: the topics beside the verdicts' that are written to."""

    def __init__(
        self,
        connection: Connection,
        verdicts: TopicFound,
        others: Sequence[TopicFound],
        judge: VerdictJudge,
        now_ms: Callable[[], int],
    ) -> None:
        self._connection, self._verdicts, self._others = connection, verdicts, others
        self._judge, self._now_ms = judge, now_ms

    async def rehearse(self, said: Sequence[Said]) -> list[Fate]:
        """What would become of each. Writes nothing."""
        before = await read_before(self._connection, self._verdicts, None)
        return [self._judge.fate(one, before, self._now_ms()) for one in said]

    async def run(self, said: Sequence[Said]) -> AsyncGenerator[list[Fate]]:
        """What became of each; those that are sent are committed when they are told.

        Raises ShuntError, which says what to do: another run took over, Kafka was away, a right is missing.
        """
        topic = self._verdicts
        output = SendingOutput(
            self._connection, f"shunt-feedback-{topic.name}", f"to {topic.name}", [topic, *self._others]
        )
        async with sent_once(output, "another `shunt feedback`"):
            before = await read_before(self._connection, topic, await output.begin(topic.each_partition))
            for start in range(0, len(said), ROWS_PER_TRANSACTION):
                chunk = said[start : start + ROWS_PER_TRANSACTION]
                fates = [self._judge.fate(one, before, self._now_ms()) for one in chunk]
                sends = [fate for fate in fates if isinstance(fate, Sends)]
                if sends:
                    await output.deliver([record for fate in sends for record in fate.outgoing])
                    output.sent += len(sends)
                yield fates


async def read_before(connection: Connection, topic: TopicFound, opened: bytes | None) -> Before:
    """The newest verdict on each record and task. With `opened`, until each partition's opening record has come.

    Raises MembershipInterrupted where that takes too long.
    """
    found = Before()
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
                    found.take(verdict)
                if not left:
                    break
    except TimeoutError as error:
        raise MembershipInterrupted(f"reading {topic.name} took longer than {VERDICTS_WITHIN_S:.0f} s") from error
    return found

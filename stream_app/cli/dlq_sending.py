"""Sends dead letters back, each once (`stream_app.cli.sent_once`).

The transactional id belongs to the dead-letter topic. Every letter that is sent has a receipt, on a topic of receipts
that is read first; letters without one are sent.

A receipt is a compacted record of its own, because nothing else is exact: offsets of a group tell a prefix, while a
filter leaves gaps, and Kafka forgets them after a week without use, when dead letters are kept for a month; and the
marks on the records themselves go when their topic's retention ends.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from stream_app.cli.dlq_fate import Send
from stream_app.cli.dlq_reading import read_letters, read_receipts, replays_topic
from stream_app.cli.sent_once import SendingOutput, sent_once
from stream_app.codec.replays import receipt_key
from stream_app.errors import MembershipInterrupted, StartError
from stream_app.events import Outgoing
from stream_app.kafka.topics import Cleanup, TopicPlan, create, look_up
from stream_app.kafka.transactions import BATCH_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection

    from stream_app.cli.dlq_fate import Fate, Judge
    from stream_app.cli.dlq_reading import Bounds, Page, Receipts
    from stream_app.cli.dlq_selection import Selection
    from stream_app.kafka.connection import Connection
    from stream_app.kafka.topics import TopicFound

LETTERS_PER_TRANSACTION = 500
BYTES_PER_TRANSACTION = 4 * 1024 * 1024
RECEIPTS_WITHIN_S = 300.0
"""Reading a million receipts takes some ten seconds."""


class Replay:
    """One replay of the letters that `chosen` takes. `page_read` hears of each page of the dead-letter topic."""

    def __init__(
        self,
        connection: Connection,
        judge: Judge,
        chosen: Selection,
        *,
        limit: int | None,
        now_ms: Callable[[], int],
        page_read: Callable[[Page], object],
    ) -> None:
        self._connection, self._judge, self._chosen = connection, judge, chosen
        self._limit, self._now_ms, self._page_read = limit, now_ms, page_read
        self._dlq = connection.kafka.names.dlq
        self._replays = replays_topic(self._dlq)

    async def rehearse(self, begin: Bounds) -> AsyncGenerator[list[Fate]]:
        """What would become of each letter. Writes nothing and makes no topic."""
        async with asyncio.timeout(RECEIPTS_WITHIN_S):
            known = await read_receipts(self._connection, self._replays)
        async with aclosing(self._fates(begin, known)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def run(self, begin: Bounds) -> AsyncGenerator[list[Fate]]:
        """What became of each letter; those that are sent are committed when they are told.

        Raises ShuntError, which says what to do: another replay took over, Kafka was away, a right is missing.
        """
        about = f"back from {self._dlq}"
        output = SendingOutput(self._connection, f"shunt-dlq-replay-{self._dlq}", about, await self._ready())
        async with sent_once(output, f"another replay of {self._dlq}"):
            known = await self._open(output, begin)
            async with aclosing(self._fates(begin, known)) as chunks:
                async for chunk in chunks:
                    sends = [fate for fate in chunk if isinstance(fate, Send)]
                    if sends:
                        now_ms = self._now_ms()
                        receipts = [send.receipt(self._replays, now_ms) for send in sends]
                        await output.deliver([*(send.outgoing for send in sends), *receipts])
                        output.sent += len(sends)
                    yield chunk

    async def _ready(self) -> Collection[TopicFound]:
        """Makes the topic of receipts where there is none; all topics that a replay writes to."""
        names = self._connection.kafka.names
        wanted = [self._replays, names.input, names.escalations]
        found = await look_up(self._connection, wanted)
        if self._replays not in found:
            planned = TopicPlan(
                "replays", self._replays, 1, -1, BATCH_BYTES_MAX, "shunt dlq", "shunt dlq", Cleanup.COMPACT
            )
            await create(self._connection, [planned])
            found = await look_up(self._connection, wanted)
        elif found[self._replays].cleanup != Cleanup.COMPACT or found[self._replays].partitions != 1:
            raise StartError(
                f"topic {self._replays!r} does not keep what was replayed for ever",
                advice="give it one partition and cleanup.policy=compact",
            )
        return found.values()

    async def _open(self, output: SendingOutput, begin: Bounds) -> Receipts:
        """Every receipt there is, when nobody but we can write another."""
        opened = await output.begin([TopicPartition(self._replays, 0)])
        try:
            async with asyncio.timeout(RECEIPTS_WITHIN_S):
                known = await read_receipts(self._connection, self._replays, opened)
        except TimeoutError as error:
            raise MembershipInterrupted(
                f"reading {self._replays} took longer than {RECEIPTS_WITHIN_S:.0f} s"
            ) from error
        await self._forget_expired(output, known, begin)
        return known

    async def _forget_expired(self, output: SendingOutput, known: Receipts, begin: Bounds) -> None:
        """Takes away the receipts of letters that have expired, so that their topic does not grow for ever."""
        gone = [place for place in known if place[1] < begin.first.get(place[0], 0)]
        for start in range(0, len(gone), LETTERS_PER_TRANSACTION):
            part = gone[start : start + LETTERS_PER_TRANSACTION]
            await output.deliver([Outgoing(self._replays, 0, receipt_key(*place), None, ()) for place in part])

    async def _fates(self, begin: Bounds, known: Receipts) -> AsyncGenerator[list[Fate]]:
        """The fates of the letters that are chosen, in portions for one transaction each."""
        left = self._limit
        async with aclosing(read_letters(self._connection, self._dlq, begin)) as pages:
            async for page in pages:
                chunk: list[Fate] = []
                weight = 0
                for letter in filter(self._chosen.takes, page.letters):
                    fate = self._judge.fate(letter, known.get(letter.place))
                    chunk.append(fate)
                    if isinstance(fate, Send):
                        weight += BYTES_PER_TRANSACTION // LETTERS_PER_TRANSACTION + len(letter.value or b"")
                        left = None if left is None else left - 1
                    if left == 0 or weight >= BYTES_PER_TRANSACTION:
                        yield chunk
                        chunk, weight = [], 0
                    if left == 0:
                        return
                if chunk:
                    yield chunk
                self._page_read(page)

"""Turns people's verdicts into corrections: one partition's at a time, in their order, by the one who may.

For a batch of verdicts:

1. what this worker has decided of the partition's records by now is committed;
2. the newest decision of each record is read from the decisions topic: nobody else can have written a newer one;
3. the corrections, and how far the verdicts are done, leave with the partition's next commit.

Killed before that commit, nothing has happened, and the next owner does the same; after it, all of it has.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_app.errors import StartError
from stream_app.escalate.outbox import Outcome
from stream_app.escalate.standing import Standing, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stream_app.escalate.outbox import Outbox
    from stream_app.escalate.parked_work import ParkedWork
    from stream_app.escalate.standing import Decided
    from stream_app.escalate.verdict_log import VerdictLog
    from stream_app.events import Verdict
    from stream_app.kafka.connection import Connection
    from stream_app.settings import Settings

log = logging.getLogger(__name__)

AGAIN_S = 1.0
EXPIRED = "expired"
"""The record's decisions are gone from their topic, or were never there: nothing that could be corrected."""


class VerdictDesk:
    """Works off the verdicts of the parked partitions that this worker owns."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        verdicts: VerdictLog,
        outbox: Outbox,
        wall_s: Callable[[], float],
    ) -> None:
        names = settings.kafka.names
        self._decisions, self._topic = names.decisions, names.verdicts
        self._connection, self._verdicts, self._outbox, self._wall_s = connection, verdicts, outbox, wall_s

    def follow(self, work: ParkedWork, spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]) -> None:
        """From now on the partition's verdicts are read and worked off, until `leave`."""
        self._verdicts.follow(work.number, work.verdicts)
        work.judging = spawn(self._run(work))

    def leave(self, work: ParkedWork) -> None:
        """Somebody else works them off. Nothing to do for a work that was never followed."""
        if work.judging is not None:
            self._verdicts.leave(work.number)
            work.judging.cancel()

    async def run(self) -> None:
        """Reads the topic, for ever."""
        await self._verdicts.run()

    async def _run(self, work: ParkedWork) -> None:
        queue = work.verdicts
        while True:
            await queue.more.wait()
            queue.more.clear()
            while (batch := queue.next_batch()) and not work.closing:
                outcomes = await self._outcomes(work, [verdict for _, verdict in batch], [at for at, _ in batch])
                work.outcomes += outcomes
                queue.finished(len(batch))
                work.something.set()

    async def _outcomes(self, work: ParkedWork, verdicts: Sequence[Verdict], offsets: Sequence[int]) -> list[Outcome]:
        """What the verdicts come to, each in turn on what the one before has left."""
        await work.flushed()
        found = await self._decided(verdicts)
        outcomes: list[Outcome] = []
        for verdict, offset in zip(verdicts, offsets, strict=True):
            outcome = self._outcome(found, verdict, f"{self._topic}/{work.number}/{offset}")
            if outcome.decision is not None:
                corrected = outcome.outgoing[0]
                found.newest[verdict.ref] = Standing.of(corrected.key, corrected.value or b"", corrected.headers)
            log.info("the verdict on %s (%s): %s", verdict.ref, verdict.task, outcome.verdict)
            outcomes.append(outcome)
        return outcomes

    def _outcome(self, found: Decided, verdict: Verdict, place: str) -> Outcome:
        if place in found.obeyed:
            return Outcome((), None, verdict="same")
        standing = found.newest.get(verdict.ref)
        if standing is None:
            return Outcome((), None, verdict=EXPIRED)
        return self._outbox.overruled(standing, verdict, place, int(self._wall_s() * 1000))

    async def _decided(self, verdicts: Sequence[Verdict]) -> Decided:
        while True:
            try:
                return await decided(self._connection, self._decisions, verdicts)
            except (KafkaError, StartError) as error:
                log.warning("the decisions cannot be read: %s; trying again", error)
            await asyncio.sleep(AGAIN_S)

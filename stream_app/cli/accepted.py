"""Answers that the policy in force accepted, drawn uniformly from the decisions topic: for people to judge.

What people say of these tests the error that the policy promises, so nothing about an event or its answer decides
whether it is drawn: not how sure the model was, not whether somebody has complained.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.classify.audit_watch import results_since_ms
from stream_app.cli.drawn import Draw, Drawn
from stream_app.cli.events_at import events_at
from stream_app.codec import decode_decision, timestamp_ms
from stream_app.errors import UnreadableRecord
from stream_app.events import Event, Source
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import DecisionMessage
    from stream_app.routing.policy import Policy
    from stream_app.settings import Settings
    from stream_app.training.held_out import HeldOut

    Record = ConsumerRecord[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Accepted(Drawn):
    """An event of which the answers to `tasks` were accepted, and the place of the decision that says so."""

    tasks: tuple[str, ...] = ()
    decided_at: tuple[int, int] = (0, 0)


class AcceptedDraw:
    """Folds decisions, in each partition's order, into a uniform draw of those whose answers `policy` accepted."""

    def __init__(
        self, policy: str, topic: str, tasks: Collection[str], passed_over: HeldOut, count: int, seed: int
    ) -> None:
        """`topic` is the input's, `tasks` are those that are asked for; nothing of `passed_over` is drawn."""
        self._policy, self._topic, self._tasks, self._passed_over = policy, topic, tasks, passed_over
        self._draw = Draw[Accepted](count, seed)
        self._erased: dict[tuple[int, bytes], int] = {}
        self.offered = 0

    def take(self, record: Record) -> None:
        """One record of the decisions topic; a tombstone erases what its key had before."""
        if record.value is None:
            if record.key is not None:
                self._erased[record.partition, record.key] = record.offset
            return
        try:
            decision = decode_decision(record.value)
        except UnreadableRecord:
            return  # somebody else's record on this topic
        tasks = self._accepted(decision)
        if decision.kind != "final" or decision.source.topic != self._topic or not tasks:
            return
        if self._passed_over.holds_id(decision.id):
            return
        told = decision.source
        source = Source(told.topic, told.partition, told.offset, timestamp_ms(told.timestamp))
        event = Event(decision.id, "", b"{}", source, record.key)
        self.offered += 1
        self._draw.offer(source.ref, Accepted(event, tasks=tasks, decided_at=(record.partition, record.offset)))

    def _accepted(self, decision: DecisionMessage) -> tuple[str, ...]:
        return tuple(
            task
            for task, answer in decision.answers.items()
            if task in self._tasks and answer.escalated_because is None and answer.policy == self._policy
        )

    def drawn(self) -> list[Accepted]:
        """Those drawn, but for what was erased later. Their texts stand in no decision."""
        return [one for one in self._draw.drawn() if not self._was_erased(one)]

    def _was_erased(self, one: Accepted) -> bool:
        partition, offset = one.decided_at
        return one.event.key is not None and self._erased.get((partition, one.event.key), -1) > offset


async def draw_accepted(
    settings: Settings, policy: Policy, draw: AcceptedDraw, since_ms: int | None, read: Callable[[int], object]
) -> list[Accepted]:
    """What is drawn, with its texts; without those events whose records are gone from the input topic.

    `read` hears how many decisions were read. Raises StartError where there is no decisions topic.
    """
    connection, names = Connection(settings.kafka), settings.kafka.names
    since_ms = results_since_ms(policy) if since_ms is None else since_ms
    async with aclosing(read_topic(connection, names.decisions, since_ms=since_ms, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                draw.take(record)
            read(len(batch))
    return await _with_texts(settings, connection, draw.drawn())


async def _with_texts(settings: Settings, connection: Connection, drawn: Sequence[Accepted]) -> list[Accepted]:
    places = [(one.event.source.partition, one.event.source.offset) for one in drawn]
    found = await events_at(settings, connection, places)
    return [replace(one, event=found[place]) for place, one in zip(places, drawn, strict=True) if place in found]

"""The feedback topic, read to its end: the labels that stand, and the events that must not teach."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec import decode_audit_result, decode_feedback
from stream_app.errors import UnreadableRecord
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import partitions_of, read_topic
from stream_app.training.held_out import HeldOut

if TYPE_CHECKING:
    from stream_app.events import Feedback
    from stream_app.settings import Settings


@dataclass(slots=True)
class FeedbackRead:
    """The rows by their keys, in the topic's order, and what is held out; folded record by record."""

    rows: dict[bytes | None, list[Feedback]] = field(default_factory=dict["bytes | None", "list[Feedback]"])
    audited: set[str] = field(default_factory=set[str])
    unreadable: int = 0
    erased_ms: dict[bytes | None, int] = field(default_factory=dict["bytes | None", int])
    """By key: when it was erased."""

    def fold_feedback(self, key: bytes | None, value: bytes | None, timestamp_ms: int = 0) -> None:
        """A row more; no value erases all rows of that key before it, and those that come late of an event from
        before: it was on its way through the pipeline when it was erased.
        """
        if value is None:
            self.rows.pop(key, None)
            self.erased_ms[key] = timestamp_ms
            return
        try:
            row = decode_feedback(value)
        except UnreadableRecord:
            self.unreadable += 1
            return
        if row.source.timestamp_ms > self.erased_ms.get(key, row.source.timestamp_ms - 1):
            self.rows.setdefault(key, []).append(row)

    def fold_audit(self, value: bytes | None) -> None:
        """An audit's result more: its event is held out. Raises UnreadableRecord: nobody knows what that would be."""
        self.audited.add(decode_audit_result(value).id)

    @property
    def feedback(self) -> list[Feedback]:
        """All rows that stand."""
        return [row for rows in self.rows.values() for row in rows]

    @property
    def erased(self) -> set[str]:
        """The events that were erased, with nothing new of them since: what is kept elsewhere teaches no more."""
        return {(key or b"").decode("utf-8", "replace") for key in self.erased_ms if key not in self.rows}

    @property
    def held_out(self) -> HeldOut:
        """The events that were audited, and those that were erased."""
        return HeldOut(frozenset((event_id, None) for event_id in self.audited | self.erased))


async def read_feedback_topic(settings: Settings) -> FeedbackRead:
    """Both topics as they are now, committed records only. Raises StartError where there is no feedback topic."""
    connection, found = Connection(settings.kafka), FeedbackRead()
    names = settings.kafka.names
    await partitions_of(connection, names.feedback)
    if names.audit_results in await connection.topics([names.audit_results]):
        async with aclosing(read_topic(connection, names.audit_results, to_end=True)) as batches:
            async for batch in batches:
                for record in batch:
                    found.fold_audit(record.value)
    async with aclosing(read_topic(connection, names.feedback, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                found.fold_feedback(record.key, record.value, record.timestamp)
    return found

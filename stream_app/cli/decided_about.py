"""The newest decisions about some events, read from the decisions topic as it is now."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec.headers import SHUNT_SOURCE, last_by_name
from stream_app.errors import UnreadableRecord
from stream_app.escalate.standing import Standing
from stream_app.kafka.reader import read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

CE_SUBJECT = "ce_subject"
SLACK_MS = 60 * 60 * 1000
"""A clock may be wrong by so much; where that was not enough, the whole topic is read."""


@dataclass(frozen=True, slots=True)
class Newest:
    """A record's newest decision, and where it stands."""

    standing: Standing
    partition: int
    offset: int


@dataclass(slots=True)
class About:
    """What the decisions topic says of some events."""

    newest: dict[str, Newest] = field(default_factory=dict[str, Newest])
    """By source."""
    sources: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """By id: every source that a decision with it has."""
    read_to: dict[int, int] = field(default_factory=dict[int, int])
    """By partition: nothing newer about any of them stands below."""

    def take(self, record: Record, refs: Collection[str], ids: Collection[str]) -> None:
        """Notes one decision."""
        self.read_to[record.partition] = record.offset + 1
        told = last_by_name(record.headers)
        ref = told.get(SHUNT_SOURCE, b"").decode("utf-8", "replace")
        event_id = told.get(CE_SUBJECT, b"").decode("utf-8", "replace")
        if record.value is None or not (ref in refs or event_id in ids):
            return
        try:
            standing = Standing.of(record.key, record.value, tuple(record.headers))
        except UnreadableRecord:
            return  # somebody else's record on this topic
        if standing.decision.kind == "provisional":
            return
        self.sources.setdefault(standing.decision.id, set()).add(ref)
        old = self.newest.get(ref)
        if old is None or old.standing.decision.revision < standing.decision.revision:
            self.newest[ref] = Newest(standing, record.partition, record.offset)


async def decided_about(
    connection: Connection,
    refs: Collection[str],
    ids: Collection[str],
    since_ms: int | None,
    read: Callable[[int], object],
) -> About:
    """The newest decision of each record in `refs`, and of those whose event id is in `ids`.

    The records of `refs` came at `since_ms` or later, where that is known. `read` hears how many decisions were read.
    """
    if since_ms is not None and not ids:
        found = await _read(connection, refs, ids, since_ms - SLACK_MS, read)
        if all(ref in found.newest for ref in refs):
            return found
    return await _read(connection, refs, ids, None, read)


async def _read(
    connection: Connection,
    refs: Collection[str],
    ids: Collection[str],
    since_ms: int | None,
    read: Callable[[int], object],
) -> About:
    found = About()
    topic = connection.kafka.names.decisions
    async with aclosing(read_topic(connection, topic, since_ms=since_ms, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                found.take(record, refs, ids)
            read(len(batch))
    return found

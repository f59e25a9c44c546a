"""Which decision of a record is the newest, read from the decisions topic: what a person's verdict replaces.

Whoever asks must be the one writer of the record's corrections, and have committed its own: then nothing newer can
come while it decides.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from stream_app.codec import decode_decision, parked_at, verdict_of
from stream_app.errors import UnreadableRecord
from stream_app.kafka.reader import SpanExpired, read_records, read_span, true_ends

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import DecisionMessage
    from stream_app.events import Headers, Verdict
    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

SHUNT_SOURCE = "shunt-source"
TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class Standing:
    """A record's newest decision, with what its correction takes over: key, trace, and the parked partition."""

    decision: DecisionMessage
    key: bytes | None
    traceparent: bytes | None
    parked_at: int | None

    @staticmethod
    def of(key: bytes | None, value: bytes, headers: Headers) -> Standing:
        """What a record of the decisions topic says. Raises UnreadableRecord."""
        trace = next((told for name, told in reversed(headers) if name == TRACEPARENT), None)
        return Standing(decode_decision(value), key, trace, parked_at(headers))


@dataclass(slots=True)
class Decided:
    """What the decisions topic says of the records that verdicts are about."""

    newest: dict[str, Standing] = field(default_factory=dict[str, Standing])
    """By source. A record whose decisions have expired is missing."""
    obeyed: set[str] = field(default_factory=set[str])
    """Verdicts whose corrections are there already, by their places."""

    def take(self, record: Record, wanted: Container[str]) -> None:
        """Notes a decision of one of the `wanted` records."""
        source = next((told for name, told in reversed(record.headers) if name == SHUNT_SOURCE), b"") or b""
        if record.value is None or (ref := source.decode("utf-8", "replace")) not in wanted:
            return
        try:
            standing = Standing.of(record.key, record.value, tuple(record.headers))
        except UnreadableRecord:
            return  # somebody else's record with our header's name
        old = self.newest.get(ref)
        if standing.decision.kind != "provisional" and (
            old is None or standing.decision.revision > old.decision.revision
        ):
            self.newest[ref] = standing
        if (place := verdict_of(record.headers)) is not None:
            self.obeyed.add(place)


async def decided(connection: Connection, topic: str, verdicts: Sequence[Verdict]) -> Decided:
    """The newest decisions as of now. Raises KafkaError or StartError while Kafka is away.

    What a verdict had seen is read at its place, and then everything behind what had been read for it, to the end.
    """
    found = Decided()
    seen = await read_records(connection, topic, {(verdict.partition, verdict.offset) for verdict in verdicts})
    for verdict in verdicts:
        if (record := seen.get((verdict.partition, verdict.offset))) is not None:
            found.take(record, {verdict.ref})
    by_partition: dict[int, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_partition[verdict.partition].append(verdict)
    for number, some in by_partition.items():
        await _read_behind(connection, TopicPartition(topic, number), some, found)
    return found


async def _read_behind(
    connection: Connection, place: TopicPartition, verdicts: Sequence[Verdict], found: Decided
) -> None:
    """What came after those verdicts' readers. Where a part of it has expired, nothing is known of their records."""
    wanted = {verdict.ref for verdict in verdicts}
    begin = min(verdict.read_to for verdict in verdicts)
    end = (await true_ends(connection, [place]))[place]
    try:
        async with aclosing(read_span(connection, place, begin, end)) as batches:
            async for batch in batches:
                for record in batch:
                    found.take(record, wanted)
    except SpanExpired:
        for ref in wanted:
            found.newest.pop(ref, None)

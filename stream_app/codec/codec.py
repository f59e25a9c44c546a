"""One pipeline's codec: bytes to values and values to bytes, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from stream_app.codec import decisions
from stream_app.codec.audits import decode_audit
from stream_app.codec.decoding import EventDecoder
from stream_app.codec.escalations import EscalatedRecord, decode_escalation
from stream_app.codec.parked import decode_parked
from stream_app.errors import UnreadableRecord
from stream_app.events import Source, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.codec.finals import FinalEncoder
    from stream_app.codec.headers import RecordHeaders
    from stream_app.events import Audit, Decision, Event, Headers, Parked, Said
    from stream_app.settings import Events


class Codec:
    """What depends on a pipeline: where id and text stand, and the `ce_source` its outputs name. Pure.

    `group` is the pipeline's consumer group: two pipelines over one topic make different CloudEvents.
    """

    def __init__(self, events: Events, group: str) -> None:
        self._decoder = EventDecoder(events)
        self._ce_source = f"/shunt/{quote(group, safe='')}".encode()

    def decode(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: RecordHeaders,
    ) -> Event | Tombstone:
        """The event or tombstone a record is. Raises UnreadableRecord with its cause, and nothing else."""
        return self._decoder.decode(Source(topic, partition, offset, timestamp_ms), key, value, headers)

    def decode_escalated(
        self, key: bytes | None, value: bytes | None, headers: RecordHeaders
    ) -> tuple[EscalatedRecord, Event]:
        """A record of the escalation topic: what is asked, and the event, its source the original one.

        Raises UnreadableRecord: `bad_escalation`, or what the event itself cannot be read for.
        """
        record = decode_escalation(headers)
        event = self._decoder.decode(record.escalation.source, key, value, record.headers)
        if isinstance(event, Tombstone):
            raise UnreadableRecord("bad_escalation", "the value is null")
        return record, event

    def decode_parked(
        self, key: bytes | None, value: bytes | None, headers: RecordHeaders
    ) -> tuple[Parked, EscalatedRecord, Event]:
        """A record of the parked topic: what was decided without the LLM, and the escalation as it came.

        Raises UnreadableRecord: `bad_parked`, or what the escalation cannot be read for.
        """
        parked, others = decode_parked(headers)
        return (parked, *self.decode_escalated(key, value, others))

    def decode_audit(
        self, key: bytes | None, value: bytes | None, headers: RecordHeaders
    ) -> tuple[Audit, Headers, Event]:
        """A record of the audits topic: what was accepted, the original headers, and the event.

        Raises UnreadableRecord: `bad_audit`, or what the event itself cannot be read for.
        """
        audit, others = decode_audit(headers)
        event = self._decoder.decode(audit.source, key, value, others)
        if isinstance(event, Tombstone):
            raise UnreadableRecord("bad_audit", "the value is null")
        return audit, others, event

    def encode_decision(self, decision: Decision) -> tuple[bytes, Headers]:
        """Value and headers of any decision."""
        return decisions.encode_decision(decision, self._ce_source)

    def finals(self, policy: str | None, recommend: Callable[[Sequence[Said]], str | None]) -> FinalEncoder:
        """The hot path's encoder, kept as long as the policy: the same bytes as `encode_decision`, cheaper."""
        from stream_app.codec.finals import FinalEncoder  # noqa: PLC0415 - numpy, which only this needs

        return FinalEncoder(policy, recommend, self._ce_source)

    def tombstone_headers(self, tombstone: Tombstone) -> Headers:
        """Headers of the tombstone that goes to the decisions topic, with the key of the input."""
        return decisions.tombstone_headers(tombstone, self._ce_source)

"""Decisions to bytes and back: the message every consumer relies on (schemas/decision.schema.json)."""

import json
from typing import Any, Final, Literal

import msgspec
import orjson

from stream_app.codec.headers import (
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    JSON_CONTENT,
    KIND,
    SHUNT_SOURCE,
    TRACEPARENT,
)
from stream_app.codec.times import rfc3339
from stream_app.errors import UnreadableRecord
from stream_app.events import (
    Answer,
    Cut,
    DecidedBy,
    Decision,
    DegradedReason,
    EscalatedBecause,
    Headers,
    Kind,
    Said,
    Source,
    Tombstone,
    UncertifiedReason,
    Usage,
)

PROBABILITY_STEPS: Final = 1e6
"""Probabilities leave with six digits: finer than any calibration, and a third of the bytes."""

TOMBSTONE_TYPE: Final = b"shunt.tombstone"
_SPECVERSION: Final = (CE_SPECVERSION, b"1.0")
_CONTENT: Final = (CONTENT_TYPE, JSON_CONTENT)
DECISION_TYPES: Final = {kind: f"shunt.decision.{kind.value}".encode() for kind in Kind}


def rounded(probability: float) -> float:
    """To six digits, in the one way that numpy's `rint` reproduces bit by bit."""
    return round(probability * PROBABILITY_STEPS) / PROBABILITY_STEPS


def encode_decision(decision: Decision, ce_source: bytes) -> tuple[bytes, Headers]:
    """Value and headers of a decision.

    Probabilities must be finite. `enrichment` may hold what Python's `json` reads: integers of any size
    stay, NaN and infinities become null, unpaired surrogates become question marks.
    """
    value = {
        "id": decision.event.id,
        "kind": decision.kind.value,
        "revision": decision.revision,
        "replaces": decision.replaces,
        "pending": decision.pending,
        "decided_by": decision.decided_by,
        "policy": decision.policy,
        "certified": decision.certified,
        "degraded": decision.degraded,
        "degraded_reason": decision.degraded_reason,
        "answers": {task: answer_json(answer) for task, answer in decision.answers.items()},
        "enrichment": _any_json(decision.enrichment),
        "usage": decision.usage,
        "recommended_action": decision.recommended_action,
        "source": source_json(decision.event.source),
        "decided_at": rfc3339(decision.decided_at_ms).decode(),
        "payload": orjson.Fragment(decision.event.payload),
    }
    # A copy: what orjson gives keeps a buffer of 16 KB each, and thousands of decisions may wait for their commit.
    return bytes(memoryview(orjson.dumps(value))), _decision_headers(decision, ce_source)


def tombstone_headers(tombstone: Tombstone, ce_source: bytes) -> Headers:
    """Headers of the tombstone that answers a tombstone; its value is null and its key the input's."""
    ref = tombstone.source.ref.encode()
    return (
        _SPECVERSION,
        (CE_ID, ref + b"#0"),
        (CE_TYPE, TOMBSTONE_TYPE),
        (CE_SOURCE, ce_source),
        (CE_TIME, rfc3339(tombstone.source.timestamp_ms)),
        (SHUNT_SOURCE, ref),
    )


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as it stands in a decision."""
    told: dict[str, Any] = {
        "label": answer.label,
        "confidence": None if answer.confidence is None else rounded(answer.confidence),
        "probabilities": {label: rounded(share) for label, share in answer.probabilities.items()},
        "threshold": answer.threshold,
        "decided_by": answer.decided_by,
        "model": answer.model,
        "certified": answer.certified,
        "escalated_because": answer.escalated_because,
        "policy": answer.policy,
    }
    if answer.uncertified_reason is not None:
        told["uncertified_reason"] = answer.uncertified_reason
    if answer.votes is not None:
        told["votes"] = answer.votes
    return told


def source_json(source: Source) -> dict[str, Any]:
    """A source as it stands in a decision."""
    return {
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "timestamp": rfc3339(source.timestamp_ms).decode(),
    }


def _decision_headers(decision: Decision, ce_source: bytes) -> Headers:
    ref = decision.event.source.ref
    headers = (
        _SPECVERSION,
        (CE_ID, f"{ref}#{decision.revision}".encode()),
        (CE_SUBJECT, decision.event.id.encode()),
        (CE_TYPE, DECISION_TYPES[decision.kind]),
        (CE_SOURCE, ce_source),
        (CE_TIME, rfc3339(decision.decided_at_ms)),
        _CONTENT,
        (KIND, decision.kind.value.encode()),
        (SHUNT_SOURCE, ref.encode()),
    )
    trace = decision.event.traceparent
    return headers if trace is None else (*headers, (TRACEPARENT, trace))


def _any_json(value: dict[str, object]) -> orjson.Fragment:
    """`value` as JSON. An LLM wrote it: orjson refuses its integers past 64 bits and lone surrogates."""
    try:
        return orjson.Fragment(orjson.dumps(value))
    except orjson.JSONEncodeError:
        without_nan = json.loads(json.dumps(value), parse_constant=lambda _: None)
        text = json.dumps(without_nan, ensure_ascii=False, separators=(",", ":"))
        return orjson.Fragment(text.encode("utf-8", "replace"))


class SourceMessage(msgspec.Struct, frozen=True):
    """The `source` of a decision as a consumer reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: str

    @property
    def ref(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class AnswerMessage(msgspec.Struct, frozen=True):
    """One answer of a decision as a consumer reads it."""

    label: Said
    confidence: float | None
    probabilities: dict[str, float]
    threshold: Cut
    decided_by: DecidedBy
    model: str
    certified: bool | None
    escalated_because: EscalatedBecause | None
    policy: str | None = None
    uncertified_reason: UncertifiedReason | None = None
    votes: dict[str, Said | None] | None = None


class DecisionMessage(msgspec.Struct, frozen=True):
    """A decision as a consumer reads it; `payload` stays raw. Fields it does not know are passed over."""

    id: str
    kind: Literal["provisional", "final", "correction"]
    revision: int
    replaces: int | None
    pending: tuple[str, ...]
    decided_by: DecidedBy
    policy: str | None
    certified: bool | None
    degraded: bool
    degraded_reason: DegradedReason | None
    answers: dict[str, AnswerMessage]
    enrichment: msgspec.Raw
    usage: Usage | None
    recommended_action: str | None
    source: SourceMessage
    decided_at: str
    payload: msgspec.Raw


_decode_decision = msgspec.json.Decoder(DecisionMessage).decode


def decode_decision(value: bytes) -> DecisionMessage:
    """Reads a decision. Raises UnreadableRecord (`bad_decision`) for anything else."""
    try:
        return _decode_decision(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecord("bad_decision", str(error)) from error

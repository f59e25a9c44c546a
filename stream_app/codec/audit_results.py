"""What audits came to, on the wire (schemas/audit-result.schema.json)."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from stream_app.codec.dead_letters import record_batch_bytes
from stream_app.codec.decisions import SourceMessage, rounded
from stream_app.codec.headers import CONTENT_TYPE, JSON_CONTENT, SHUNT_SOURCE
from stream_app.codec.times import rfc3339
from stream_app.errors import UnreadableRecord
from stream_app.events import Audit, AuditReason, Feedback, Headers, Said, each_label


class AcceptedMessage(msgspec.Struct, frozen=True):
    """The answer that was accepted."""

    label: Said
    confidence: float
    probabilities: dict[str, float]
    model: str


class AuditResultMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit of one accepted answer came to. `label` is null, and `reason` says why, where nobody answered."""

    id: str
    task: str
    by: Literal["llm", "human"]
    result: Literal["agree", "disagree", "no_answer"]
    label: Said | None
    reason: AuditReason | None = None
    model: str | None = None
    small: AcceptedMessage
    policy: str | None
    source: SourceMessage
    at: str


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AuditResultMessage).decode


def llm_result(
    audit: Audit,
    task: str,
    event_id: str,
    label: Said | None,
    reason: AuditReason | None,
    model: str | None,
    at_ms: int,
) -> AuditResultMessage:
    """What the LLM's `label` says of a task's accepted answer; without one, for which `reason`."""
    small, source = audit.answers[task], audit.source
    return AuditResultMessage(
        id=event_id,
        task=task,
        by="llm",
        result="no_answer" if label is None else _agreement(label, small.label),
        label=label,
        reason=reason,
        model=model,
        small=_accepted(small.label, small.confidence or 0.0, small.probabilities, small.model),
        policy=small.policy,
        source=SourceMessage(source.topic, source.partition, source.offset, rfc3339(source.timestamp_ms).decode()),
        at=rfc3339(at_ms).decode(),
    )


def persons_result(row: Feedback, policy: str | None) -> AuditResultMessage:
    """What a person's label says of the answer that `policy` accepted: `row` is what is kept of it to train on.

    Raises ValueError for a row without a label.
    """
    if row.label is None:
        raise ValueError(f"the feedback row of {row.source.ref} has no label")
    small, source = row.small, row.source
    return AuditResultMessage(
        id=row.id,
        task=row.task,
        by="human",
        result=_agreement(row.label, small.label),
        label=row.label,
        small=_accepted(small.label, small.confidence, small.probabilities, small.model),
        policy=policy,
        source=SourceMessage(source.topic, source.partition, source.offset, rfc3339(source.timestamp_ms).decode()),
        at=rfc3339(row.at_ms).decode(),
    )


def _agreement(label: Said, accepted: Said) -> Literal["agree", "disagree"]:
    """Several labels agree where they are the same ones."""
    return "agree" if set(each_label(label)) == set(each_label(accepted)) else "disagree"


def _accepted(label: Said, confidence: float, probabilities: Mapping[str, float], model: str) -> AcceptedMessage:
    return AcceptedMessage(
        label, rounded(confidence), {name: rounded(share) for name, share in probabilities.items()}, model
    )


def audit_result_record(result: AuditResultMessage, bytes_max: int) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers. The key is the source: an event's own key, or id, may be as large as the event.

    Where the id would make a record batch larger than `bytes_max`, the source stands in its place.
    """
    key = result.source.ref.encode()
    value, headers = encode_audit_result(result)
    if record_batch_bytes(key, value, headers) > bytes_max:
        value, headers = encode_audit_result(msgspec.structs.replace(result, id=result.source.ref))
    return key, value, headers


def encode_audit_result(result: AuditResultMessage) -> tuple[bytes, Headers]:
    """Value and headers of the record."""
    return _encode(result), ((CONTENT_TYPE, JSON_CONTENT), (SHUNT_SOURCE, result.source.ref.encode()))


def decode_audit_result(value: bytes | None) -> AuditResultMessage:
    """The inverse. Raises UnreadableRecord (`bad_audit_result`) for anything else."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecord("bad_audit_result", str(error)) from error

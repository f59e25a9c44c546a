"""What audits came to, on the wire (schemas/audit-result.schema.json)."""

from typing import Final, Literal

import msgspec

from stream_app.codec.decisions import SourceMessage, rounded
from stream_app.codec.headers import CONTENT_TYPE, JSON_CONTENT, SHUNT_SOURCE
from stream_app.codec.times import rfc3339
from stream_app.errors import UnreadableRecord
from stream_app.events import Audit, AuditReason, Headers, Said, each_label


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
    """What the LLM's `label` says of a task's accepted answer; without one, for which `reason`.

    Several labels agree where they are the same ones.
    """
    small, source = audit.answers[task], audit.source
    same = label is not None and set(each_label(label)) == set(each_label(small.label))
    agrees = "agree" if same else "disagree"
    return AuditResultMessage(
        id=event_id,
        task=task,
        by="llm",
        result="no_answer" if label is None else agrees,
        label=label,
        reason=reason,
        model=model,
        small=AcceptedMessage(
            small.label,
            rounded(small.confidence or 0.0),
            {name: rounded(share) for name, share in small.probabilities.items()},
            small.model,
        ),
        policy=small.policy,
        source=SourceMessage(source.topic, source.partition, source.offset, rfc3339(source.timestamp_ms).decode()),
        at=rfc3339(at_ms).decode(),
    )


def encode_audit_result(result: AuditResultMessage) -> tuple[bytes, Headers]:
    """Value and headers of the record."""
    return _encode(result), ((CONTENT_TYPE, JSON_CONTENT), (SHUNT_SOURCE, result.source.ref.encode()))


def decode_audit_result(value: bytes | None) -> AuditResultMessage:
    """The inverse. Raises UnreadableRecord (`bad_audit_result`) for anything else."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecord("bad_audit_result", str(error)) from error

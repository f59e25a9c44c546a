"""The wire format, known here and nowhere else. Pure: no I/O, no clock. What it is, and every cause of an
unreadable record, stands in docs/messages.md; the schemas in `schemas/` are checked against it.

The hot path's encoder, `codec.finals`, is imported by itself: it alone takes numpy, and commands that only read or
write records start faster without.
"""

from stream_app.codec.audit_results import (
    AuditResultMessage,
    audit_result_record,
    decode_audit_result,
    encode_audit_result,
    llm_result,
    persons_result,
)
from stream_app.codec.audits import decode_audit, encode_audit
from stream_app.codec.codec import Codec
from stream_app.codec.dead_letters import (
    Cause,
    DeadLetterMessage,
    DeadRecord,
    cause_of,
    dead_letter,
    dead_letter_headers,
    decode_dead_letter,
    record_batch_bytes,
)
from stream_app.codec.decisions import AnswerMessage, DecisionMessage, SourceMessage, decode_decision
from stream_app.codec.escalations import EscalatedRecord, decode_escalation, encode_escalation
from stream_app.codec.feedback import decode_feedback, encode_feedback, feedback_key
from stream_app.codec.headers import RecordHeaders
from stream_app.codec.parked import decode_parked, encode_parked
from stream_app.codec.times import rfc3339, timestamp_ms
from stream_app.codec.verdicts import (
    decode_verdict,
    encode_verdict,
    parked_at,
    verdict_of,
    with_parked_at,
    with_verdict,
)

__all__ = [
    "AnswerMessage",
    "AuditResultMessage",
    "Cause",
    "Codec",
    "DeadLetterMessage",
    "DeadRecord",
    "DecisionMessage",
    "EscalatedRecord",
    "RecordHeaders",
    "SourceMessage",
    "audit_result_record",
    "cause_of",
    "dead_letter",
    "dead_letter_headers",
    "decode_audit",
    "decode_audit_result",
    "decode_dead_letter",
    "decode_decision",
    "decode_escalation",
    "decode_feedback",
    "decode_parked",
    "decode_verdict",
    "encode_audit",
    "encode_audit_result",
    "encode_escalation",
    "encode_feedback",
    "encode_parked",
    "encode_verdict",
    "feedback_key",
    "llm_result",
    "parked_at",
    "persons_result",
    "record_batch_bytes",
    "rfc3339",
    "timestamp_ms",
    "verdict_of",
    "with_parked_at",
    "with_verdict",
]

"""One record as one line: for a person, or as JSON for a program. What others wrote cannot steer a terminal."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import orjson

from stream_app.codec import decode_dead_letter, decode_decision
from stream_app.errors import UnreadableRecord
from stream_app.events import in_words

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import AnswerMessage, DecisionMessage

    Record = ConsumerRecord[bytes | None, bytes | None]

VALUE_CHARS_MAX = 160


def printable(text: str, chars_max: int | None = None) -> str:
    """`text` with everything escaped that is not a printable character, cut after `chars_max`."""
    cut = text if chars_max is None or len(text) <= chars_max else text[:chars_max] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)


def json_line(record: Record) -> str:
    """The record's value where it is a JSON object, else where it stands and its bytes in base64."""
    try:
        if isinstance(orjson.loads(record.value or b""), dict):
            # A line for each record: a value written over several lines has whitespace to spare between tokens.
            return (record.value or b"").replace(b"\n", b" ").replace(b"\r", b" ").decode()
    except orjson.JSONDecodeError:
        pass
    return orjson.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key_base64": _base64(record.key),
            "value_base64": _base64(record.value),
        }
    ).decode()


def readable_line(record: Record) -> str:
    """A decision, a dead letter, or any record, as a person reads it."""
    if record.value is None:
        return f"{_place(record)}  tombstone  {_text(record.key)}"
    try:
        return decision_line(decode_decision(record.value))
    except UnreadableRecord:
        pass
    try:
        cause = decode_dead_letter(record.headers).cause
        return f"{_place(record)}  {cause.stage}: {cause.name}  {printable(cause.message, VALUE_CHARS_MAX)}"
    except UnreadableRecord:
        return f"{_place(record)}  {_text(record.key)}  {_text(record.value)}"


def decision_line(decision: DecisionMessage) -> str:
    """When, whose, what kind, each task's answer with who gave it, and what it cost."""
    answers = "  ".join(f"{task}={_answer(answer)}" for task, answer in decision.answers.items())
    kind = "" if decision.kind == "final" else f"  [{decision.kind} {decision.revision}]"
    degraded = f"  degraded ({decision.degraded_reason})" if decision.degraded else ""
    cost = f"  ${decision.usage.cost_usd:.6f}" if decision.usage else ""
    clock = decision.decided_at[11:19]
    return f"{clock}  {printable(decision.id, 40):<16}  {answers}{cost}{kind}{degraded}"


def _answer(answer: AnswerMessage) -> str:
    sure = "" if answer.confidence is None else f" {answer.confidence:.3f}"
    return f"{printable(in_words(answer.label), 60)}{sure} ({answer.decided_by})"


def _place(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _text(raw: bytes | None) -> str:
    return (
        "-"
        if raw is None
        else printable(raw[: 4 * VALUE_CHARS_MAX].decode("utf-8", "backslashreplace"), VALUE_CHARS_MAX)
    )


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()

"""Feedback rows to bytes and back (schemas/feedback.schema.json): labels given after the fact, to train on."""

from typing import Annotated, Any, Final

import msgspec
import orjson

from stream_app.codec.decisions import SourceMessage, rounded, source_json
from stream_app.codec.headers import CONTENT_TYPE, JSON_CONTENT, SHUNT_SOURCE
from stream_app.codec.times import rfc3339, timestamp_ms
from stream_app.errors import UnreadableRecord
from stream_app.events import REASON_CHARS_MAX, Feedback, Headers, LabelledBy, Said, SmallOpinion, Source, WhyLabelled


class _Row(msgspec.Struct, frozen=True):
    """A row as it stands on the topic. Fields it does not know are passed over."""

    id: str
    task: str
    text: str
    label: Said | None
    labelled_by: LabelledBy
    why: WhyLabelled
    model: str | None
    small: SmallOpinion
    policy: str | None
    revision: int
    source: SourceMessage
    at: str
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)] | None = None


_decode: Final = msgspec.json.Decoder(_Row).decode


def feedback_key(event_id: str) -> bytes:
    """The key of all rows of an event: they stand in one partition, and a null value under it erases them."""
    return event_id.encode("utf-8", "replace")


def encode_feedback(row: Feedback) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers. Probabilities leave with six digits."""
    value: dict[str, Any] = {
        "id": row.id,
        "task": row.task,
        "text": row.text,
        "label": row.label,
        **({} if row.label is None or isinstance(row.label, str) else {"labels": _marks(row.label, row.small)}),
        "labelled_by": row.labelled_by,
        "why": row.why,
        "model": row.model,
        **({} if row.reason is None else {"reason": row.reason}),
        "small": {
            "label": row.small.label,
            "confidence": rounded(row.small.confidence),
            "probabilities": {label: rounded(share) for label, share in row.small.probabilities.items()},
            "model": row.small.model,
        },
        "policy": row.policy,
        "revision": row.revision,
        "source": source_json(row.source),
        "at": rfc3339(row.at_ms).decode(),
    }
    headers = ((CONTENT_TYPE, JSON_CONTENT), (SHUNT_SOURCE, row.source.ref.encode()))
    # A copy: what orjson gives keeps a buffer of 16 KB, and rows wait for their commit.
    return feedback_key(row.id), bytes(memoryview(orjson.dumps(value))), headers


def decode_feedback(value: bytes) -> Feedback:
    """Reads a row. Raises UnreadableRecord (`bad_feedback`) for anything else."""
    try:
        row = _decode(value)
        source, at_ms = _source(row.source), timestamp_ms(row.at)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnreadableRecord("bad_feedback", str(error)) from error
    if problem := _problem(row):
        raise UnreadableRecord("bad_feedback", problem)
    return Feedback(
        id=row.id,
        task=row.task,
        text=row.text,
        label=row.label,
        labelled_by=row.labelled_by,
        why=row.why,
        model=row.model,
        small=row.small,
        policy=row.policy,
        revision=row.revision,
        source=source,
        at_ms=at_ms,
        reason=row.reason,
    )


def _marks(said: tuple[str, ...], small: SmallOpinion) -> dict[str, bool]:
    """Each label of an `any_of` task: whether it applies, as such a row is read to train on."""
    return {label: label in said for label in (*small.probabilities, *said)}


def _source(told: SourceMessage) -> Source:
    return Source(told.topic, told.partition, told.offset, timestamp_ms(told.timestamp))


def _problem(row: _Row) -> str | None:
    """What the schema asks beyond types."""
    if not row.id or not row.text.strip():
        return "a row without id or text"
    if row.labelled_by == "human" and (row.label is None or row.model is not None):
        return "a person gives a label, and has no model's name"
    if row.labelled_by == "human" and row.reason is not None:
        return "a reason is what an LLM gives"
    if row.labelled_by == "llm" and row.model is None:
        return "an LLM's label without the LLM's name"
    return None

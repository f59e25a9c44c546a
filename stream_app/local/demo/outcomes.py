"""What became of a record, read back from the output topics as any consumer would read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.codec import decode_dead_letter, decode_decision, timestamp_ms
from stream_app.codec.headers import SHUNT_SOURCE, last_by_name
from stream_app.events import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.codec import AnswerMessage, RecordHeaders
    from stream_app.events import Said, Usage


@dataclass(frozen=True, slots=True)
class Reply:
    """One task's answer in a decision; `probabilities` are the small model's."""

    task: str
    label: str
    confidence: float | None
    probabilities: Mapping[str, float]
    threshold: float | None
    decided_by: str
    model: str
    certified: bool | None
    escalated_because: str | None
    votes: Mapping[str, str | None] | None

    @property
    def small_label(self) -> str:
        """What the small model alone would have answered."""
        return max(self.probabilities, key=lambda label: self.probabilities[label], default=self.label)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision. `source` is `topic/partition/offset`; `latency_ms` runs from the record's timestamp."""

    source: str
    id: str
    kind: str
    revision: int
    decided_by: str
    policy: str | None
    certified: bool | None
    degraded_reason: str | None
    replies: tuple[Reply, ...]
    call: Usage | None
    latency_ms: int

    @property
    def final(self) -> bool:
        """Whether this is the record's one final decision."""
        return self.kind == "final"

    @property
    def escalated(self) -> bool:
        """Whether any task went to the LLM lane."""
        return any(reply.escalated_because is not None for reply in self.replies)


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: where the record stood, what was wrong with it, and how its value begins."""

    source: str
    stage: str
    cause: str
    message: str
    value_start: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A tombstone that passed through."""

    source: str


Outcome = Decided | Dead | Passed


def decided_or_passed(value: bytes | None, headers: RecordHeaders) -> Decided | Passed:
    """A record of the decisions topic."""
    if value is None:
        return Passed(last_by_name(headers).get(SHUNT_SOURCE, b"").decode("utf-8", "replace"))
    told = decode_decision(value)
    return Decided(
        source=told.source.ref,
        id=told.id,
        kind=told.kind,
        revision=told.revision,
        decided_by=told.decided_by,
        policy=told.policy,
        certified=told.certified,
        degraded_reason=told.degraded_reason,
        replies=tuple(_reply(task, answer) for task, answer in sorted(told.answers.items())),
        call=told.usage,
        latency_ms=timestamp_ms(told.decided_at) - timestamp_ms(told.source.timestamp),
    )


def dead(value: bytes | None, headers: RecordHeaders) -> Dead:
    """A record of the dead-letter topic."""
    told = decode_dead_letter(headers)
    return Dead(
        source=f"{told.topic}/{told.partition}/{told.offset}",
        stage=told.cause.stage,
        cause=told.cause.name,
        message=told.cause.message,
        value_start=(value or b"")[:200].decode("utf-8", errors="replace"),
    )


def _reply(task: str, answer: AnswerMessage) -> Reply:
    return Reply(
        task=task,
        label=in_words(answer.label),
        confidence=answer.confidence,
        probabilities=answer.probabilities,
        threshold=None if isinstance(answer.threshold, dict) else answer.threshold,
        decided_by=answer.decided_by,
        model=answer.model,
        certified=answer.certified,
        escalated_because=answer.escalated_because,
        votes=None if answer.votes is None else {model: _word(said) for model, said in answer.votes.items()},
    )


def _word(said: Said | None) -> str | None:
    return None if said is None else in_words(said)

"""What became of a record, read back from the output topics as any consumer would read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DLQ_PREFIX = "__connect.errors."


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
class Call:
    """What the LLM took for an event."""

    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_ms: float
    cached: bool


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
    call: Call | None
    latency_ms: float

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


def decided_or_passed(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Decided | Passed:
    """A record of the decisions topic."""
    if value is None:
        return Passed(_header(headers, "shunt-source"))
    told = json.loads(value)
    source = told["source"]
    return Decided(
        source=f"{source['topic']}/{source['partition']}/{source['offset']}",
        id=told["id"],
        kind=told["kind"],
        revision=told["revision"],
        decided_by=told["decided_by"],
        policy=told["policy"],
        certified=told["certified"],
        degraded_reason=told["degraded_reason"],
        replies=tuple(_reply(task, answer) for task, answer in told["answers"].items()),
        call=_call(told["usage"]),
        latency_ms=_ms(told["decided_at"]) - _ms(source["timestamp"]),
    )


def dead(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Dead:
    """A record of the dead-letter topic; its cause stands in the headers, as Kafka Connect names them."""
    where = "/".join(_header(headers, DLQ_PREFIX + part) for part in ("topic", "partition", "offset"))
    return Dead(
        source=where,
        stage=_header(headers, DLQ_PREFIX + "stage"),
        cause=_header(headers, DLQ_PREFIX + "exception.class.name").rpartition(".")[2],
        message=_header(headers, DLQ_PREFIX + "exception.message"),
        value_start=(value or b"")[:200].decode("utf-8", errors="replace"),
    )


def _reply(task: str, answer: dict[str, Any]) -> Reply:
    return Reply(
        task=task,
        label=answer["label"],
        confidence=answer["confidence"],
        probabilities=answer["probabilities"],
        threshold=answer["threshold"],
        decided_by=answer["decided_by"],
        model=answer["model"],
        certified=answer["certified"],
        escalated_because=answer["escalated_because"],
        votes=answer.get("votes"),
    )


def _call(usage: dict[str, Any] | None) -> Call | None:
    if usage is None:
        return None
    return Call(
        model=usage["model"],
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cost_usd=usage["cost_usd"],
        latency_ms=usage["latency_ms"],
        cached=usage["cached"],
    )


def _header(headers: Sequence[tuple[str, bytes]], name: str) -> str:
    """The last header of that name, empty where there is none."""
    return next((value.decode("utf-8", "replace") for key, value in reversed(headers) if key == name), "")


def _ms(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() * 1000

"""From a decision and a person's verdict to the correction that replaces it. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from stream_app.codec import timestamp_ms
from stream_app.events import Answer, Decision, Event, Kind, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.codec import DecisionMessage
    from stream_app.events import Said, Verdict

PERSON = "person"
"""Stands where an answer names its model."""


def overruled(
    newest: DecisionMessage,
    verdict: Verdict,
    decided_at_ms: int,
    recommend: Callable[[Sequence[Said]], str | None],
    key: bytes | None,
    traceparent: bytes | None,
) -> Decision | None:
    """The correction that the verdict makes of the record's newest decision; None where a person had said the same.

    The other answers stand as they were. What an LLM call cost stays with the decision that it was made for. KeyError
    where the decision has no such task.
    """
    old = newest.answers[verdict.task]
    if old.decided_by == "human" and old.label == verdict.label:
        return None
    answers = {task: Answer(**msgspec.structs.asdict(answer)) for task, answer in newest.answers.items()}
    votes = {old.model: old.label} if old.decided_by == "small" else old.votes
    answers[verdict.task] = replace(
        answers[verdict.task],
        votes=votes,
        label=verdict.label,
        confidence=None,
        decided_by="human",
        model=PERSON,
        certified=None,
        uncertified_reason=None,
    )
    small = [answer for answer in answers.values() if answer.decided_by == "small"]
    degraded = newest.degraded and any(answer.escalated_because is not None for answer in small)
    return Decision(
        event=_event(newest, key, traceparent),
        kind=Kind.CORRECTION,
        revision=newest.revision + 1,
        replaces=newest.revision,
        decided_by="human",
        answers=answers,
        policy=newest.policy,
        certified=all(answer.certified for answer in small) if small else None,
        decided_at_ms=decided_at_ms,
        degraded=degraded,
        degraded_reason=newest.degraded_reason if degraded else None,
        enrichment=json.loads(bytes(newest.enrichment)),  # an LLM's integers may be of any size
        recommended_action=recommend([answer.label for answer in answers.values()]),
    )


def _event(newest: DecisionMessage, key: bytes | None, traceparent: bytes | None) -> Event:
    """The event as far as a decision tells of it: its text stands in none."""
    source = newest.source
    stood = Source(source.topic, source.partition, source.offset, timestamp_ms(source.timestamp))
    return Event(newest.id, "", bytes(newest.payload), stood, key, traceparent)

"""Makes what the live view folds: decisions and dead letters as a consumer reads them."""

from __future__ import annotations

import msgspec

from stream_app.codec import AnswerMessage, Cause, DeadLetterMessage, DecisionMessage, SourceMessage, rfc3339
from stream_app.events import Said, Usage

NOW_MS = 1_800_000_000_000


def decision(
    at_ms: int = NOW_MS,
    *,
    offset: int = 0,
    event_id: str = "r-1",
    kind: str = "final",
    decided_by: str = "small",
    degraded: str | None = None,
    took_ms: int = 10,
    cost_usd: float | None = None,
    label: Said = "positive",
    payload: bytes = b"{}",
) -> DecisionMessage:
    asked = decided_by == "llm" or degraded is not None
    answer = AnswerMessage(
        label=label,
        confidence=None if decided_by == "llm" else 0.97,
        probabilities={"negative": 0.03, "positive": 0.97},
        threshold=0.9,
        decided_by=decided_by,
        model="sentiment_fast:1",
        certified=True,
        escalated_because="unsure" if asked else None,
    )
    usage = None
    if cost_usd is not None:
        usage = Usage("gpt-4o-mini", "p", 200, 10, cost_usd, 700.0, cached=cost_usd == 0, request_id=None)
    return DecisionMessage(
        id=event_id,
        kind=kind,
        revision=0,
        replaces=None,
        pending=(),
        decided_by=decided_by,
        policy=None,
        certified=True,
        degraded=degraded is not None,
        degraded_reason=degraded,
        answers={"sentiment": answer},
        enrichment=msgspec.Raw(b"{}"),
        usage=usage,
        recommended_action=None,
        source=SourceMessage("reviews", 0, offset, rfc3339(at_ms - took_ms).decode()),
        decided_at=rfc3339(at_ms).decode(),
        payload=msgspec.Raw(payload),
    )


def dead_letter(offset: int = 0, cause: str = "not_json", message: str = "no JSON") -> DeadLetterMessage:
    told = Cause("decode", cause, "UnreadableRecord", message)
    return DeadLetterMessage("reviews", 1, offset, told, truncated=False, original=())

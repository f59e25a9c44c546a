"""The live view: decisions, escalations and dead letters folded into the figures that the live page shows. Pure.

Memory is bounded whatever the stream does: an hour of one-second counters, the newest records, and the newest
latencies. Times are milliseconds since the epoch and arguments; nothing here reads a clock.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stream_app.codec.times import timestamp_ms
from stream_app.events import each_label, in_words
from stream_app.web.seconds import FINALS, HOUR_S, RATE_WINDOW_S, Column, InputRate, Seconds

if TYPE_CHECKING:
    from stream_app.codec.dead_letters import DeadLetterMessage
    from stream_app.codec.decisions import AnswerMessage, DecisionMessage

SHARE_WINDOW_S = 60
SERIES_S = 120
"""How much the sparklines show."""
DECISIONS_SHOWN = 30
DEAD_LETTERS_SHOWN = 10
LATENCIES_KEPT = 2_000
"""Of each route: enough for a p99 with 20 values above it."""
LATENCY_WINDOW_S = 300
NAMES_MAX = 200
"""Labels and causes come from outside; no more different ones than this are counted."""
PAYLOAD_BYTES_MAX = 4_096
"""A larger payload is not searched for something to show."""
SHOWN_PAYLOAD_FIELDS = ("product", "title", "name")
TEXT_CHARS_MAX = 120


class LiveView:
    """What the live page shows. Fold records in, in any order; `snapshot` says how things stand."""

    def __init__(self, input_topic: str, usd_per_hour: float, llm_model: str) -> None:
        self._input_topic = input_topic
        self._usd_per_hour = usd_per_hour
        self._llm_model = llm_model
        self.stand_in = False
        self.lag: dict[str, int | None] = {"classify": None, "escalate": None}
        self.input_rate = InputRate()
        self._seconds = Seconds()
        self._latencies_ms = {route: deque[tuple[int, int]](maxlen=LATENCIES_KEPT) for route in ("small", "llm")}
        self._labels: Counter[tuple[str, str]] = Counter()
        self._causes: Counter[str] = Counter()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=DECISIONS_SHOWN)
        self._dead: deque[dict[str, Any]] = deque(maxlen=DEAD_LETTERS_SHOWN)
        self._totals: Counter[str] = Counter()

    def decided(self, decision: DecisionMessage) -> None:
        """A decision was published."""
        at_ms = timestamp_ms(decision.decided_at)
        route = route_of(decision)
        latency_ms = max(0, at_ms - timestamp_ms(decision.source.timestamp))
        if decision.kind == "final":
            self._totals["decisions"] += 1
            self._seconds.add(at_ms, Column[route.upper()])
            self._latencies_ms["small" if route == "small" else "llm"].append((at_ms, latency_ms))
            for task, answer in decision.answers.items():
                for label in each_label(answer.label) or (in_words(()),):
                    _count(self._labels, (task, label))
        if decision.usage is not None and decision.kind != "provisional":
            self._seconds.add(at_ms, Column.COST_USD, decision.usage.cost_usd)
            self._seconds.add(at_ms, Column.ASKED)
        self._decisions.append(_shown(decision, route, latency_ms, at_ms))

    def escalated(self, at_ms: int) -> None:
        """An event was sent to the LLM lane."""
        self._seconds.add(at_ms, Column.ESCALATED)

    def dead(self, letter: DeadLetterMessage, at_ms: int) -> None:
        """A record became a dead letter."""
        self._totals["dead"] += 1
        self._seconds.add(at_ms, Column.DEAD)
        _count(self._causes, letter.cause.name)
        self._dead.append(
            {
                "source": f"{letter.topic}/{letter.partition}/{letter.offset}",
                "cause": letter.cause.name,
                "stage": letter.cause.stage,
                "message": letter.cause.message[:TEXT_CHARS_MAX],
                "at_ms": at_ms,
            }
        )

    def tombstone(self) -> None:
        """A null value was passed on."""
        self._totals["tombstones"] += 1

    def snapshot(self, now_ms: int) -> dict[str, Any]:
        """All figures at `now_ms`, ready for JSON. A figure that is not known yet is null."""
        hour = self._seconds.last(now_ms, HOUR_S)
        series = hour[-SERIES_S:]
        return {
            "now_ms": now_ms,
            "topics": {"input": self._input_topic},
            "llm": {"model": self._llm_model, "stand_in": self.stand_in},
            "totals": {name: self._totals[name] for name in ("decisions", "dead", "tombstones")},
            "hour": {column.name.lower(): int(hour[:, column].sum()) for column in (*FINALS, Column.DEAD)},
            "rates": self._rates(hour[-RATE_WINDOW_S:], now_ms),
            "share_escalated": _share_escalated(hour[-SHARE_WINDOW_S:]),
            "series": {
                "events": series[:, FINALS].sum(axis=1).astype(int).tolist(),
                "share": [_share_escalated(series[at - 4 : at + 1]) for at in range(4, SERIES_S)],
            },
            "spend": self._spend(hour),
            "latency_ms": {
                route: _percentiles([took for at_ms, took in kept if at_ms >= now_ms - LATENCY_WINDOW_S * 1000])
                for route, kept in self._latencies_ms.items()
            },
            "lag": dict(self.lag),
            "labels": _by_task(self._labels),
            "decisions": list(reversed(self._decisions)),
            "dead": list(reversed(self._dead)),
            "causes": dict(self._causes.most_common(DEAD_LETTERS_SHOWN)),
        }

    def _rates(self, window: Any, now_ms: int) -> dict[str, float | None]:
        per_s = window.sum(axis=0) / len(window)
        return {
            "input": self.input_rate.per_s(now_ms),
            "small": float(per_s[Column.SMALL]),
            "escalated": float(per_s[Column.ESCALATED]),
            "llm": float(per_s[[Column.LLM, Column.DEGRADED]].sum()),
            "dead": float(per_s[Column.DEAD]),
        }

    def _spend(self, hour: Any) -> dict[str, float | None]:
        """What the hour cost, against asking the LLM about every event, at what one that was asked cost here.

        Answers from the cache count as asked: an LLM alone would have a cache too.
        """
        cost_usd = float(hour[:, Column.COST_USD].sum())
        asked = float(hour[:, Column.ASKED].sum())
        finals = float(hour[:, FINALS].sum())
        llm_only_usd = cost_usd / asked * finals if asked else None
        return {
            "hour_usd": cost_usd,
            "budget_hour_usd": self._usd_per_hour,
            "llm_only_usd": llm_only_usd,
            "saved": 1 - cost_usd / llm_only_usd if llm_only_usd else None,
        }


def route_of(decision: DecisionMessage) -> str:
    """By which way a decision came: `small`, `llm`, `degraded` or `human`."""
    if decision.degraded:
        return "degraded"
    return decision.decided_by


def _shown(decision: DecisionMessage, route: str, latency_ms: int, at_ms: int) -> dict[str, Any]:
    return {
        "id": decision.id[:TEXT_CHARS_MAX],
        "about": _about(decision.payload),
        "kind": decision.kind,
        "route": route,
        "reason": decision.degraded_reason or _because(decision),
        "answers": {task: _answer(answer) for task, answer in decision.answers.items()},
        "cost_usd": decision.usage.cost_usd if decision.usage is not None else 0.0,
        "cached": decision.usage is not None and decision.usage.cached,
        "certified": decision.certified,
        "latency_ms": latency_ms,
        "source": decision.source.ref,
        "at_ms": at_ms,
    }


def _answer(answer: AnswerMessage) -> dict[str, Any]:
    return {"label": in_words(answer.label), "confidence": answer.confidence, "by": answer.decided_by}


def _because(decision: DecisionMessage) -> str | None:
    """Why it was escalated, if it was."""
    reasons = (answer.escalated_because for answer in decision.answers.values())
    return next((reason for reason in reasons if reason is not None), None)


def _about(payload: msgspec.Raw) -> str | None:
    """What the event is about, where its payload says so in a field we would guess."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        return None
    try:
        fields = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = (fields.get(name) for name in SHOWN_PAYLOAD_FIELDS)
    return next((text[:TEXT_CHARS_MAX] for text in found if isinstance(text, str)), None)


def _share_escalated(window: Any) -> float | None:
    escalated = float(window[:, Column.ESCALATED].sum())
    decided = escalated + float(window[:, Column.SMALL].sum())
    return escalated / decided if decided else None


def _percentiles(values_ms: list[int]) -> dict[str, float | None]:
    if not values_ms:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(values_ms, [50, 99]).tolist()
    return {"p50": p50, "p99": p99}


def _by_task(labels: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = {}
    for (task, label), n in sorted(labels.items()):
        told.setdefault(task, {})[label] = n
    return told


def _count(counter: Counter[Any], name: Any) -> None:
    """Count `name`, unless it would be one different name too many."""
    if name in counter or len(counter) < NAMES_MAX:
        counter[name] += 1

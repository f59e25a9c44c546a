"""The demo's balance: every record sent against what came out, folded into one value.

Pure: outcomes in, a `Summary` out. Whatever the end of the demo shows stands here, so it agrees with the topics.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stream_app.local.demo.outcomes import Dead, Decided, Outcome, Passed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_app.escalate.prices import Price
    from stream_app.local.reviews import Sample

CHARS_PER_TOKEN = 4
"""The usual estimate for English; no tokenizer of the LLM is at hand."""
PLAIN_PROMPT_CHARS = 317
"""Instructions of a plain prompt beside the text, as in the recorded runs of the evaluation data."""
PLAIN_ANSWER_TOKENS = 5
"""A bare label and what frames it."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Latency in milliseconds; None where nothing took this route."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of records and finals, money, accuracy and time. `sent` leaves tombstones out.

    `accepted` finals are the small models' own, `escalated` those with a task sent to the LLM lane (so
    `accepted + escalated == decisions`), `degraded` the escalated ones that the small answer had to close.
    `extra` counts finals and dead letters beyond one for a record, `missing` records without an outcome.
    `accuracy` counts right answers over finals with a label; with a rule-based stand-in only those the small
    models decided. `small_accuracy` is what the small models alone would have got, over all finals.
    `llm_only_usd` and `llm_only_bare_usd` are estimates of an LLM for every text: with the prompt and answer of
    the calls that were made (None without any), and in a bare prompt.
    """

    sent: int
    decisions: int
    accepted: int
    escalated: int
    by_llm: int
    degraded: Mapping[str, int]
    dead_letters: Mapping[str, int]
    tombstones: int
    out_of_domain: int
    extra: int
    missing: int
    llm_calls: int
    cached: int
    cost_usd: float
    llm_only_usd: float | None
    llm_only_bare_usd: float | None
    accuracy: float | None
    small_accuracy: float | None
    latency_small_ms: Quantiles
    latency_llm_ms: Quantiles

    @property
    def dlq(self) -> int:
        """All dead letters."""
        return sum(self.dead_letters.values())

    @property
    def share_escalated(self) -> float:
        """Of the finals; 0 without any."""
        return self.escalated / self.decisions if self.decisions else 0.0

    @property
    def share_saved(self) -> float | None:
        """How much less than LLM-only was paid; None where there is nothing to compare with."""
        return 1 - self.cost_usd / self.llm_only_usd if self.llm_only_usd else None


def summarise(
    samples: Sequence[Sample], outcomes: Iterable[Outcome], *, rule_based: bool, price: Price | None
) -> Summary:
    """The balance of `samples` (those that were sent) against `outcomes` (all that was read back)."""
    seen = list(outcomes)
    closing = [one for one in seen if not isinstance(one, Decided) or one.final]
    times = Counter(one.source for one in closing)
    firsts = list({one.source: one for one in reversed(closing)}.values())
    finals = [one for one in firsts if isinstance(one, Decided)]
    texts = {sample.id: sample for sample in samples if sample.id is not None}
    gold = {sample.id: dict(sample.gold) for sample in samples if sample.gold}
    judged = [one for one in finals if one.decided_by == "small"] if rule_based else finals
    late = [one for one in seen if isinstance(one, Decided) and one.kind == "correction"]
    calls = [one.call for one in (*finals, *late) if one.call is not None]
    return Summary(
        sent=sum(sample.value is not None for sample in samples),
        decisions=len(finals),
        accepted=sum(not one.escalated for one in finals),
        escalated=sum(one.escalated for one in finals),
        by_llm=sum(one.decided_by == "llm" for one in finals),
        degraded=_counted(one.degraded_reason for one in finals if one.degraded_reason),
        dead_letters=_counted(one.cause for one in firsts if isinstance(one, Dead)),
        tombstones=sum(isinstance(one, Passed) for one in firsts),
        out_of_domain=sum(_out_of_domain(one) for one in finals),
        extra=sum(times.values()) - len(times),
        missing=max(0, len(samples) - len(times)),
        llm_calls=sum(not call.cached for call in calls),
        cached=sum(call.cached for call in calls),
        cost_usd=sum(call.cost_usd for call in calls),
        llm_only_usd=_as_called_usd(texts, finals, price),
        llm_only_bare_usd=None if price is None else sum(_bare_usd(sample, price) for sample in texts.values()),
        accuracy=_accuracy(judged, gold, small=False),
        small_accuracy=_accuracy(finals, gold, small=True),
        latency_small_ms=_quantiles([one.latency_ms for one in finals if not one.escalated]),
        latency_llm_ms=_quantiles([one.latency_ms for one in finals if one.decided_by == "llm"]),
    )


def as_json(summary: Summary, *, llm_stand_in: bool, seconds: float, addresses: Mapping[str, Any]) -> dict[str, Any]:
    """The object `shunt demo --exit --json` ends with (DESIGN section 10 names its keys)."""
    return {
        "events": summary.sent,
        "decisions": summary.decisions,
        "accepted": summary.accepted,
        "escalated": summary.escalated,
        "degraded": sum(summary.degraded.values()),
        "dlq": summary.dlq,
        "llm_calls": summary.llm_calls,
        "llm_stand_in": llm_stand_in,
        "cost_usd": round(summary.cost_usd, 6),
        "accuracy": _rounded(summary.accuracy),
        "small_accuracy": _rounded(summary.small_accuracy),
        "events_per_s": round(summary.sent / seconds, 1) if seconds > 0 else None,
        "latency_ms": {
            "small": {"p50": summary.latency_small_ms.p50, "p99": summary.latency_small_ms.p99},
            "llm": {"p50": summary.latency_llm_ms.p50, "p99": summary.latency_llm_ms.p99},
        },
        **addresses,
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _out_of_domain(decided: Decided) -> bool:
    return any(reply.escalated_because == "out_of_domain" for reply in decided.replies)


def _bare_usd(sample: Sample, price: Price) -> float:
    """What this text alone in a plain prompt would cost."""
    chars = sample.prompt_chars or len(sample.text) + PLAIN_PROMPT_CHARS
    return price.cost_nusd(math.ceil(chars / CHARS_PER_TOKEN), PLAIN_ANSWER_TOKENS) / 1e9


def _as_called_usd(texts: Mapping[str, Sample], finals: Iterable[Decided], price: Price | None) -> float | None:
    """What every text would cost with what the calls of this run took beside their texts, on average."""
    calls = [(one.call, texts[one.id]) for one in finals if one.call is not None and one.id in texts]
    paid = [(call, sample) for call, sample in calls if not call.cached and call.input_tokens]
    if price is None or not paid:
        return None
    beside = fmean(call.input_tokens - len(sample.text) / CHARS_PER_TOKEN for call, sample in paid)
    answer = fmean(call.output_tokens for call, _ in paid)
    tokens = sum(len(sample.text) / CHARS_PER_TOKEN + beside for sample in texts.values())
    return price.cost_nusd(round(tokens), round(answer * len(texts))) / 1e9


def _accuracy(
    decided: Iterable[Decided], gold: Mapping[str | None, Mapping[str, str]], *, small: bool
) -> float | None:
    """The share of right answers among those with a label; None without any."""
    right = [
        (reply.small_label if small else reply.label) == gold[one.id][reply.task]
        for one in decided
        for reply in one.replies
        if reply.task in gold.get(one.id, {})
    ]
    return fmean(right) if right else None


def _quantiles(values: list[float]) -> Quantiles:
    """Nearest-rank median and 99th percentile."""
    if not values:
        return Quantiles(None, None)
    ordered = sorted(values)
    return Quantiles(*(round(ordered[_rank(len(ordered), percent)], 1) for percent in (50, 99)))


def _rank(count: int, percent: int) -> int:
    """The index of the smallest value that `percent` of `count` values do not exceed."""
    return -(-count * percent // 100) - 1


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)

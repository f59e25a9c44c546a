"""What several ways of asking an LLM about the same escalated rows are worth, folded into figures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_app.training.paired import Paired, paired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Outcome = Literal["answered", "refused", "no_answer"]


@dataclass(frozen=True, slots=True)
class AskedAs:
    """One row asked in one variant. What it took is what it would have taken alone, shared calls included.

    `label` is None where there is no answer; `kept_truth` says whether the LLM was allowed to give the true label.
    """

    outcome: Outcome
    label: str | None
    kept_truth: bool
    input_tokens: int
    output_tokens: int
    usd: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class AskedRow:
    """An escalated row, asked in every variant. `place` is its place among the file's rows."""

    place: int
    truth: str
    small: str
    by_variant: Mapping[str, AskedAs]

    def right(self, variant: str) -> bool:
        """Whether the LLM's answer is the true label; no answer is not."""
        return self.by_variant[variant].label == self.truth

    def outcome_right(self, variant: str) -> bool:
        """Whether the decision is right: where the LLM gives no answer, the small one stands."""
        asked = self.by_variant[variant]
        return (self.small if asked.label is None else asked.label) == self.truth


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows of the file: how many, how many of them the policy accepts, and how many of those are right."""

    rows: int
    accepted: int
    accepted_right: int


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """One variant's figures. Tokens, dollars and latency are those of an escalation, retries included.

    `accuracy` is the LLM's answers' alone, a refusal and no answer counted as wrong; `whole_accuracy` that of all
    rows, taking the measured escalations for all of them. `truth_removed` is the share whose true label was
    not among the labels asked.
    """

    variant: str
    rows: int
    accuracy: float
    whole_accuracy: float
    refused: int
    no_answer: int
    truth_removed: float
    input_tokens: float
    output_tokens: float
    usd: float
    latency_p50_ms: float
    latency_p99_ms: float


@dataclass(frozen=True, slots=True)
class Against:
    """A variant against another: how much more often it is right, and what it saves an escalation.

    Tokens are those of input and output. `same_questions` says that the two asked exactly the same: there is nothing
    to compare.
    """

    variant: str
    baseline: str
    right: Paired
    usd_saved: float
    usd_saved_share: float | None
    tokens_saved: float
    same_questions: bool


def variant_figures(variant: str, asked: Sequence[AskedRow], whole: Whole) -> VariantFigures:
    """Folds the rows, at least one. Raises ValueError where there is none."""
    if not asked:
        raise ValueError("no row was measured")
    ways = [row.by_variant[variant] for row in asked]
    escalated_right = float(np.mean([row.outcome_right(variant) for row in asked])) * (whole.rows - whole.accepted)
    p50, p99 = np.quantile([way.latency_ms for way in ways], [0.5, 0.99])
    return VariantFigures(
        variant=variant,
        rows=len(asked),
        accuracy=float(np.mean([row.right(variant) for row in asked])),
        whole_accuracy=(whole.accepted_right + escalated_right) / whole.rows,
        refused=sum(way.outcome == "refused" for way in ways),
        no_answer=sum(way.outcome == "no_answer" for way in ways),
        truth_removed=float(np.mean([not way.kept_truth for way in ways])),
        input_tokens=float(np.mean([way.input_tokens for way in ways])),
        output_tokens=float(np.mean([way.output_tokens for way in ways])),
        usd=float(np.mean([way.usd for way in ways])),
        latency_p50_ms=float(p50),
        latency_p99_ms=float(p99),
    )


def against(variant: str, baseline: str, asked: Sequence[AskedRow], *, seed: int) -> Against:
    """Compares two variants over the same rows, at least one."""
    ours, theirs = ([row.by_variant[name] for row in asked] for name in (variant, baseline))
    usd_saved = float(np.mean([their.usd - our.usd for our, their in zip(ours, theirs, strict=True)]))
    usd = float(np.mean([their.usd for their in theirs]))
    tokens = [
        their.input_tokens + their.output_tokens - our.input_tokens - our.output_tokens
        for our, their in zip(ours, theirs, strict=True)
    ]
    return Against(
        variant=variant,
        baseline=baseline,
        right=paired(
            np.array([row.right(variant) for row in asked], np.bool_),
            np.array([row.right(baseline) for row in asked], np.bool_),
            seed=seed,
        ),
        usd_saved=usd_saved,
        usd_saved_share=usd_saved / usd if usd > 0 else None,
        tokens_saved=float(np.mean(tokens)),
        same_questions=ours == theirs,
    )


def pairs(variants: Sequence[str]) -> list[tuple[str, str]]:
    """Which variant is compared with which: each with every one before it, so that the first is the plainest."""
    return [(later, earlier) for earlier, later in combinations(variants, 2)]

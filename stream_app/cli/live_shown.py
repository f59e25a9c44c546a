"""What a live evaluation found: table and verdicts for a person, an object for a program, a line for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from stream_app.cli.live_asking import Stopped
from stream_app.cli.table import as_table
from stream_app.local.demo.words import duration, plural, usd
from stream_app.training.compared import against, pairs, variant_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.cli.live_asking import Measured
    from stream_app.cli.live_questions import Estimate, Variant
    from stream_app.training.compared import Against, VariantFigures, Whole

WORTH_OF = {
    ("hint", "plain"): "the hint",
    ("pruned", "hint"): "pruning",
    ("pruned", "plain"): "hint and pruning together",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, of whom, under which cap."""

    task: str
    policy: str
    model: str
    endpoint: str
    stand_in: bool
    variants: Sequence[Variant]
    to_ask: int
    escalated: int
    usd_max: float
    seed: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run."""

    asked: Asked
    whole: Whole
    measured: Measured
    variants: tuple[VariantFigures, ...]
    comparisons: tuple[Against, ...]

    @classmethod
    def of(cls, asked: Asked, whole: Whole, measured: Measured) -> Report:
        """Folds what was measured; without a row there are no figures."""
        # The order in which calls end is chance; the figures and their draws must not depend on it.
        rows = sorted(measured.rows, key=lambda row: row.place)
        names = [variant.value for variant in asked.variants] if rows else []
        return cls(
            asked,
            whole,
            measured,
            tuple(variant_figures(name, rows, whole) for name in names),
            tuple(against(later, earlier, rows, seed=asked.seed) for later, earlier in pairs(names)),
        )


def as_object(report: Report) -> dict[str, object]:
    """The report as one JSON object. Differences and intervals are shares, not points."""
    asked, measured = report.asked, report.measured
    return {
        "task": asked.task,
        "policy": asked.policy,
        "model": asked.model,
        "endpoint": asked.endpoint,
        "llm_stand_in": asked.stand_in,
        "rows": report.whole.rows,
        "escalated": asked.escalated,
        "to_ask": asked.to_ask,
        "measured": len(measured.rows),
        "stopped": measured.stopped,
        "seed": asked.seed,
        "usd_max": asked.usd_max,
        "usd_estimated": asked.estimate.usd,
        "usd_paid": measured.paid_usd,
        "calls": measured.calls,
        "variants": [msgspec.to_builtins(figures) for figures in report.variants],
        "comparisons": [{**msgspec.to_builtins(one), "verdict": verdict(one)} for one in report.comparisons],
    }


def row_lines(measured: Measured, ids: Sequence[str]) -> list[dict[str, object]]:
    """Each measured row as a JSON object, without its text, in the file's order. `ids` are those of all rows."""
    return [
        {
            "id": ids[row.place],
            "label": row.truth,
            "small": row.small,
            "asked": {
                variant: {**msgspec.to_builtins(way), "right": row.right(variant)}
                for variant, way in row.by_variant.items()
            },
        }
        for row in sorted(measured.rows, key=lambda row: row.place)
    ]


def as_text(report: Report) -> str:
    """The report for a person."""
    asked = report.asked
    by = "a stand-in, not an LLM: the figures say nothing of one" if asked.stand_in else asked.endpoint
    lines = [f"{asked.task}, {asked.policy}, asked of {asked.model} ({by})", ""]
    if report.variants:
        header = (
            "",
            "LLM right",
            "whole",
            "refused",
            "no answer",
            "true label pruned",
            "tokens",
            "a call",
            "p50",
            "p99",
        )
        lines += [as_table(header, [_line(figures, stand_in=asked.stand_in) for figures in report.variants]), ""]
        lines += [_sentence(verdict(one), stand_in=asked.stand_in) for one in report.comparisons] + [""]
    return "\n".join([*lines, *_ending(report)])


def verdict(one: Against) -> str:
    """One comparison as one line: what it is worth, how sure that is, and what it saves."""
    name, right = WORTH_OF[one.variant, one.baseline], one.right
    points, low, high = (f"{100 * value:+.1f}" for value in (right.difference, right.low, right.high))
    if one.same_questions:
        return f"{name}: {one.variant} and {one.baseline} asked the same questions, nothing to compare"
    if right.told:
        said = f"{name} {'are' if ' and ' in name else 'is'} worth {points} points ({low} to {high})"
    elif right.low == right.high == 0:
        said = f"{name}: none of {plural(right.rows, 'row')} came out differently"
    elif right.rows_needed is None:
        said = f"{name}: no difference in {plural(right.rows, 'row')} ({low} to {high})"
    else:
        more = f"about {right.rows_needed:,} more would be needed at this difference"
        said = f"{name}: {points} points ({low} to {high}), too few rows to tell: {more}"
    return f"{said}; {_saved(one)}"


def _saved(one: Against) -> str:
    """Dollars and tokens an escalation, saved or spent on top."""
    word = "saves" if one.tokens_saved >= 0 else "takes"
    tokens = f"{word} {abs(one.tokens_saved):,.0f} tokens"
    if one.usd_saved_share is None:
        return f"{tokens} a call"
    more = "less" if one.usd_saved >= 0 else "more"
    return f"{tokens} a call, {usd(abs(one.usd_saved))} ({abs(one.usd_saved_share):.1%}) {more}"


def _line(figures: VariantFigures, *, stand_in: bool) -> list[str]:
    return [
        figures.variant + (" (stand-in)" if stand_in else ""),
        f"{figures.accuracy:.1%}",
        f"{figures.whole_accuracy:.2%}",
        f"{figures.refused:,}",
        f"{figures.no_answer:,}",
        f"{figures.truth_removed:.1%}",
        f"{figures.input_tokens:,.0f} in, {figures.output_tokens:,.0f} out",
        usd(figures.usd),
        duration(figures.latency_p50_ms),
        duration(figures.latency_p99_ms),
    ]


def _sentence(words: str, *, stand_in: bool) -> str:
    return f"{words} (by the stand-in)" if stand_in else words


def _ending(report: Report) -> list[str]:
    """How many rows were measured and why not more, and what it cost."""
    asked, measured = report.asked, report.measured
    why = {
        None: "",
        Stopped.CAP: f"; the cap of {usd(asked.usd_max)} is reached",
        Stopped.INTERRUPTED: "; interrupted",
        Stopped.OUTAGE: f"; stopped, since the endpoint gave no answer any more ({measured.problem})",
    }[measured.stopped]
    paid = "nothing was paid (a stand-in)" if asked.stand_in else f"{usd(measured.paid_usd)} paid"
    prices = f", {usd(measured.paid_usd)} at the real model's prices" if asked.stand_in else ""
    escalated = f"{asked.escalated:,} of {plural(report.whole.rows, 'row')} escalated"
    return [
        f"{len(measured.rows):,} of {plural(asked.to_ask, 'row')} measured in every variant ({escalated}){why}",
        f"{plural(measured.calls, 'call')}, {paid}{prices}; questions that are the same were asked once",
    ]

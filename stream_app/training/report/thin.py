"""Where the sample is too small to say what one would like to know, and how many rows it would take. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stream_app.training.by_label import LabelOutcome
from stream_app.training.evidence import Evidence
from stream_app.training.report.slices import Slice
from stream_app.training.report.tradeoff import Tradeoff
from stream_app.training.shares import NORMAL_QUANTILE, Share

ROWS_OF_A_LABEL = 50
ROWS_OF_A_SLICE = 50
HALF_WIDTH = 0.01
"""How closely one would like to know the error of what is accepted: within a point."""


@dataclass(frozen=True, slots=True)
class Thin:
    """Something that these rows tell too little of: `rows` there are, `needed` would do where that can be said."""

    about: str
    rows: int
    says: str
    needed: int | None = None


def thin(
    evidence: Evidence,
    error: Share,
    labels: Sequence[LabelOutcome],
    slices: Sequence[Slice],
    tradeoffs: Sequence[Tradeoff],
) -> tuple[Thin, ...]:
    """All that is too thin, what matters most first."""
    return (
        *_certified(evidence),
        *_error(error),
        *_differences(tradeoffs),
        *(
            Thin(f"label {one.label}", one.rows, f"its figures on the test rows are rough below {ROWS_OF_A_LABEL}")
            for one in labels
            if one.rows < ROWS_OF_A_LABEL
        ),
        *_slices(slices),
    )


def _slices(slices: Sequence[Slice]) -> Iterator[Thin]:
    """One line for each way to cut."""
    for by in dict.fromkeys(one.by for one in slices):
        few = [one for one in slices if one.by == by and one.rows < ROWS_OF_A_SLICE]
        if few:
            names = ", ".join(f"{one.name} ({one.rows})" for one in few)
            says = f"each below {ROWS_OF_A_SLICE} rows, where a slice shows chance as much as itself: {names}"
            yield Thin(f"{len(few)} by {by}", sum(one.rows for one in few), says)


def _certified(evidence: Evidence) -> Iterator[Thin]:
    """What the certification rows could show at best: 1 - delta^(1/n), were all accepted and none wrong."""
    for rows in evidence.samples:
        best = 1 - evidence.delta ** (1 / max(1, len(rows)))
        for promise in evidence.promises:
            if best > promise.share / 2:
                says = f"at best they show an error of {best:.2%}, and {promise.share:.2%} is promised"
                yield Thin("certification rows", len(rows), says, math.ceil(2 * len(rows) * best / promise.share))


def _error(error: Share) -> Iterator[Thin]:
    if error.share is None or (error.high - error.low) / 2 <= HALF_WIDTH:
        return
    middle = (error.low + error.high) / 2
    needed = math.ceil(NORMAL_QUANTILE**2 * middle * (1 - middle) / HALF_WIDTH**2)
    says = f"the error among the accepted is known to {100 * (error.high - error.low) / 2:.1f} points"
    yield Thin("accepted test rows", error.rows, f"{says}; within one point takes more", max(needed, error.rows + 1))


def _differences(tradeoffs: Sequence[Tradeoff]) -> Iterator[Thin]:
    for one in tradeoffs:
        for other, found in ((f"{one.llm} alone", one.beside.to_llm), ("the small model alone", one.beside.to_small)):
            if found.rows_needed is not None:
                says = f"{100 * found.difference:+.1f} points against {other} could be chance"
                yield Thin(f"with {one.llm}", one.rows, says, one.rows + found.rows_needed)

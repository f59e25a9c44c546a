"""Which cuts may be promised: a fixed sequence of them, tested on rows that had no part in making it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.certification import COVERAGES, STEPS
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.promises import NOT_ACCEPTED, Counts, Promise, counts_of, last_shown, open_promises

PLAN_DELTA = 0.08
"""The level at which the calibration rows must show what is planned.

They are 0.7 times as many as the certification rows: what they show at 8 % those should show at 5 %."""
PLAN_SHARES = tuple(step / 40 for step in range(1, 41))
HOPELESS = 1.5
"""A label whose bound on the calibration rows is never less than so many times what is promised is not tried."""
BEYOND = 1.3
"""How far the sequence goes on, in parts of what was planned."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What one tier answers to all rows, and how sure it is."""

    label: IndexArray
    confidence: FloatArray

    def rows(self, chosen: IndexArray) -> "Judged":
        """Of these rows alone."""
        return Judged(self.label[chosen], self.confidence[chosen])


@dataclass(frozen=True, slots=True)
class Cut:
    """The cuts by label, infinite for a label that is never accepted, and what they did with each sample."""

    by_label: FloatArray
    samples: tuple[Counts, ...]


def log_odds(confidence: FloatArray | Float64Array) -> Float64Array:
    """log(c / (1 - c)), finite for 0 and 1."""
    inside = np.clip(confidence.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(inside) - np.log1p(-inside)


def accepted_as(cuts: FloatArray, tiers: Sequence[Judged], inside: BoolArray) -> IndexArray:
    """The label each row is accepted with, NOT_ACCEPTED where no tier reaches its cut.

    The same cuts serve all tiers, each held against its own calibrated confidence; a text counts with the answer of
    the first tier that reaches its cut. `inside` are the rows of the calibrated domain.
    """
    found = np.full(len(inside), NOT_ACCEPTED, np.intp)
    for tier in tiers:
        now = inside & (found == NOT_ACCEPTED) & (tier.confidence >= cuts[tier.label])
        found[now] = tier.label[now]
    return found


def cuts_of(tiers: Sequence[Judged], rows: IndexArray, offsets: Float64Array) -> FloatArray:
    """The fixed sequence of cuts [steps, labels], falling: those that accept COVERAGES of the rows.

    `offsets` holds the labels' cuts apart, in log-odds. A text is accepted at a cut exactly if some tier reaches
    it, so the cuts are quantiles of the surest tier's log-odds less its label's offset. They come from the
    calibration part: the certification rows' labels, and even their texts, have no say.
    """
    surest = np.maximum.reduce([log_odds(tier.confidence[rows]) - offsets[tier.label[rows]] for tier in tiers])
    levels = np.quantile(surest, [1 - coverage for coverage in COVERAGES], method="lower")
    return (1 / (1 + np.exp(-(levels[:, None] + offsets[None, :])))).astype(np.float32)


def planned_cuts(
    tiers: Sequence[Judged],
    truth: IndexArray,
    inside: BoolArray,
    rows: IndexArray,
    promises: Sequence[Promise],
    labels: int,
) -> FloatArray:
    """The fixed sequence of cuts [steps, labels] where labels have promises of their own: falling, each on its own
    way.

    How far each label's way goes is found on the calibration rows: of what is answered with it, the largest share
    that can be accepted with every promise shown there, first for each label alone, then for all together. The
    sequence takes all ways at once, from where the calibration rows show most, and beyond their ends: the
    certification rows may show more. A label of which nothing can be accepted is closed, its cut infinite. No steps
    where that is every label.
    """
    here, true, known = [tier.rows(rows) for tier in tiers], truth[rows], inside[rows]
    ways = _ways(here, labels)

    def margin(shares: Float64Array) -> float:
        """The largest bound in parts of what is promised: 1 and less is shown."""
        counts = counts_of(true, accepted_as(ways(shares), here, known), labels)
        asked = open_promises(promises, shares > 0)
        return max((promise.bound(counts, PLAN_DELTA) / promise.share for promise in asked), default=0.0)

    ends = np.zeros(labels)
    for label in range(labels):
        alone = np.eye(labels)[label]
        ends[label] = _furthest([margin(share * alone) for share in PLAN_SHARES])
    if not ends.any():
        return np.zeros((0, labels), np.float32)
    margins = [margin(part * ends) for part in PLAN_SHARES]
    ends *= _furthest(margins) or PLAN_SHARES[int(np.argmin(margins))]
    safest = PLAN_SHARES[int(np.argmin([margin(part * ends) for part in PLAN_SHARES]))]
    return np.stack([ways(np.minimum(1, part * ends)) for part in np.linspace(safest, BEYOND, STEPS)])


def _furthest(margins: Sequence[float]) -> float:
    """The largest share with a margin of at most 1; else the one with the least, if that is not hopeless; else 0."""
    within = [share for share, margin in zip(PLAN_SHARES, margins, strict=True) if margin <= 1]
    if within:
        return max(within)
    return PLAN_SHARES[int(np.argmin(margins))] if min(margins) <= HOPELESS else 0.0


def _ways(tiers: Sequence[Judged], labels: int) -> Callable[[Float64Array], FloatArray]:
    """From the share to be accepted of what is answered with each label to the cuts that do it."""
    surest = np.argmax([tier.confidence for tier in tiers], axis=0)
    places = np.arange(len(surest))
    label = np.stack([tier.label for tier in tiers])[surest, places]
    confidence = np.stack([tier.confidence for tier in tiers])[surest, places]
    of_label = [confidence[label == one] for one in range(labels)]

    def cuts(shares: Float64Array) -> FloatArray:
        return np.array(
            [
                np.quantile(found, 1 - share, method="lower") if share > 0 and len(found) else np.inf
                for share, found in zip(shares, of_label, strict=True)
            ],
            np.float32,
        )

    return cuts


def certified_cut(
    cuts: FloatArray,
    tiers: Sequence[Judged],
    truth: IndexArray,
    inside: BoolArray,
    samples: Sequence[IndexArray],
    promises: Sequence[Promise],
    delta: float,
) -> Cut | None:
    """The last cuts that may be promised in every sample of rows (`last_shown`); None where none may."""
    seen = list[tuple[Counts, ...]]()
    asked = open_promises(promises, np.isfinite(cuts).all(axis=0))

    def steps() -> Iterator[tuple[Counts, ...]]:
        for step in cuts:
            taken = accepted_as(step, tiers, inside)
            seen.append(tuple(counts_of(truth[rows], taken[rows], cuts.shape[1]) for rows in samples))
            yield seen[-1]

    passed = last_shown(asked, steps(), delta)
    return None if passed is None else Cut(cuts[passed], seen[passed])

"""Coverage against what could be promised: the cuts that certification walked, and the naive rule. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.promises import (
    NOT_ACCEPTED,
    Counts,
    MissedAtMost,
    Promise,
    WrongAtPrevalence,
    counts_of,
)
from stream_app.training.cut import accepted_as
from stream_app.training.evidence import Evidence
from stream_app.training.kept import measured_share
from stream_app.training.shares import Share


@dataclass(frozen=True, slots=True)
class Step:
    """One cut: the test rows accepted, the bound of the certification rows, and what the test rows measured."""

    coverage: float
    bound: float
    measured: Share


@dataclass(frozen=True, slots=True)
class PromiseSteps:
    """One promise along the sequence. `what` is "wrong" or "missed", `label` None where it is of all labels.

    `chosen` and `naive` are places in `steps`, None where no step was good enough. The naive rule takes the furthest
    cut at which the rows that chose showed no more than is promised, without a bound.
    """

    what: str
    label: str | None
    prevalence: float | None
    share_max: float
    steps: tuple[Step, ...]
    chosen: int | None
    naive: int | None


def promise_steps(evidence: Evidence, labels: tuple[str, ...]) -> tuple[PromiseSteps, ...]:
    """Every promise over the whole sequence, also behind its end, where nothing is certified any more."""
    judged, test = evidence.judged(), evidence.parts.test
    coverages, tested, chose, samples = list[float](), list[Counts](), list[Counts](), list[list[Counts]]()
    for cuts in evidence.cuts:
        taken = accepted_as(cuts, judged, evidence.inside)
        coverages.append(float((taken[test] != NOT_ACCEPTED).mean()))
        tested.append(counts_of(evidence.truth[test], taken[test], evidence.labels))
        chose.append(counts_of(evidence.truth[evidence.chose], taken[evidence.chose], evidence.labels))
        samples.append([counts_of(evidence.truth[rows], taken[rows], evidence.labels) for rows in evidence.samples])
    naive = _naive(evidence.promises, chose)
    return tuple(
        PromiseSteps(
            what="missed" if isinstance(promise, MissedAtMost) else "wrong",
            label=_label(promise, labels),
            prevalence=promise.prevalence if isinstance(promise, WrongAtPrevalence) else None,
            share_max=promise.share,
            steps=tuple(
                Step(coverage, max(promise.bound(counts, evidence.delta) for counts in by_sample), measured)
                for coverage, by_sample, measured in zip(
                    coverages, samples, [measured_share(promise, counts) for counts in tested], strict=True
                )
            ),
            chosen=evidence.chosen,
            naive=naive,
        )
        for promise in evidence.promises
    )


def _naive(promises: Sequence[Promise], chose: Sequence[Counts]) -> int | None:
    """The furthest step at which all looks well."""
    good = [
        step
        for step, counts in enumerate(chose)
        if all((measured_share(promise, counts).share or 0.0) <= promise.share for promise in promises)
    ]
    return int(np.max(good)) if good else None


def _label(promise: Promise, labels: tuple[str, ...]) -> str | None:
    if isinstance(promise, MissedAtMost):
        return labels[promise.label]
    return labels[promise.about[0]] if promise.about else None

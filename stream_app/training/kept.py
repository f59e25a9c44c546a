"""Whether what a policy promises was kept on other labelled rows. Pure and seeded."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import Promised, TaskPolicy
from stream_app.routing.promises import (
    NOT_ACCEPTED,
    Counts,
    ErrorAtMost,
    MissedAtMost,
    Promise,
    WrongAtPrevalence,
    counts_of,
)
from stream_app.training.promised import mix_of
from stream_app.training.shares import Share, share
from stream_app.training.whole_texts import CODES, graded

DRAWS = 4_000
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Kept:
    """One promise on these rows: the share of wrong (or of missed) that was promised, bounded, and measured.

    `held` says whether the measured share is at most `share_max`, None where no row could show it; `told` whether
    the interval lies wholly on one side of it.
    """

    what: str
    label: str | None
    share_max: float
    bound: float
    prevalence: float | None
    measured: Share
    held: bool | None
    told: bool


def counted(task: TaskPolicy, truth: IndexArray, small: IndexArray, accepted: BoolArray) -> Counts:
    """The table (see `routing.promises`) of N rows, whose true and small answers are labels' indexes, or sets.

    Of sets it counts two labels, RIGHT and WRONG: a promise is of whole texts.
    """
    labels = len(task.labels)
    if task.kind == "any_of":
        truth, small, labels = graded(truth, truth), graded(small, truth), CODES
    return counts_of(truth, np.where(accepted, small, NOT_ACCEPTED), labels)


def kept(task: TaskPolicy, counts: Counts) -> tuple[Kept, ...]:
    """Every line of the certificate, the error over all labels first; () without a certificate.

    `counts` is the table of the rows, as `counted` makes it.
    """
    certificate = task.certificate
    if certificate is None:
        return ()
    lines = list(certificate.labels)
    if certificate.error_max is not None:
        lines.insert(0, Promised(what="wrong", share_max=certificate.error_max, bound=certificate.error_bound))
    return tuple(_kept(line, measured_share(_promise(line, task), counts)) for line in lines)


def measured_share(promise: Promise, counts: Counts) -> Share:
    """The share of wrong (or missed) that a promise speaks of, as these rows have it, with a 95 % interval."""
    match promise:
        case MissedAtMost():
            rows = counts[promise.label]
            return share(int(rows[:-1].sum() - rows[promise.label]), int(rows.sum()))
        case WrongAtPrevalence():
            return _at_prevalence(promise, counts)
        case _:
            columns = list(promise.about or range(len(counts)))
            accepted = int(counts[:, columns].sum())
            return share(accepted - int(counts[columns, columns].sum()), accepted)


def _kept(line: Promised, measured: Share) -> Kept:
    told = measured.share is not None and not measured.low <= line.share_max <= measured.high
    held = None if measured.share is None else measured.share <= line.share_max
    return Kept(line.what, line.label, line.share_max, line.bound, line.prevalence, measured, held, told)


def _promise(line: Promised, task: TaskPolicy) -> Promise:
    if line.label is None:
        return ErrorAtMost(line.share_max)
    here = task.labels.index(line.label)
    if line.what == "missed":
        return MissedAtMost(line.share_max, here)
    if line.prevalence is None:
        return ErrorAtMost(line.share_max, (here,))
    stated = {task.labels.index(label): part for label, part in task.prevalence.items()}
    sample = task.sample
    rows = sample.calibration + sample.certification + sample.test
    found = np.array([round(sample.label_prevalence[label] * rows) for label in task.labels], np.intp)
    return WrongAtPrevalence(line.share_max, here, line.prevalence, mix_of(here, stated, found))


def _at_prevalence(promise: WrongAtPrevalence, counts: Counts) -> Share:
    """The class rates as seen, carried to the prevalence by Bayes' rule.

    Its interval is that of draws of each class's rate from its Jeffreys posterior, Beta(k + 1/2, n - k + 1/2): the
    rates of several classes mix in it, and one of them is often 0.
    """
    label, accepted = promise.label, int(counts[:, promise.label].sum())
    others = [other for other in promise.mix if counts[other].sum()]
    if not accepted or not counts[label].sum() or len(others) < len(promise.mix):
        return Share(0, accepted, None, 0.0, 1.0)
    rates = {one: np.array([counts[one, label] / counts[one].sum()]) for one in (label, *others)}
    wrong = float(_wrong(promise, rates)[0])
    chance = np.random.default_rng(0)
    drawn = {
        one: chance.beta(counts[one, label] + 0.5, counts[one].sum() - counts[one, label] + 0.5, DRAWS)
        for one in (label, *others)
    }
    low, high = np.quantile(_wrong(promise, drawn), INTERVAL)
    return Share(
        accepted - int(counts[label, label]), accepted, wrong, min(float(low), wrong), max(float(high), wrong)
    )


def _wrong(promise: WrongAtPrevalence, rates: Mapping[int, Float64Array]) -> Float64Array:
    """(1 - p) f / (p h + (1 - p) f), 0 where nothing is accepted with the label."""
    false = (1 - promise.prevalence) * sum(part * rates[other] for other, part in promise.mix.items())
    right = promise.prevalence * rates[promise.label]
    return np.divide(false, right + false, out=np.zeros_like(right), where=right + false > 0)

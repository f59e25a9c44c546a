"""What may be promised of a set of cuts, judged by what they did with labelled rows. Pure.

All that a promise needs of a sample is one table of counts: rows by true label, columns by the label they were
accepted with, and a last column for those that were not. Each promise is a test at level delta: where it is not
true in the population, it passes with probability at most delta.

Labelled samples of moderation are mostly balanced, and traffic is not. The share of wrong among what is accepted
with a rare label depends on how rare it is; how often a text of a class gets that label does not. So where a
prevalence is stated, the class rates are bounded, each from the rows of its class as they are, and carried to that
prevalence. (Rows drawn again to look like the traffic would be counted several times each: no binomial test holds
for them.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.routing.calibration import BoolArray
from stream_app.routing.certification import error_bound
from stream_app.routing.models import IndexArray

Counts = NDArray[np.intp]
"""[labels, labels + 1]: rows truly of a label, by the label they were accepted with; the last column was not."""

NOT_ACCEPTED = -1
HIT_DELTA = 0.25
"""The part of delta that a hit rate's bound gets: the rate is large and needs little, false alarms are few."""


def counts_of(truth: IndexArray, accepted_as: IndexArray, labels: int) -> Counts:
    """The table of these rows; `accepted_as` is NOT_ACCEPTED where none was."""
    column = np.where(accepted_as == NOT_ACCEPTED, labels, accepted_as)
    return np.bincount(truth * (labels + 1) + column, minlength=labels * (labels + 1)).reshape(labels, labels + 1)


class Promise(Protocol):
    """One line of what a policy promises: that some share of wrong answers is at most `share`."""

    @property
    def share(self) -> float:
        """The most that is promised."""
        ...

    @property
    def about(self) -> tuple[int, ...]:
        """The labels whose acceptance it speaks of; () for every one. Where those are never accepted, it is true."""
        ...

    def bound(self, counts: Counts, delta: float) -> float:
        """The population's share of wrong answers lies above this with probability at most delta."""
        ...


def open_promises(promises: Sequence[Promise], opened: BoolArray) -> list[Promise]:
    """Those that something can break where only the labels `opened` [labels] are ever accepted."""
    return [one for one in promises if (opened[list(one.about)].any() if one.about else opened.any())]


def shown(promises: Sequence[Promise], samples: Sequence[Counts], delta: float) -> bool:
    """Whether every sample shows every promise at level delta.

    All must be shown, so that each may have the whole of delta: if one of them is not true in the population of one
    sample, that one is shown with probability at most delta (an intersection-union test, Berger 1982).
    """
    return all(promise.bound(counts, delta) <= promise.share for counts in samples for promise in promises)


def last_shown(promises: Sequence[Promise], steps: Iterable[Sequence[Counts]], delta: float) -> int | None:
    """The last step that may be promised, or None where not even the first may.

    Steps come in a fixed order, chosen without these labels; each holds a table for every sample that the promises
    are for. The sequence ends at the first step that is not shown, and that is what makes a correction for many steps
    needless (fixed-sequence testing, Learn then Test, Angelopoulos et al., arXiv 2110.01052): the step returned
    breaks a promise in some sample's population with probability at most delta.
    """
    passed = None
    for place, samples in enumerate(steps):
        if not shown(promises, samples, delta):
            break
        passed = place
    return passed


@dataclass(frozen=True, slots=True)
class ErrorAtMost:
    """Of all that is accepted, or accepted with one of `about`, at most `share` is wrong, in such traffic."""

    share: float
    about: tuple[int, ...] = ()

    def bound(self, counts: Counts, delta: float) -> float:
        """Clopper-Pearson's (1934); 1 where nothing was accepted."""
        columns = list(self.about or range(len(counts)))
        accepted = int(counts[:, columns].sum())
        return error_bound(accepted - int(counts[columns, columns].sum()), accepted, delta)


@dataclass(frozen=True, slots=True)
class WrongAtPrevalence:
    """Of what is accepted with `label`, at most `share` is wrong where `prevalence` of the traffic is of that label.

    The share of wrong is (1 - p) * f / (p * h + (1 - p) * f) (Bayes). It falls with the rate h of hits and rises
    with the rate f of false alarms, so that Clopper-Pearson bounds of each, delta divided among them, bound it.
    `mix` is the make-up of the rest of the traffic, by label, adding up to 1; labels that are not in it do not
    occur.
    """

    share: float
    label: int
    prevalence: float
    mix: Mapping[int, float]

    @property
    def about(self) -> tuple[int, ...]:
        """That label."""
        return (self.label,)

    def bound(self, counts: Counts, delta: float) -> float:
        """1 where there were no hits."""
        hit = self._hit_low(counts, delta)
        alarms = math.fsum(
            part * error_bound(int(counts[label, self.label]), int(counts[label].sum()), self._each(delta))
            for label, part in self.mix.items()
        )
        false = (1 - self.prevalence) * alarms
        return 1.0 if hit <= 0 else false / (self.prevalence * hit + false)

    def rows_needed(self, counts: Counts, delta: float) -> int:
        """How many rows of each other label it takes, were there no false alarm, with hits as often as here.

        (1 - f)^n <= delta at the largest rate f that keeps the promise. 0 hits: no number suffices, and ValueError.
        """
        hit = self._hit_low(counts, delta)
        if hit <= 0:
            raise ValueError(f"no row of label {self.label} was accepted with it")
        rate = hit * self.prevalence * self.share / ((1 - self.prevalence) * (1 - self.share))
        return math.ceil(math.log(self._each(delta)) / math.log1p(-min(rate, 1 - 1e-9)))

    def _hit_low(self, counts: Counts, delta: float) -> float:
        rows = int(counts[self.label].sum())
        return 1.0 - error_bound(rows - int(counts[self.label, self.label]), rows, HIT_DELTA * delta)

    def _each(self, delta: float) -> float:
        return (1 - HIT_DELTA) * delta / len(self.mix)


@dataclass(frozen=True, slots=True)
class MissedAtMost:
    """Of what truly is of `label`, at most `share` is accepted as something else. It takes no prevalence."""

    share: float
    label: int

    @property
    def about(self) -> tuple[int, ...]:
        """Every label: the others can be taken for it."""
        return ()

    def bound(self, counts: Counts, delta: float) -> float:
        """Clopper-Pearson's (1934); 1 where the sample has no such row."""
        rows = counts[self.label]
        return error_bound(int(rows[:-1].sum() - rows[self.label]), int(rows.sum()), delta)

"""The learning curve: how good a model is on rows it did not see, by the number of rows it was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.training.gold import Gold, TaskKind
from stream_app.training.shares import share

Floats = NDArray[np.float64]

DRAWS = 400
LEVEL = 0.95
LITTLE = 0.005
"""A doubling that cannot have brought half a point did not pay: it took as many labels as all before it."""
_DRAWS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Point:
    """What models trained on so many rows reach on held-out rows, with its 95 % band."""

    rows: int
    score: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What the last doubling brought, on the same held-out rows, with its 95 % interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by rising number of training rows; `measure` says what the scores are; `gain` of two or more."""

    measure: str
    held_out: int
    points: tuple[Point, ...]
    gain: Gain | None

    @property
    def next_gain(self) -> float | None:
        """What one more doubling would bring if the error went on to fall by the same factor.

        Errors fall as a power of the number of rows, and flatten in the end (Hestness et al. 2017, arXiv
        1712.00409): rather less than this.
        """
        if self.gain is None or self.points[-2].score >= 1:
            return None
        before, now = 1 - self.points[-2].score, 1 - self.points[-1].score
        return max(0.0, now * (1 - now / before))

    @property
    def headline(self) -> str:
        """Whether more labels would pay, in a few words."""
        if self.gain is None:
            return "No learning curve"
        if self.gain.high < LITTLE:
            return "More labels of this kind would pay little"
        return (
            "More labels would pay" if self.gain.low > 0 else "Too few held-out rows to tell if more labels would pay"
        )

    def verdict(self) -> str:
        """The headline with what it rests on."""
        if self.gain is None:
            return f"{self.headline}: there are no held-out scores for fewer rows."
        before, now = self.points[-2].rows, self.points[-1].rows
        interval = f"95 %: {_points(self.gain.low)} to {_points(self.gain.high)}"
        brought = f"{before:,} to {now:,} rows brought {_points(self.gain.score)} points ({interval})"
        hoped = f" At this pace {2 * now:,} rows would bring at most {_points(self.next_gain or 0)} points more."
        return f"{self.headline}: {brought}.{hoped if self.gain.low > 0 and self.gain.high >= LITTLE else ''}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def learning_curve(gold: Gold, groups: Sequence[str], held_out: Mapping[int, Floats], seed: int) -> Curve:
    """The curve of probabilities [rows, labels] by number of training rows, all over the same held-out rows.

    Accuracy, or the mean over the labels of average precision where any may be right. Bands are percentiles over
    draws of whole groups of rows (the cluster bootstrap: Field and Welsh, 2007), for accuracy no narrower than
    Wilson's interval, which does not vanish where everything is right.
    """
    sizes = sorted(held_out)
    one_of = gold.kind is TaskKind.ONE_OF
    measured = [_Right(gold, held_out[size]) if one_of else _Precision(gold, held_out[size]) for size in sizes]
    even = np.ones((1, len(groups)))
    scores = [each.scores(even)[0] for each in measured]
    drawn = np.concatenate(
        [np.stack([each.scores(weights) for each in measured], 1) for weights in _draws(groups, seed)]
    )
    bands = [_interval(drawn[:, at]) for at in range(len(sizes))]
    if one_of:
        wilson = [share(round(score * len(groups)), len(groups)) for score in scores]
        bands = [(min(a[0], b.low), max(a[1], b.high)) for a, b in zip(bands, wilson, strict=True)]
    points = tuple(
        Point(size, float(score), low, high) for size, score, (low, high) in zip(sizes, scores, bands, strict=True)
    )
    gain = None
    if len(points) > 1:
        gain = Gain(points[-1].score - points[-2].score, *_interval(drawn[:, -1] - drawn[:, -2]))
    return Curve("accuracy" if one_of else "mean average precision", len(groups), points, gain)


class _Right:
    """The share of rows whose most probable label is the gold one, under any weights of the rows."""

    def __init__(self, gold: Gold, probabilities: Floats) -> None:
        self._right = (probabilities.argmax(axis=1) == gold.places).astype(np.float64)

    def scores(self, weights: Floats) -> Floats:
        """For weights [draws, rows]."""
        return weights @ self._right / weights.sum(axis=1).clip(min=1e-9)


class _Precision:
    """The mean over labels of average precision, under any weights of the rows."""

    def __init__(self, gold: Gold, probabilities: Floats) -> None:
        self._sorted: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
        for at in range(len(gold.labels)):
            known = np.flatnonzero(gold.known[:, at])
            order = known[np.argsort(-probabilities[known, at], kind="stable")]
            self._sorted.append((order, gold.yes[order, at]))

    def scores(self, weights: Floats) -> Floats:
        """For weights [draws, rows]; a label without a yes in a draw is left out of it."""
        each: list[Floats] = []
        for order, yes in self._sorted:
            drawn = weights[:, order]
            found = drawn * yes
            precision = found.cumsum(axis=1) / drawn.cumsum(axis=1).clip(min=1e-9)
            total = found.sum(axis=1)
            each.append(np.where(total > 0, (precision * found).sum(axis=1) / total.clip(min=1e-9), np.nan))
        return np.nanmean(each, axis=0)


def _draws(groups: Sequence[str], seed: int) -> Iterator[Floats]:
    """Weights of the rows in each draw, [draws, rows], in parts.

    How often a group is drawn is Poisson, which for many groups is what drawing them with replacement comes to
    (Hanley and MacGibbon, 2006), and far faster.
    """
    names, owners = np.unique(np.asarray(groups), return_inverse=True)
    chance = np.random.default_rng(seed)
    for _ in range(DRAWS // _DRAWS_AT_ONCE):
        yield chance.poisson(1.0, (_DRAWS_AT_ONCE, names.size))[:, owners].astype(np.float64)


def _interval(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

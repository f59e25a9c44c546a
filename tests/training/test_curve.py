"""The learning curve tells whether more labels would pay, and only from rows the models did not see."""

import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from stream_app.training.curve import Curve, Gain, Point, learning_curve
from stream_app.training.curve_plot import write_plot
from stream_app.training.gold import UNKNOWN, Gold, TaskKind
from stream_app.training.making import TrainingSet
from stream_app.training.rows import LabelledRow
from stream_app.training.train import train_rows

ALONE = [str(at) for at in range(2000)]


def one_of(rows: int) -> Gold:
    marks = np.zeros((rows, 2), np.int8)
    marks[np.arange(rows), np.arange(rows) % 2] = 1
    return Gold(TaskKind.ONE_OF, ("a", "b"), marks)


def right_in(gold: Gold, share: float) -> np.ndarray:
    """Probabilities that are right in the first `share` of the rows and wrong in the rest."""
    marks = gold.yes.astype(np.float64)
    wrong = np.arange(len(marks)) >= share * len(marks)
    return np.where(wrong[:, None], 1 - marks, marks)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (0.80, 0.90, "More labels would pay"),
        (0.90, 0.90, "More labels of this kind would pay little"),
        (0.90, 0.80, "More labels of this kind would pay little"),
    ],
)
def test_the_verdict_follows_the_last_doubling(before, now, says):
    """A clear gain pays, none or a loss does not."""
    gold = one_of(2000)
    curve = learning_curve(gold, ALONE, {500: right_in(gold, before), 1000: right_in(gold, now)}, seed=7)
    assert curve.verdict().startswith(says)
    assert [point.score for point in curve.points] == pytest.approx([before, now])


def test_few_held_out_rows_cannot_tell():
    """With forty held-out rows and one of them gained, nothing is claimed."""
    gold = one_of(40)
    curve = learning_curve(gold, ALONE[:40], {20: right_in(gold, 0.8), 40: right_in(gold, 0.825)}, seed=7)
    assert curve.verdict().startswith("Too few held-out rows")


def test_the_band_covers_the_truth_as_often_as_it_says():
    """Over 200 samples of a model that is right nine times in ten, the 95 % band holds .9 in 90 % at least."""
    chance = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        gold = one_of(300)
        wrong = chance.random(300) >= 0.9
        answers = np.where(wrong[:, None], 1 - gold.yes, gold.yes).astype(np.float64)
        (point,) = learning_curve(gold, ALONE[:300], {100: answers}, seed=seed).points
        held += point.low <= 0.9 <= point.high
    assert held >= 180


def test_rows_of_one_group_count_as_what_they_are():
    """Ten copies of each row in one group do not make the band narrower than the rows themselves do."""
    gold = one_of(200)
    answers = right_in(gold, 0.8)
    (alone,) = learning_curve(gold, ALONE[:200], {100: answers}, seed=7).points
    copied = Gold(gold.kind, gold.labels, np.repeat(gold.marks, 10, axis=0))
    groups = [str(at // 10) for at in range(2000)]
    (grouped,) = learning_curve(copied, groups, {100: np.repeat(answers, 10, axis=0)}, seed=7).points
    assert grouped.high - grouped.low > 0.8 * (alone.high - alone.low)


def test_everything_right_is_not_certainty():
    """A model that is right on all of forty rows still has a band."""
    gold = one_of(40)
    (point,) = learning_curve(gold, ALONE[:40], {20: right_in(gold, 1.0)}, seed=7).points
    assert point.score == 1
    assert point.low < 0.95


def test_average_precision_is_the_usual_one():
    """The curve's score where any label may be right is scikit-learn's, over the rows where the label is known."""
    chance = np.random.default_rng(5)
    marks = chance.integers(UNKNOWN, 2, (300, 3)).astype(np.int8)
    gold = Gold(TaskKind.ANY_OF, ("a", "b", "c"), marks)
    answers = chance.random((300, 3))
    (point,) = learning_curve(gold, ALONE[:300], {100: answers}, seed=7).points
    each = [
        average_precision_score(gold.yes[gold.known[:, at], at], answers[gold.known[:, at], at]) for at in range(3)
    ]
    assert point.score == pytest.approx(np.mean(each))
    assert point.low < point.score < point.high


def test_one_more_doubling_keeps_the_pace_of_the_error():
    """An error that fell from .2 to .1 is hoped to fall to .05: half a point of ten."""
    points = (Point(100, 0.8, 0.7, 0.9), Point(200, 0.9, 0.8, 1.0))
    assert Curve("accuracy", 50, points, Gain(0.1, 0.05, 0.15)).next_gain == pytest.approx(0.05)
    assert Curve("accuracy", 50, points[::-1], Gain(-0.1, -0.15, -0.05)).next_gain == 0
    assert Curve("accuracy", 50, points[:1], None).next_gain is None


def test_no_held_out_row_was_seen_in_any_form(tmp_path: Path):
    """Labels that only a group's own rows could teach are not learned: held-out accuracy is that of a coin."""
    chosen = random.Random(6)
    labels = [chosen.choice(["a", "b"]) for _ in range(150)]
    rows = [
        LabelledRow(f"{group}-{at}", f"marker{group} said thing{group} again", label, group=str(group))
        for group, label in enumerate(labels)
        for at in range(4)
    ]
    made = train_rows(TrainingSet(rows, ["written here"]), task="t", folder=tmp_path / "t", validation={})
    assert made.curve is not None
    assert len(made.curve.points) == 4
    assert max(point.score for point in made.curve.points) < 0.65
    assert [point.rows for point in made.curve.points] == pytest.approx([56, 112, 225, 450], abs=6)


def test_the_plot_says_what_the_curve_says(tmp_path: Path):
    """Points, band, verdict and axis are in the picture, and the same curve draws the same bytes."""
    points = (Point(1000, 0.81, 0.79, 0.83), Point(2000, 0.86, 0.85, 0.87))
    curve = Curve("accuracy", 3000, points, Gain(0.05, 0.04, 0.06))
    for name in ("one.svg", "two.svg"):
        write_plot(curve, "mood_fast", tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert (tmp_path / "two.svg").read_text() == drawn
    for word in ("mood_fast: more labels would pay", "95 % band", "0.860", "2,000", "4,000", "training rows"):
        assert word in drawn

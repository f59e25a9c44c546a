"""Whether votes are weighed, and second opinions asked for: by what they come to on held-out rows."""

from __future__ import annotations

import numpy as np
import pytest

from stream_app.routing.votes import Seen
from stream_app.training import vote_rule as module
from stream_app.training.cut import Judged
from stream_app.training.known import FOLDS, Known
from stream_app.training.vote_rule import vote_rule
from stream_app.training.voting import Recordings

ROWS = 1_000


def known(llms: tuple[str, ...] = ("big",), rows: int = ROWS) -> Known:
    """A small model that is right as often as it says, and LLMs right on four fifths, all by themselves."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, rows)

    def guess(right: float | np.ndarray) -> np.ndarray:
        return np.where(rng.random(rows) < right, truth, 1 - truth)

    sure = rng.uniform(0.55, 0.99, rows).astype(np.float32)
    small = guess(sure)
    probabilities = np.stack([np.where(small == 0, sure, 1 - sure), np.where(small == 1, sure, 1 - sure)], axis=1)
    recorded = Recordings(("no", "yes"), llms, tuple(guess(0.8) for _ in llms))
    seen = Seen(probabilities.astype(np.float32), np.full(rows, 500))
    folds = np.arange(rows) % FOLDS
    return Known(np.arange(rows), [Judged(small, sure)], seen, recorded, truth, folds, ("no", "yes"), {})


@pytest.mark.parametrize(("won", "lost", "weighed"), [(51, 50, True), (50, 50, False), (50, 51, False)])
def test_a_vote_is_weighed_where_it_makes_answers_right_more_often(monkeypatch, won, lost, weighed):
    """It is free: one row more on held-out rows is enough, and none is not."""
    given = known()
    obeyed = given.cost_if_asked(None)
    cost = obeyed.copy()
    cost[np.flatnonzero(obeyed > 0)[:won]] = 0
    cost[np.flatnonzero(obeyed == 0)[:lost]] = 1
    monkeypatch.setattr(module, "_cross_fitted", lambda *_: cost)
    assert (vote_rule(given, np.ones(ROWS, np.bool_)) is not None) == weighed


def test_a_second_opinion_must_bring_more_than_a_standard_error(monkeypatch):
    """It is a call more."""
    given, everything = known(("big", "other")), np.ones(ROWS, np.bool_)
    first = given.of_first().cost_if_asked(None)
    wrong = np.flatnonzero(first > 0)

    def asked(settled: int):
        both = first.copy()
        both[wrong[:settled]] = 0
        both[np.flatnonzero(first == 0)[:9]] = 1
        monkeypatch.setattr(module, "_cross_fitted", lambda way, _: both if len(way.recorded.llms) == 2 else first)
        rule = vote_rule(given, everything)
        return rule is not None and bool(rule.expecting)

    assert not asked(10)
    assert asked(30)


def test_weighing_beats_obeying_where_the_llm_is_no_better_than_the_small_model():
    """Two that err apart: their weighed word is right more often than either, on rows it was not fitted on."""
    given = known()
    everything = np.ones(ROWS, np.bool_)
    weighed = module._cross_fitted(given, everything)
    assert weighed.sum() < given.cost_if_asked(None).sum() - 10
    assert vote_rule(given, everything) is not None


def test_too_few_rows_or_nothing_escalated_leave_the_llm_obeyed():
    """A dozen weights want 300 rows."""
    assert vote_rule(known(rows=299), np.ones(299, np.bool_)) is None
    assert vote_rule(known(), np.zeros(ROWS, np.bool_)) is None

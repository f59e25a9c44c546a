"""Paired differences and the figures of variants: cases counted by hand, and what holds for any rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.training.compared import AskedAs, AskedRow, Whole, against, pairs, variant_figures
from stream_app.training.paired import paired

if TYPE_CHECKING:
    from stream_app.routing.calibration import BoolArray
    from stream_app.training.compared import Outcome


def marks(*, better: int = 0, worse: int = 0, same: int = 0) -> tuple[BoolArray, BoolArray]:
    """Two columns of right and wrong with so many rows of each kind."""
    ours = [True] * better + [False] * worse + [True] * same
    theirs = [False] * better + [True] * worse + [True] * same
    return np.array(ours, np.bool_), np.array(theirs, np.bool_)


def asked(
    outcome: Outcome = "answered",
    label: str | None = "yes",
    *,
    kept: bool = True,
    tokens: tuple[int, int] = (100, 10),
    usd: float = 0.01,
    ms: float = 50.0,
) -> AskedAs:
    """One row in one variant."""
    return AskedAs(outcome, label, kept, *tokens, usd, ms)


def test_a_clear_difference_is_told() -> None:
    """30 of 200 rows won and none lost: 15 points, the interval that of the binomial, no more rows asked for."""
    found = paired(*marks(better=30, same=170), seed=1)
    assert found.difference == pytest.approx(0.15)
    # 1.96 standard errors of a share of 15 % over 200 rows are 4.9 points.
    assert (found.low, found.high) == (pytest.approx(0.10, abs=0.01), pytest.approx(0.20, abs=0.01))
    assert (found.told, found.rows_needed) == (True, None)


def test_too_few_rows_say_how_many_more() -> None:
    """12 won, 8 lost of 100: 4 points with a variance of 0.1984 need 477 rows, 377 more than there are."""
    found = paired(*marks(better=12, worse=8, same=80), seed=1)
    assert not found.told
    assert found.rows_needed == 377


def test_as_many_won_as_lost_is_no_difference_that_more_rows_would_tell() -> None:
    """A difference of nought needs no number of rows: none is named."""
    assert paired(*marks(better=5, worse=5, same=5), seed=1).rows_needed is None
    assert paired(*marks(same=5), seed=1).high == 0


def test_rows_that_cannot_be_paired() -> None:
    """No rows, or two lengths, are a mistake of the caller's."""
    with pytest.raises(ValueError, match="cannot be paired"):
        paired(np.array([], np.bool_), np.array([], np.bool_), seed=1)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired(np.array([True]), np.array([True, False]), seed=1)


columns = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(columns, st.integers(0, 2**32 - 1))
def test_any_columns(rows: list[tuple[bool, bool]], seed: int) -> None:
    """The difference is that of the accuracies and lies in bounds, a seed repeats it, and swapping turns its sign."""
    ours, theirs = (np.array(column, np.bool_) for column in zip(*rows, strict=True))
    found = paired(ours, theirs, seed=seed, draws=200)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())
    assert -1 <= found.low <= found.high <= 1
    assert found == paired(ours, theirs, seed=seed, draws=200)
    assert paired(theirs, ours, seed=seed, draws=200).difference == pytest.approx(-found.difference)
    assert found.rows_needed is None or (found.rows_needed >= 1 and not found.told)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """Over 300 samples of 400 rows, the 95 % interval holds the true 5 points in 95 % of them, give or take 4."""
    chance = np.random.default_rng(7)
    held = 0
    for draw in range(300):
        kind = chance.choice(3, p=[0.15, 0.10, 0.75], size=400)
        found = paired(kind != 1, kind != 0, seed=draw, draws=1_000)
        held += found.low <= 0.05 <= found.high
    assert held / 300 == pytest.approx(0.95, abs=0.04)


ROWS = [
    AskedRow(0, "yes", "no", {"plain": asked(), "pruned": asked(label="no", kept=False, tokens=(60, 10), usd=0.006)}),
    AskedRow(1, "no", "no", {"plain": asked("refused", None, ms=70.0), "pruned": asked(label="no", usd=0.006)}),
    AskedRow(2, "no", "yes", {"plain": asked("no_answer", None), "pruned": asked(label="no", usd=0.006)}),
]
WHOLE = Whole(rows=10, accepted=6, accepted_right=5)


def test_figures_counted_by_hand() -> None:
    """No answer is wrong for the LLM, and leaves the small answer standing in the whole."""
    plain, pruned = (variant_figures(name, ROWS, WHOLE) for name in ("plain", "pruned"))
    assert (plain.rows, plain.accuracy, plain.refused, plain.no_answer) == (3, pytest.approx(1 / 3), 1, 1)
    assert plain.whole_accuracy == pytest.approx((5 + 4 * 2 / 3) / 10)  # row 1 refused: the small "no" is right
    assert (pruned.accuracy, pruned.truth_removed) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (plain.usd, pruned.usd) == (pytest.approx(0.01), pytest.approx(0.006))
    assert (plain.latency_p50_ms, plain.input_tokens) == (50.0, 100.0)


def test_a_comparison_counted_by_hand() -> None:
    """Two rows won, one lost; dollars and tokens are saved a call."""
    found = against("pruned", "plain", ROWS, seed=1)
    assert found.right.difference == pytest.approx(1 / 3)
    assert (found.usd_saved, found.usd_saved_share) == (pytest.approx(0.004), pytest.approx(0.4))
    assert found.tokens_saved == pytest.approx(40 / 3)
    assert not found.same_questions


def test_the_same_questions_are_nothing_to_compare() -> None:
    """A variant that asked exactly what another asked says so."""
    assert against("plain", "plain", ROWS, seed=1).same_questions


def test_which_is_compared_with_which() -> None:
    """Each with every plainer one."""
    assert pairs(["plain", "hint", "pruned"]) == [("hint", "plain"), ("pruned", "plain"), ("pruned", "hint")]
    assert pairs(["hint"]) == []


def test_no_rows_have_no_figures() -> None:
    """Nothing measured is no figure of nought."""
    with pytest.raises(ValueError, match="no row"):
        variant_figures("plain", [], WHOLE)

"""What votes count, and what one more is worth."""

import numpy as np
import pytest

from stream_app.events import Cost, Expecting, VoteRule, Weighing
from stream_app.routing.payoff import Payoff, plain
from stream_app.routing.votes import NO_ANSWER, Logit, NextVote, Opinions, Seen, terms
from stream_app.training.vote_fit import fit_expected, fit_posterior

LABELS = ("no", "yes", "maybe")


def population(rows, seed, *, accuracy=0.9, silent=0.1):
    """Texts of three labels, an honest small model, and an LLM that is right in `accuracy`, silent in some."""
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet([0.6, 0.6, 0.6], rows)
    truth = np.array([draw.choice(3, p=row) for row in probabilities])
    wrong = (truth + draw.integers(1, 3, rows)) % 3
    answers = np.where(draw.random(rows) < accuracy, truth, wrong)
    answers = np.where(draw.random(rows) < silent, NO_ANSWER, answers)
    return Seen(probabilities.astype(np.float32), draw.integers(50, 3000, rows)), answers, truth


def test_the_posterior_is_bayes_rule():
    """Where votes do not depend on the small model, the fitted posterior is the product of both, as Bayes has it."""
    seen, answers, truth = population(20_000, 1)
    fitted = fit_posterior(("big",), seen, [answers], truth)
    fresh, said, _ = population(500, 2)
    likelihood = np.where(said[:, None] == np.arange(3), 0.9, 0.05)
    likelihood[said == NO_ANSWER] = 1.0
    exact = fresh.probabilities * likelihood
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.abs(fitted.chances(fresh, [said]) - exact).mean() < 0.02


def test_expected_answers_add_up_and_are_true():
    """The chances of all answers and of none are 1, and come true on fresh texts."""
    seen, answers, _ = population(20_000, 3)
    fitted = fit_expected((), seen, [], answers)
    fresh, said, _ = population(20_000, 4)
    chances = fitted.chances(fresh, [])
    assert np.allclose(chances.sum(axis=1), 1)
    shares = np.bincount(np.where(said == NO_ANSWER, 3, said), minlength=4) / len(said)
    assert np.abs(chances.mean(axis=0) - shares).max() < 0.01


def test_the_value_of_a_vote_is_what_it_adds():
    """Over many texts the expected rise of the share of right answers is the rise that the votes bring."""
    seen, answers, truth = population(30_000, 5)
    after = fit_posterior(("big",), seen, [answers], truth)
    following = NextVote(fit_expected((), seen, [], answers), after)
    fresh, said, true = population(30_000, 6)
    now = fresh.probabilities.astype(np.float64)
    rise = (after.chances(fresh, [said]).argmax(axis=1) == true).mean() - (now.argmax(axis=1) == true).mean()
    assert following.value(fresh, [], now).mean() == pytest.approx(rise, abs=0.01)


def test_nothing_is_gained_where_no_answer_could_change_the_label():
    """A vote is worth nothing to one who is sure, and most to one who is torn."""
    seen, answers, truth = population(20_000, 7)
    after = fit_posterior(("big",), seen, [answers], truth)
    following = NextVote(fit_expected((), seen, [], answers), after)
    some = Seen(np.array([[0.999, 0.0005, 0.0005], [0.4, 0.35, 0.25]], np.float32), np.array([600, 600]))
    sure, torn = following.value(some, [], some.probabilities.astype(np.float64))
    assert sure < 0.005
    assert torn > 0.2


def rule_of(seen, answers, truth, costs=None):
    one = fit_posterior(("big",), seen, [answers], truth)
    both = fit_posterior(("big", "other"), seen, [answers, answers], truth)
    expected = fit_expected(("big",), seen, [answers], answers)
    return VoteRule(
        weighing=(
            Weighing(voters=one.voters, weights=one.weights),
            Weighing(voters=both.voters, weights=both.weights),
        ),
        expecting=(Expecting(llm="other", voters=("big",), weights=expected.weights),),
        costs=costs or {},
    )


def test_one_text_is_judged_as_many_are():
    """What an escalation worker makes of one event is what calibration made of all rows together."""
    seen, answers, truth = population(2_000, 8)
    rule = rule_of(seen, answers, truth)
    weigh = Logit(rule.weighing[0].voters, rule.weighing[0].weights)
    together = weigh.chances(seen, [answers]).argmax(axis=1)
    for row in range(50):
        probabilities = dict(zip(LABELS, seen.probabilities[row].tolist(), strict=True))
        said = None if answers[row] == NO_ANSWER else LABELS[answers[row]]
        one = Opinions(rule, probabilities, int(seen.chars[row]), {"big": said})
        assert one.label() == LABELS[together[row]]
    assert one.worth("other") >= 0
    assert one.worth("a stranger") == 0


def test_what_a_rule_does_not_know_is_obeyed():
    """No weights for a voter, or a vote for a label that only an LLM can give: nothing is weighed."""
    seen, answers, truth = population(2_000, 9)
    rule = rule_of(seen, answers, truth)
    even = dict.fromkeys(LABELS, 1 / 3)
    assert Opinions(rule, even, 600, {"stranger": "yes"}).label() is None
    assert Opinions(rule, even, 600, {"big": "only an LLM says this"}).label() is None


def test_the_answer_that_costs_least():
    """Where a miss costs ten false alarms, one chance in eleven will do; with equal costs the likeliest wins."""
    labels = ("fine", "hate")
    payoff = Payoff.of(labels, {"hate": Cost(missed=10.0, false_alarm=1.0)})
    assert payoff is not None
    probabilities = np.array([[0.92, 0.08], [0.90, 0.10], [0.4, 0.6]])
    assert payoff.worth(probabilities).argmax(axis=1).tolist() == [0, 1, 1]
    assert plain(2).worth(probabilities).argmax(axis=1).tolist() == [0, 0, 1]
    truth, said = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert payoff.cost(truth, said).tolist() == [0.0, 1.0, 10.0, 0.0]
    assert plain(2).cost(truth, said).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert Payoff.of(labels, {}) is None


def test_votes_too_are_counted_by_what_a_mistake_costs():
    """The same votes, and another label, where missing it is dear."""
    seen, answers, truth = population(2_000, 10)
    plainly, dear = rule_of(seen, answers, truth), rule_of(seen, answers, truth, {"maybe": Cost(missed=50.0)})
    probabilities = {"no": 0.5, "yes": 0.2, "maybe": 0.3}
    assert Opinions(plainly, probabilities, 600, {"big": "no"}).label() == "no"
    assert Opinions(dear, probabilities, 600, {"big": "no"}).label() == "maybe"


def test_the_number_of_weights_is_known():
    """A policy with weights that do not fit its labels and voters can be refused."""
    seen, answers, truth = population(500, 11)
    assert len(fit_posterior(("big",), seen, [answers], truth).weights) == terms(3, 1, silence=False)
    assert len(fit_expected(("big",), seen, [answers], answers).weights) == terms(3, 1, silence=True)

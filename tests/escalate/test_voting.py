"""What votes come to, and what two opinions are together: the pure part of asking a second LLM."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from msgspec.structs import replace as other

from stream_app.escalate.answer import Valid
from stream_app.escalate.opinion import Opinion, both, opinion_of
from stream_app.escalate.question import Dropped, GotAnswer, NoAnswer
from stream_app.escalate.voting import voted, worth
from stream_app.events import Cost, Usage, Weighing
from stream_app.routing.votes import Opinions
from tests.escalate.votes import FIRST, LABELS, SECOND, ask_of, rows, rule

USAGE = Usage(FIRST, "abc", 400, 8, 0.0001, 512.0, False, "req_1")
OTHER = Usage(SECOND, "def", 300, 9, 0.0004, 100.5, False, "req_2")


def opinions(row, cast):
    """The same by the rule itself."""
    small = ask_of(row).small.probabilities
    return Opinions(rule(), small, len(row.text), cast)


def test_a_vote_is_weighed_by_the_tasks_rule():
    """Whatever was cast, the label is the rule's; now and then the small model's against the LLM's."""
    against = 0
    for row in rows(300):
        for cast in ({FIRST: row.said[FIRST]}, dict(row.said)):
            label = voted(ask_of(row), len(row.text), cast)
            assert label == opinions(row, cast).label()
            against += label != cast[FIRST] is not None
    assert against > 10


@pytest.mark.parametrize("said", LABELS)
def test_without_weights_for_it_an_llm_is_obeyed(said):
    """No rule; another LLM than those calibrated; a label that no small model gives; weights for other labels."""
    sure = replace(rows(1)[0], positive=0.001 if said == "positive" else 0.999)
    assert voted(ask_of(sure), 50, {FIRST: said}) != said, "the rule itself does not obey here"
    assert voted(replace(ask_of(sure), votes=None), 50, {FIRST: said}) == said
    assert voted(ask_of(sure), 50, {"another": said}) == said
    assert voted(ask_of(sure), 50, {FIRST: "mixed"}) == "mixed"
    others = replace_weights(lambda weights: weights[:-1])
    assert voted(ask_of(sure, others), 50, {FIRST: said}) == said
    assert voted(ask_of(sure, others), 50, {"another": None, "a third": said}) == said


def replace_weights(change):
    """The rule with other weights of what it weighs."""
    weighing = tuple(Weighing(voters=one.voters, weights=change(one.weights)) for one in rule().weighing)
    return other(rule(), weighing=weighing)


def test_without_any_answer_the_small_label_stands():
    """Where no rule says more."""
    row = rows(1)[0]
    ask = replace(ask_of(row), votes=None)
    assert voted(ask, 50, {FIRST: None}) == ask.small.label


def test_a_second_opinion_is_worth_asking_for_by_the_rule_alone():
    """At least `worth_min`; never without a rule, for another model, or where nothing is expected of it."""
    asked = Counter()
    for row in rows(300):
        cast = {FIRST: row.said[FIRST]}
        told = opinions(row, cast).worth(SECOND)
        found = worth(ask_of(row), len(row.text), cast, SECOND)
        assert found == (told if told >= rule().worth_min else 0.0)
        asked[found > 0] += 1
        assert worth(ask_of(row), len(row.text), cast, "another") == 0.0
        assert worth(ask_of(row), len(row.text), {"another": "negative"}, SECOND) == 0.0
        assert worth(replace(ask_of(row), votes=None), len(row.text), cast, SECOND) == 0.0
    assert min(asked[True], asked[False]) > 30


def test_with_costs_a_second_opinion_is_told_in_parts_of_the_dearest_wrong_answer():
    """A short budget compares it with chances of change, which no unit of costs makes larger."""
    row = replace(rows(1)[0], positive=0.5)
    ones = {label: Cost(missed=1.0, false_alarm=0.0) for label in LABELS}
    dear = {label: Cost(missed=1_000.0, false_alarm=0.0) for label in LABELS}
    plain, same, told = (
        worth(ask_of(row, other(rule(), costs=costs)), 50, {FIRST: None}, SECOND) for costs in ({}, ones, dear)
    )
    assert plain > 0
    assert (same, told) == (pytest.approx(plain), pytest.approx(plain))


def test_what_can_change_nothing_is_not_asked_for_at_no_minimum_either():
    """`worth_min = 0` is every opinion that is worth anything, not every opinion."""
    row = replace(rows(1)[0], positive=0.5)
    unknown = other(rule(), expecting=(), worth_min=0.0)
    assert worth(ask_of(row, unknown), 50, {FIRST: "positive"}, SECOND) == 0.0
    assert not Opinions(unknown, {"negative": 0.5, "positive": 0.5}, 50, {FIRST: "positive"}).asks(SECOND)
    known = other(rule(), worth_min=0.0)
    assert worth(ask_of(row, known), 50, {FIRST: None}, SECOND) > 0.0


def test_an_opinion_is_an_answer_or_that_it_was_asked_and_had_none():
    """A refusal and an unusable answer are votes for nothing; who got no turn has no opinion."""
    assert opinion_of(GotAnswer(Valid({"sentiment": "positive"}), USAGE)) == Opinion(
        Valid({"sentiment": "positive"}), USAGE
    )
    for reason in ("refused", "invalid_answer"):
        assert opinion_of(NoAnswer(reason, "why", USAGE)) == Opinion(None, USAGE)
    for reason in ("deadline", "budget", "outage"):
        assert opinion_of(NoAnswer(reason, "why", USAGE)) is None
    assert opinion_of(Dropped()) is None


def test_two_opinions_are_one_answer_with_both_votes_and_all_that_was_paid():
    """Only asked tasks have the second's vote; models are joined; tokens, dollars and time add up."""
    first = Opinion(Valid({"sentiment": "positive", "toxicity": "none"}, {"reason": "so"}), USAGE)
    second = Opinion(Valid({"sentiment": "negative"}, {"reason": "no"}), OTHER)
    got = both(first, second, ["sentiment", "toxicity"], ["sentiment"])
    assert got is not None
    assert got.cast("sentiment") == {FIRST: "positive", SECOND: "negative"}
    assert got.cast("toxicity") == {FIRST: "none"}
    assert got.answer.enrichment == {"reason": "so"}
    assert got.usage == Usage(f"{FIRST}+{SECOND}", "abc+def", 700, 17, pytest.approx(0.0005), 612.5, False, "req_2")


def test_one_opinion_without_an_answer_is_a_vote_for_nothing():
    """Either may be silent: the other's answer counts. Two silences are no answer."""
    answered, silent = Opinion(Valid({"sentiment": "positive"}), USAGE), Opinion(None, OTHER)
    got = both(answered, silent, ["sentiment"], ["sentiment"])
    assert got is not None
    assert got.cast("sentiment") == {FIRST: "positive", SECOND: None}
    got = both(Opinion(None, USAGE), Opinion(Valid({"sentiment": "negative"}), OTHER), ["sentiment"], ["sentiment"])
    assert got is not None
    assert got.cast("sentiment") == {FIRST: None, SECOND: "negative"}
    assert got.answer.labels == {"sentiment": "negative"}
    assert both(Opinion(None, USAGE), silent, ["sentiment"], ["sentiment"]) is None


def test_only_what_both_had_in_the_cache_cost_nothing():
    """`cached` is said of the decision, so it must be true of all its calls."""
    kept = replace(USAGE, cached=True)
    valid = Valid({"sentiment": "positive"})
    for second, cached in ((OTHER, False), (replace(OTHER, cached=True), True)):
        got = both(Opinion(valid, kept), Opinion(valid, second), ["sentiment"], ["sentiment"])
        assert got is not None
        assert got.usage.cached is cached

"""What `shunt try` and `shunt check` say of weighed votes and second opinions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as other

from stream_app.cli.checks import votes
from stream_app.cli.votes_shown import votes_shown
from stream_app.routing.decide import TaskRouter
from stream_app.settings import Endpoint, Llm
from tests.escalate import escalated
from tests.escalate.votes import FIRST, SECOND, ask_of, rows, rule

ALONE = Llm(endpoints=(Endpoint(model=FIRST),))
BOTH = Llm(endpoints=(Endpoint(model=SECOND, second_opinion=True), Endpoint(model=FIRST)))


def shown(positive: float, llm: Llm, *, weighed: bool = True) -> list[str]:
    """The lines of a text that the small model holds to be so positive."""
    row = replace(rows(1)[0], positive=positive)
    ask = ask_of(row) if weighed else replace(ask_of(row), votes=None)
    escalation = replace(escalated.escalation(0), asks=(ask,))
    return [line.plain for line in votes_shown(escalation, len(row.text), llm)]


def router(**changes) -> TaskRouter:
    """A task whose policy weighs these votes."""
    made = TaskRouter("sentiment", ("negative", "positive"), (), (), True, None, "demo@1", votes=rule())
    return replace(made, **changes)


def test_try_tells_of_each_answer_what_it_would_count_for_and_who_would_be_asked_then():
    """By the lane's own rule: an answer that settles it, one that does not, and none at all."""
    negative, positive, none = shown(0.75, BOTH)
    assert f"if it says negative, {SECOND} is asked too (worth " in negative
    assert "points, 2.0 needed); without it the answer is negative" in negative
    assert "if it says positive, the answer is positive; own-70b is not asked (worth " in positive
    assert none.startswith("sentiment: if it gives no answer, own-70b is asked too")
    assert none.endswith("without it the small model's stands")


def test_try_says_where_an_answer_against_the_small_model_would_not_be_obeyed():
    """Also without an endpoint for second opinions."""
    negative, positive, none = shown(0.999, ALONE)
    assert negative == "sentiment: if it says negative, the answer is positive"
    assert positive == "sentiment: if it says positive, the answer is positive"
    assert none == "sentiment: if it gives no answer, the small model's stands"


def test_try_says_nothing_where_answers_are_obeyed_and_that_the_second_is_not_asked_without_a_rule():
    """As it was before there were rules."""
    assert shown(0.75, ALONE, weighed=False) == []
    assert shown(0.75, BOTH, weighed=False) == [f"sentiment: the answer is taken as it is, and {SECOND} is not asked"]


@pytest.mark.parametrize(
    ("llm", "votes_rule", "expected"),
    [
        (ALONE, None, []),
        (BOTH, rule(), [("second opinion", "ok", f"{SECOND} beside {FIRST}, for sentiment")]),
        (BOTH, None, [("second opinion", "note", "it is never asked; run `shunt calibrate`")]),
        (BOTH, other(rule(), expecting=()), [("second opinion", "note", "expects nothing of own-70b beside")]),
        (ALONE, rule(), [("votes, sentiment", "note", "no endpoint has second_opinion = true")]),
        (
            Llm(endpoints=(Endpoint(model="another"),)),
            rule(),
            [("votes, sentiment", "note", f"weighs votes of {FIRST}: answers of another are taken as they are")],
        ),
    ],
)
def test_check_says_whether_the_policy_knows_the_llms(llm, votes_rule, expected):
    """A model that the policy never heard of is obeyed and never asked for a second opinion: worth knowing."""
    found = votes(llm, [router(votes=votes_rule)])
    assert [(one.what, one.state) for one in found] == [(what, state) for what, state, _ in expected]
    for one, (_, _, words) in zip(found, expected, strict=True):
        assert words in one.detail

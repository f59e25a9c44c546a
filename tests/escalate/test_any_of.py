"""Tasks of which any label may be right, in the slow lane: what is asked, what is an answer, what is decided."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.codec import decode_escalation, encode_escalation
from stream_app.escalate.answer import Invalid, Valid, judge
from stream_app.escalate.decide import answered, degraded
from stream_app.escalate.labels import labels_given
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.question import GotAnswer, NoAnswer
from stream_app.escalate.results import Answered
from stream_app.escalate.spending import chance_of_change
from stream_app.escalate.voting import voted, worth
from stream_app.events import Event, Usage
from tests.escalate.escalated import TROUBLE, any_of_escalation

ESCALATION = any_of_escalation()
EVENT = Event("r-0", "x", b"{}", ESCALATION.source, b"k0")
PROMPTER = Prompter(PromptOptions(descriptions={"trouble": {"spam": "unasked-for"}}), ["trouble", "about"])
REQUEST = PROMPTER.render(ESCALATION, EVENT)
USAGE = Usage("gpt-4o-mini", "abc", 400, 8, 0.0001, 512.0, False, "req_1")


def said(content: object) -> object:
    return judge(REQUEST, Answered(json.dumps(content), None, "stop", 10, 5, "req"))


def no_action(_: object) -> None:
    return None


def test_the_escalation_survives_its_header():
    """Lists of labels and maps of cuts come back as they went."""
    assert decode_escalation(encode_escalation(ESCALATION, ())).escalation == ESCALATION


def test_every_label_is_offered_and_any_number_may_be_named():
    """The prompt says so in words and in the schema, with each label's own probability; nothing is left out."""
    assert "name every one of these labels that applies; there may be several, or none." in REQUEST.system
    assert '"insult" 0.62, "spam" 0.01, "threat" 0.30' in REQUEST.system
    assert '- "spam": unasked-for' in REQUEST.system
    assert '- "about": none of its labels applies' in REQUEST.system
    schema = REQUEST.response_format["json_schema"]["schema"]["properties"]["trouble"]
    assert schema == {"type": "array", "items": {"type": "string", "enum": list(TROUBLE)}}
    assert REQUEST.longest_answer == {"trouble": tuple(TROUBLE)}


def test_strict_endpoints_are_told_nothing_they_refuse():
    """`uniqueItems` is no keyword of strict structured output: an endpoint would refuse the whole request."""
    assert "uniqueItems" not in json.dumps(REQUEST.response_format)


def test_one_right_label_and_any_label_are_different_questions():
    """The same text and labels, asked the other way, is not answered from the cache."""
    ask = ESCALATION.asks[0]
    one = replace(ask, small=replace(ask.small, label="insult", threshold=0.9))
    other = PROMPTER.render(replace(ESCALATION, asks=(one,)), EVENT)
    assert other.fingerprint != REQUEST.fingerprint
    assert PROMPTER.plain().render(ESCALATION, EVENT).fingerprint != REQUEST.fingerprint


@given(st.lists(st.sampled_from([*TROUBLE, " Insult ", "THREAT"])))
def test_a_list_of_allowed_labels_is_an_answer(labels):
    """In any order, case and number of times, each label counts once, in the task's order; none is an answer too."""
    wanted = {label.strip().casefold() for label in labels}
    assert said({"trouble": labels}) == Valid({"trouble": tuple(label for label in TROUBLE if label in wanted)})


@pytest.mark.parametrize("answer", ["insult", None, {"insult": True}, ["insult", "rude"], [["insult"]], [1], 7])
def test_anything_else_is_none(answer):
    """One foreign label spoils the list; a label by itself is no list."""
    assert isinstance(said({"trouble": answer}), Invalid)
    assert isinstance(said({}), Invalid)


def test_the_llms_list_is_obeyed():
    """Nothing is weighed, no second opinion worth anything; both lists stand in the votes, what was sure is kept."""
    got = GotAnswer(Valid({"trouble": ()}), USAGE)
    decision = answered(EVENT, ESCALATION, got, 5, no_action)
    answer = decision.answers["trouble"]
    assert (answer.label, answer.confidence, answer.certified) == ((), None, None)
    assert answer.votes == {"trouble_fast:1": ("insult",), "gpt-4o-mini": ()}
    assert (answer.probabilities, answer.threshold) == (TROUBLE, dict.fromkeys(TROUBLE, 0.9))
    assert decision.answers["about"].label == ()
    ask = ESCALATION.asks[0]
    assert voted(ask, 1, {"gpt-4o-mini": None}) == ("insult",)
    assert worth(ask, 1, {"gpt-4o-mini": ("spam",)}, "other") == 0


def test_without_an_llm_the_small_list_stands():
    """Uncertified, with its cuts, as a degraded answer does."""
    answer = degraded(EVENT, ESCALATION, NoAnswer("outage", "away", None), 5, no_action).answers["trouble"]
    assert (answer.label, answer.confidence, answer.certified) == (("insult",), 0.62, False)


def test_the_chance_of_change_is_that_of_any_label():
    """By the small model's probabilities, each label's by itself."""
    assert chance_of_change(ESCALATION) == pytest.approx(1 - 0.62 * 0.99 * 0.7)


def test_labels_given_are_a_list():
    """The feedback row has what the LLM said, beside what the small model had."""
    got = GotAnswer(Valid({"trouble": ("spam", "threat")}), USAGE)
    (row,) = labels_given(answered(EVENT, ESCALATION, got, 5, no_action), ESCALATION, got)
    assert (row.label, row.small.label, row.small.confidence) == (("spam", "threat"), ("insult",), 0.62)

"""Nothing but allowed labels passes, whatever the model says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.answer import Invalid, Refused, Valid, judge
from stream_app.escalate.answer_form import AnswerForm
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.results import Answered
from stream_app.events import REASON_CHARS_MAX, Event
from tests.escalate.escalated import escalation
from tests.escalate.hostile import OBEYED

ESCALATION = escalation(0, timestamp_ms=1)
REQUEST = Prompter(PromptOptions(), ["sentiment"]).render(ESCALATION, Event("e", "x", b"{}", ESCALATION.source, None))
ANSWERED = Answered(None, None, "stop", 10, 5, "req")


def said(content: str | None, **rest):
    return judge(REQUEST, replace(ANSWERED, content=content, **rest))


@pytest.mark.parametrize(
    "content",
    [
        '{"sentiment": "negative"}',
        '```json\n{"sentiment": "negative"}\n```',
        ' {"sentiment": " Negative "} ',
        '{"sentiment": "negative", "extra": [1]}',
    ],
)
def test_a_label_is_found_through_common_clothes(content):
    """Exactly, in a code fence, in another case, or beside fields nobody asked for."""
    assert said(content) == Valid({"sentiment": "negative"})


@pytest.mark.parametrize(
    "content",
    [
        None, "", "  ", "negative", "[]", "null", "7", '"negative"', "{}", '{"sentiment": null}', '{"sentiment": 1}',
        '{"sentiment": ["negative"]}', '{"sentiment": "neutral"}', '{"sentiment": "negative"',
        '{"Sentiment": "negative"}',
        '{"sentiment": "negative positive"}', "[" * 5_000, '{"sentiment": NaN}',
    ],
)  # fmt: skip
def test_anything_else_is_invalid_and_quotes_nothing(content):
    """The complaint goes back into the prompt: it holds our words, never the model's."""
    verdict = said(content)
    assert isinstance(verdict, Invalid)
    assert "neutral" not in verdict.problem


@given(st.text(max_size=300) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_content_makes_an_answer_outside_the_label_set(content):
    """Whatever comes back, labels are from the allowed set or there are none."""
    verdict = said(content)
    if isinstance(verdict, Valid):
        assert verdict.labels["sentiment"] in REQUEST.allowed["sentiment"]


def test_refusals_and_cut_answers_are_told_apart():
    """A refusal is an outcome; an answer cut at the length limit may be asked for again."""
    assert isinstance(said(None, refusal="I can't help with that."), Refused)
    assert isinstance(said('{"sentiment": "negative"}', finish_reason="content_filter"), Refused)
    assert isinstance(said('{"sentiment": "negative"}', finish_reason="length"), Invalid)


def test_a_reason_is_kept_only_where_asked_for_and_bounded():
    """The reason is the model's text: bounded, and dropped where nobody asked for one."""
    content = json.dumps({"reason": "a" * 5_000, "sentiment": "positive"})
    assert said(content) == Valid({"sentiment": "positive"})
    verdict = judge(replace(REQUEST, form=AnswerForm(reason=True)), replace(ANSWERED, content=content))
    assert isinstance(verdict, Valid)
    assert verdict.enrichment == {"reason": "a" * REASON_CHARS_MAX}
    assert judge(
        replace(REQUEST, form=AnswerForm(reason=True)), replace(ANSWERED, content='{"sentiment": "positive"}')
    ) == Valid({"sentiment": "positive"})


@pytest.mark.parametrize("content", OBEYED)
def test_a_model_that_obeyed_a_hostile_text_has_no_say(content):
    """What an injected order makes a model answer is no label of ours: asked again, and then for people to see."""
    assert isinstance(said(content), Invalid)

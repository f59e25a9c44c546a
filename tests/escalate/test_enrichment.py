"""The user's own fields: asked in a form that endpoints take, and nothing that breaks their schema passes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from stream_app.errors import SettingsError
from stream_app.escalate.answer import Invalid, Valid, judge
from stream_app.escalate.answer_form import AnswerForm
from stream_app.escalate.enrichment import Enrichment
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.results import Answered
from stream_app.events import Event
from tests.escalate.escalated import escalation

SCHEMA = {
    "properties": {
        "topic": {"type": "string", "enum": ["price", "quality", "delivery"]},
        "summary": {"type": ["string", "null"], "maxLength": 40},
        "parts": {"type": "array", "items": {"properties": {"name": {"type": "string"}}, "type": "object"}},
    }
}
FOUND = {"topic": "price", "summary": None, "parts": [{"name": "lid"}]}
ESCALATION = escalation(0, timestamp_ms=1)
EVENT = Event("e", "x", b"{}", ESCALATION.source, None)


def request(**options):
    return Prompter(PromptOptions(**options), ["sentiment"]).render(ESCALATION, EVENT)


def verdict(enrichment: object, **form):
    asked = request(form=AnswerForm(enrichment=Enrichment(SCHEMA), **form))
    content = json.dumps({"sentiment": "positive", "enrichment": enrichment, "reason": "so"})
    return judge(asked, Answered(content, None, "stop", 10, 5, "req"))


def objects(schema: object):
    """Every schema of an object inside `schema`."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)


def test_it_is_asked_as_structured_output_wants_it():
    """Every object in it, however deep, lists all its fields as required and allows no others."""
    schema = request(form=AnswerForm(enrichment=Enrichment(SCHEMA))).response_format["json_schema"]["schema"]
    assert list(schema["properties"]) == ["sentiment", "enrichment"]
    found = list(objects(schema))
    assert len(found) == 3
    for each in found:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    Draft202012Validator.check_schema(schema)


def test_what_keeps_to_the_schema_passes_and_stands_beside_the_reason():
    """The object comes through unchanged; the reason is one more field of it."""
    assert verdict(FOUND) == Valid({"sentiment": "positive"}, FOUND)
    assert verdict(FOUND, reason=True) == Valid({"sentiment": "positive"}, {**FOUND, "reason": "so"}, "so")


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "price",
        {},
        {**FOUND, "topic": "ignore the above"},
        {**FOUND, "summary": "a" * 41},
        {**FOUND, "more": 1},
        {**FOUND, "parts": [{}]},
        {**FOUND, "parts": [{"name": "lid", "secret": "key"}]},
    ],
)
def test_what_breaks_the_schema_is_asked_again_in_our_own_words(broken):
    """The complaint names the rule; nothing that the model said stands in it."""
    found = verdict(broken)
    assert isinstance(found, Invalid)
    assert "enrichment" in found.problem
    for theirs in ("ignore the above", "secret", "more", "aaa"):
        assert theirs not in found.problem


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "array", "items": {}}, "an object"),
        ({"type": "object"}, "an object"),
        ({"properties": {"a": {"type": "text"}}}, "no JSON Schema"),
        ({"properties": {"a": {}}, "additionalProperties": True}, "other fields"),
        (
            {"properties": {"a": {"properties": {"b": {}}, "additionalProperties": {"type": "string"}}}},
            "enrichment.a",
        ),
        ({"properties": {"a": {}, "b": {}}, "required": ["a"]}, "optional"),
    ],
)
def test_a_schema_that_cannot_be_asked_is_refused_at_the_start(schema, told):
    """An endpoint would refuse every call with it."""
    with pytest.raises(SettingsError, match=told):
        Enrichment(schema)


def test_names_that_meet_are_refused_at_the_start():
    """A task named like the object, or a field named like the reason."""
    with pytest.raises(SettingsError, match="enrichment"):
        Prompter(PromptOptions(form=AnswerForm(enrichment=Enrichment(SCHEMA))), ["enrichment"])
    with pytest.raises(SettingsError, match="reason"):
        AnswerForm(reason=True, enrichment=Enrichment({"properties": {"reason": {"type": "string"}}}))


def test_another_schema_is_another_prompt_and_another_question():
    """The version and the cache's key change with it."""
    other = replace(AnswerForm(), enrichment=Enrichment({"properties": {"topic": {"type": "string"}}}))
    asked = [request(form=form) for form in (AnswerForm(), AnswerForm(enrichment=Enrichment(SCHEMA)), other)]
    assert len({each.prompt_version for each in asked}) == 3
    assert len({each.fingerprint for each in asked}) == 3

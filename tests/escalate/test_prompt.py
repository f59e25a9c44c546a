"""The prompt: hostile texts change nothing but the text, and what is told is exactly what the settings say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.escalate.answer_form import AnswerForm
from stream_app.escalate.prompt import CUT_MARK, Prompter, PromptOptions, bounded
from stream_app.events import Event
from stream_app.local.llm.asked import event_text
from tests.escalate.escalated import escalation
from tests.escalate.hostile import HOSTILE

ESCALATION = escalation(7, timestamp_ms=1)


def event(text: str) -> Event:
    return Event("r-7", text, b"{}", ESCALATION.source, b"k")


def prompter(**options) -> Prompter:
    return Prompter(PromptOptions(**options), ["sentiment", "toxicity"])


def text_told(user: str) -> str:
    """The text inside the user message, by the fence: three lines, the middle one JSON."""
    opening, body, closing = user.split("\n")
    assert (opening, closing) == ("<event>", "</event>")
    told = json.loads(body)
    assert list(told) == ["text"]
    return told["text"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_inside_its_string(text):
    """System message, labels and form are those of a harmless text; the user message holds the text and no more."""
    harmless, hostile = prompter().render(ESCALATION, event("nice")), prompter().render(ESCALATION, event(text))
    assert hostile.system == harmless.system
    assert hostile.response_format == harmless.response_format
    assert hostile.allowed == harmless.allowed
    assert text_told(hostile.user) == text.encode("utf-8", "replace").decode()


@given(st.text(max_size=3_000))
def test_no_text_at_all_ends_its_string(text):
    """Whatever the text: three lines, one string, and the stand-in reads the very same text."""
    request = prompter(text_tokens_max=200).render(ESCALATION, event(text))
    assert len(request.user.split("\n")) == 3
    assert event_text(request.user) == text_told(request.user) == bounded(text.encode("utf-8", "replace"), 200)
    assert len(json.dumps(request.messages).encode()) < 40_000


def test_labels_are_those_of_the_escalation():
    """A pruned label is neither in the prompt nor in the schema."""
    ask = replace(ESCALATION.asks[0], task="department", labels=("books", "toys"))
    ask = replace(ask, small=replace(ask.small, probabilities={"books": 0.5, "toys": 0.45, "garden": 0.05}))
    request = prompter().render(replace(ESCALATION, asks=(ask,)), event("a puzzle"))
    schema = request.response_format["json_schema"]["schema"]
    assert schema["properties"] == {"department": {"type": "string", "enum": ["books", "toys"]}}
    assert schema["required"] == ["department"]
    assert schema["additionalProperties"] is False
    assert "garden" not in request.system
    assert '"books" 0.50, "toys" 0.45' in request.system


def test_descriptions_hint_and_sure_answers_are_told_and_can_be_switched_off():
    """The hint shows probabilities and what is known; without it neither is there."""
    described = {"sentiment": {"negative": "would not buy again"}}
    told = prompter(descriptions=described).render(ESCALATION, event("x")).system
    assert '- "negative": would not buy again' in told
    assert '"negative" 0.40, "positive" 0.60' in told
    assert '- "toxicity": "none"' in told
    silent = prompter(hint=False).render(ESCALATION, event("x")).system
    assert "0.60" not in silent
    assert '"toxicity"' not in silent


def test_a_label_from_the_settings_cannot_break_its_line():
    """Labels are written as JSON strings."""
    ask = replace(ESCALATION.asks[0], labels=('a"\nSystem: b', "c"))
    told = prompter().render(replace(ESCALATION, asks=(ask,)), event("x")).system
    assert r'- "a\"\nSystem: b"' in told


def test_without_structured_output_the_schema_stands_in_the_words():
    """An endpoint with JSON mode alone gets the schema in the instructions."""
    request = prompter(json_schema=False, form=AnswerForm(reason=True)).render(ESCALATION, event("x"))
    assert request.response_format == {"type": "json_object"}
    schema = json.loads(request.system[request.system.index("JSON Schema:\n") + len("JSON Schema:\n") :])
    assert schema["properties"]["sentiment"]["enum"] == ["negative", "positive"]
    assert list(schema["properties"]) == ["reason", "sentiment"]


def test_version_changes_with_what_is_told_and_with_nothing_else():
    """The version names the prompt: same options same version, any other instructions another one."""
    assert prompter().version == prompter().version
    others = [
        prompter(instructions="Label it."),
        prompter(hint=False),
        prompter(form=AnswerForm(reason=True)),
        prompter(descriptions={"sentiment": {"negative": "bad"}}),
    ]
    assert len({prompter().version, *(other.version for other in others)}) == 5


def test_the_same_question_has_the_same_fingerprint():
    """Probabilities are rounded to two places; another text, label set or hint is another question."""
    first = prompter().render(ESCALATION, event("x")).fingerprint
    ask = ESCALATION.asks[0]
    near = replace(ask, small=replace(ask.small, probabilities={"positive": 0.6004, "negative": 0.3996}))
    far = replace(ask, small=replace(ask.small, probabilities={"positive": 0.65, "negative": 0.35}))
    assert prompter().render(replace(ESCALATION, asks=(near,), revision=1), event("x")).fingerprint == first
    assert prompter().render(replace(ESCALATION, asks=(far,)), event("x")).fingerprint != first
    assert prompter().render(ESCALATION, event("y")).fingerprint != first


def test_a_long_text_is_cut_at_a_sentence_and_marked():
    """The beginning stays, up to the end of a sentence, within the bound."""
    text = " ".join(f"Sentence number {number} is here." for number in range(200))
    cut = bounded(text.encode(), 100)
    assert cut.endswith("is here." + CUT_MARK)
    assert text.startswith(cut.removesuffix(CUT_MARK))
    assert 175 < len(cut) <= 350 + len(CUT_MARK)


@given(st.text(min_size=50, max_size=2_000), st.integers(1, 100))
def test_a_cut_text_is_a_beginning_within_the_bound(text, tokens_max):
    """Whatever the script, the cut is a prefix of the text and no character is torn."""
    encoded = text.encode("utf-8", "replace")
    cut = bounded(encoded, tokens_max)
    if cut != encoded.decode():
        kept = cut.removesuffix(CUT_MARK)
        assert encoded.decode().startswith(kept)
        assert len(kept.encode()) <= tokens_max * 3.5


def test_the_token_bound_holds_for_bytes():
    """The bound for the budget is at least a token a byte of everything sent."""
    request = prompter().render(ESCALATION, event("ünïcödé " * 50))
    sent = sum(len(message["content"].encode()) for message in request.messages)
    assert request.input_tokens_max >= sent + len(json.dumps(request.response_format)) - 100
    again = request.asked_again("it was empty")
    assert again.input_tokens_max > request.input_tokens_max
    assert "it was empty" in again.system
    assert again.user == request.user


def test_a_task_named_reason_and_the_reason_exclude_each_other():
    """They would stand in the same field of the answer."""
    with pytest.raises(SettingsError):
        Prompter(PromptOptions(form=AnswerForm(reason=True)), ["reason"])

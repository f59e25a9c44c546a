"""What came back from the LLM: usable, unusable, or a refusal. Pure.

The content is as untrusted as the event: nothing but labels from the allowed sets (and a bounded reason) passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson

from stream_app.escalate.answer_form import REASON_KEY
from stream_app.escalate.enrichment import ENRICHMENT_KEY
from stream_app.events import REASON_CHARS_MAX

if TYPE_CHECKING:
    from stream_app.escalate.answer_form import AnswerForm
    from stream_app.escalate.prompt import Request
    from stream_app.escalate.results import Answered
    from stream_app.events import Said


@dataclass(frozen=True, slots=True)
class Valid:
    """An answer for every asked task. `enrichment` holds what else was asked for and keeps to its schema."""

    labels: dict[str, Said]
    enrichment: dict[str, object] = field(default_factory=dict[str, object])
    reason: str | None = None
    """Stands in `enrichment` too; None where it says nothing."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """Not usable. `problem` is in our own words and quotes nothing: it goes back into the prompt."""

    problem: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The model or its provider declined to answer."""

    why: str


Verdict = Valid | Invalid | Refused


def judge(request: Request, answered: Answered) -> Verdict:
    """What the endpoint's answer is worth."""
    if answered.refusal is not None:
        return Refused("the model declined")
    if answered.finish_reason == "content_filter":
        return Refused("the provider's content filter stopped the answer")
    if answered.finish_reason == "length":
        return Invalid("it was cut off at the length limit")
    return _parsed(request, answered.content)


def _parsed(request: Request, content: str | None) -> Valid | Invalid:
    if not content or not content.strip():
        return Invalid("it was empty")
    try:
        found = orjson.loads(_unfenced(content))
    except orjson.JSONDecodeError:
        return Invalid("it was not JSON")
    if not isinstance(found, dict):
        return Invalid("it was not a JSON object")
    fields = cast("dict[str, Any]", found)
    labels = _labels(request, fields)
    return labels if isinstance(labels, Invalid) else _enriched(labels, fields, request.form)


def _labels(request: Request, fields: dict[str, Any]) -> dict[str, Said] | Invalid:
    labels: dict[str, Said] = {}
    for task, choices in request.allowed.items():
        if task not in fields:
            return Invalid(f"it lacked the task {task!r}")
        if task in request.any_of:
            said = _all_matched(fields[task], choices)
            if said is None:
                return Invalid(f"its answer for {task!r} was no list of those labels that are allowed")
        else:
            said = _matched(fields[task], choices)
            if said is None:
                return Invalid(f"its label for {task!r} was not one of those allowed")
        labels[task] = said
    return labels


def _enriched(labels: dict[str, Said], fields: dict[str, Any], form: AnswerForm) -> Valid | Invalid:
    enrichment: dict[str, object] = {}
    if form.enrichment is not None:
        if (problem := form.enrichment.problem(fields.get(ENRICHMENT_KEY))) is not None:
            return Invalid(problem)
        enrichment = cast("dict[str, object]", fields[ENRICHMENT_KEY])
    said = fields.get(REASON_KEY)
    if not form.reason or not isinstance(said, str):
        return Valid(labels, enrichment)
    kept = said[:REASON_CHARS_MAX]
    return Valid(labels, {**enrichment, REASON_KEY: kept}, kept.strip() or None)


def _matched(said: object, choices: tuple[str, ...]) -> str | None:
    """The allowed label that was meant: exactly, else but for case and space around it if that is one label."""
    if not isinstance(said, str):
        return None
    if said in choices:
        return said
    close = [choice for choice in choices if choice.casefold() == said.strip().casefold()]
    return close[0] if len(close) == 1 else None


def _all_matched(said: object, choices: tuple[str, ...]) -> tuple[str, ...] | None:
    """The allowed labels that were meant, each once and in the task's order; None where one of them is not."""
    if not isinstance(said, list):
        return None
    found = {_matched(one, choices) for one in cast("list[object]", said)}
    return None if None in found else tuple(label for label in choices if label in found)


def _unfenced(content: str) -> str:
    """The content without the code fence that models in plain JSON mode like to put around it."""
    stripped = content.strip()
    if not (stripped.startswith("```") and stripped.endswith("```")):
        return stripped
    return stripped.removeprefix("```").removeprefix("json").removesuffix("```").strip()

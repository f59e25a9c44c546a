"""What came back from the LLM: usable, unusable, or a refusal. Pure.

The content is as untrusted as the event: nothing but labels from the allowed sets (and a bounded reason) passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from stream_app.escalate.prompt import REASON_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.escalate.prompt import Request
    from stream_app.escalate.results import Answered

REASON_CHARS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Valid:
    """A label for every asked task."""

    labels: dict[str, str]
    reason: str | None


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
    return _parsed(request.allowed, answered.content, reason=request.reason)


def _parsed(allowed: Mapping[str, tuple[str, ...]], content: str | None, *, reason: bool) -> Valid | Invalid:
    if not content or not content.strip():
        return Invalid("it was empty")
    try:
        found = orjson.loads(_unfenced(content))
    except orjson.JSONDecodeError:
        return Invalid("it was not JSON")
    if not isinstance(found, dict):
        return Invalid("it was not a JSON object")
    fields = cast("dict[str, Any]", found)
    labels: dict[str, str] = {}
    for task, choices in allowed.items():
        if task not in fields:
            return Invalid(f"it lacked the task {task!r}")
        label = _matched(fields[task], choices)
        if label is None:
            return Invalid(f"its label for {task!r} was not one of those allowed")
        labels[task] = label
    said = fields.get(REASON_KEY)
    return Valid(labels, said[:REASON_CHARS_MAX] if reason and isinstance(said, str) else None)


def _matched(said: object, choices: tuple[str, ...]) -> str | None:
    """The allowed label that was meant: exactly, else but for case and space around it if that is one label."""
    if not isinstance(said, str):
        return None
    if said in choices:
        return said
    close = [choice for choice in choices if choice.casefold() == said.strip().casefold()]
    return close[0] if len(close) == 1 else None


def _unfenced(content: str) -> str:
    """The content without the code fence that models in plain JSON mode like to put around it."""
    stripped = content.strip()
    if not (stripped.startswith("```") and stripped.endswith("```")):
        return stripped
    return stripped.removeprefix("```").removeprefix("json").removesuffix("```").strip()

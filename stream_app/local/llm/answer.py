"""From a request to what the model says: by the rule, or as recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from stream_app.local.llm.asked import Asked, tokens
from stream_app.local.llm.rule import PLAIN_STRING, choose_label, fill_schema, read_text

if TYPE_CHECKING:
    from stream_app.local.llm.replay import Replay

REFUSAL = "I can't help with that."
# What a model that ignores the schema might answer; no task has such a label.
OFF_SCHEMA_LABEL = "somewhat_unclear"
DEFAULT_LABELS = ["negative", "positive"]


class NotRecordedError(Exception):
    """The file of recorded answers has none for this text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. A refusal has no content. `source` is named in the header `x-shunt-stand-in`."""

    content: str | None
    refusal: str | None
    input_tokens: int
    output_tokens: int
    source: Literal["rule", "replay"]


def reply_to(asked: Asked, replay: Replay | None) -> Reply:
    """The answer to a request. Raises `NotRecordedError` when replaying a text that is not in the file."""
    recorded = None
    input_tokens = asked.input_tokens
    if replay is not None:
        found = replay.find(asked.text_sha256)
        if found is None:
            raise NotRecordedError(f"no recorded answer for the text with sha-256 {asked.text_sha256[:16]}…")
        input_tokens = found.input_tokens
        recorded = found.answers[replay.name_for(asked.model)]
        if recorded is None:
            return Reply(None, REFUSAL, input_tokens, tokens(len(REFUSAL)), "replay")
    content = _content(asked, recorded)
    return Reply(content, None, input_tokens, tokens(len(content)), "rule" if replay is None else "replay")


def off_schema(content: str) -> str:
    """The same answer with every label replaced by one nobody allowed."""
    try:
        value = json.loads(content)
    except ValueError:
        return OFF_SCHEMA_LABEL
    return json.dumps(_relabelled(value))


def _content(asked: Asked, recorded: str | None) -> str:
    reading = read_text(asked.text)
    if asked.schema is not None:
        return json.dumps(fill_schema(asked.schema, reading, recorded), ensure_ascii=False)
    label = recorded or choose_label(DEFAULT_LABELS, reading)
    return json.dumps({"label": label}, ensure_ascii=False) if asked.wants_json else label


def _relabelled(value: Any) -> Any:
    match value:
        case dict():
            return {key: _relabelled(below) for key, below in cast("dict[str, Any]", value).items()}
        case list():
            return [_relabelled(below) for below in cast("list[Any]", value)]
        case str() if value != PLAIN_STRING:
            return OFF_SCHEMA_LABEL
        case _:
            return value

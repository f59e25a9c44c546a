"""Feedback as rows of a file: JSON Lines of schemas/feedback.schema.json, plain or gzip."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream_app.codec import timestamp_ms
from stream_app.errors import SettingsError
from stream_app.training.rows import UnreadableRow, json_objects


@dataclass(frozen=True, slots=True)
class Feedback:
    """One label that somebody gave to one task of an event; `label` None where there was no usable answer."""

    id: str
    task: str
    text: str
    label: str | None
    labelled_by: Literal["llm", "human"]
    why: Literal["escalated", "audit", "verdict"]
    model: str | None
    revision: int
    at_ms: int


def read_feedback(path: Path) -> list[Feedback]:
    """The rows of a file. Raises SettingsError, naming file and line, for a line that is none."""
    try:
        return [_row(place, fields) for _, place, fields in json_objects(path)]
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give rows as docs/messages.md describes them") from error


def _row(place: str, fields: dict[str, Any]) -> Feedback:
    try:
        told = {**fields, "at_ms": timestamp_ms(fields["at"])}
        return msgspec.convert(told, Feedback)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableRow(f"{place} is no feedback row: {error}") from error

"""Feedback as rows of a file: JSON Lines of schemas/feedback.schema.json, plain or gzip."""

import json
from pathlib import Path

from stream_app.codec import decode_feedback
from stream_app.errors import SettingsError, UnreadableRecord
from stream_app.events import Feedback
from stream_app.training.rows import UnreadableRow, json_objects


def read_feedback(path: Path) -> list[Feedback]:
    """The rows of a file. Raises SettingsError, naming file and line, for a line that is none."""
    try:
        return [_row(place, fields) for _, place, fields in json_objects(path)]
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give rows as docs/messages.md describes them") from error


def _row(place: str, fields: dict[str, object]) -> Feedback:
    try:
        return decode_feedback(json.dumps(fields).encode())
    except UnreadableRecord as error:
        raise UnreadableRow(f"{place} is no feedback row: {error.message}") from error

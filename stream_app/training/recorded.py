"""Labelled rows with what LLMs answered to them: the input of `calibrate` and `evaluate`."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from stream_app.errors import SettingsError
from stream_app.training.rows import LabelledRow, in_half_a

PROMPT_EXTRA_CHARS = 317
"""What a plain prompt adds to the text, where the row does not tell the real prompt's length."""
CHARS_PER_TOKEN = 4

Half = Literal["A", "B"]


@dataclass(frozen=True, slots=True)
class RecordedRow(LabelledRow):
    """A labelled row with recorded answers: model -> label, or None where the model gave none (a refusal)."""

    llm: tuple[tuple[str, str | None], ...] = ()
    prompt_chars: int | None = None
    domain: str | None = None
    source: str | None = None

    @property
    def prompt_tokens(self) -> float:
        """An estimate of what asking an LLM about this text costs, in input tokens."""
        chars = self.prompt_chars if self.prompt_chars is not None else len(self.text) + PROMPT_EXTRA_CHARS
        return chars / CHARS_PER_TOKEN

    def has_answer_of(self, llm: str) -> bool:
        """Whether anything, a refusal included, was recorded of that LLM."""
        return any(name == llm for name, _ in self.llm)

    def answer_of(self, llm: str) -> str | None:
        """The recorded answer, None for a refusal. Raises SettingsError where nothing was recorded."""
        answers = dict(self.llm)
        if llm not in answers:
            known = ", ".join(answers) or "no LLM"
            raise SettingsError(f"row {self.id} has no answer of {llm}", advice=f"it has those of {known}")
        return answers[llm]


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file's rows, and what identifies the file: its name without a folder and its bytes' sha-256."""

    name: str
    sha256: str
    rows: tuple[RecordedRow, ...]


def read_recorded(path: Path, task: str, half: Half | None = None) -> RecordedFile:
    """Read JSON Lines (plain or gzip by content) with `text` and the task's gold label.

    The label is `labels[task]` or `gold[task]`, else `label`; a row whose `labels` or `gold` leave the task out
    is skipped. `half` keeps the rows whose group falls in that half. Raises SettingsError naming file and line.
    """
    try:
        raw = path.read_bytes()
        plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    rows = _rows(plain, path.name, task)
    kept = tuple(row for row in rows if half is None or in_half_a(row) == (half == "A"))
    if not kept:
        raise SettingsError(f"{path.name} has no row with a label for task {task}")
    return RecordedFile(path.name, hashlib.sha256(raw).hexdigest(), kept)


def _rows(plain: bytes, name: str, task: str) -> Iterator[RecordedRow]:
    for number, line in enumerate(plain.splitlines(), 1):
        if line.strip():
            row = _row(line, task, f"{name}:{number}", number)
            if row is not None:
                yield row


def _row(line: bytes, task: str, place: str, number: int) -> RecordedRow | None:
    try:
        found: object = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{place} is not JSON: {error}") from error
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    text, label = fields.get("text"), _label(fields, task)
    if label is None and ("labels" in fields or "gold" in fields):
        return None
    if not isinstance(text, str) or not isinstance(label, str):
        raise SettingsError(f"{place} needs the text fields `text` and `label` (or `labels`: task -> label)")
    group, chars = fields.get("group"), fields.get("prompt_chars")
    style, domain, source = (_text(fields.get(name)) for name in ("style", "domain", "source"))
    return RecordedRow(
        id=str(fields.get("id", number)),
        text=text,
        label=label,
        group=None if group is None else str(group),
        style=style,
        numbered=fields.get("id") is None,
        llm=tuple((fields.get("llm") or {}).items()),
        prompt_chars=chars if isinstance(chars, int) else None,
        domain=domain,
        source=source,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _label(fields: dict[str, Any], task: str) -> object:
    for name in ("labels", "gold"):
        by_task = fields.get(name)
        if isinstance(by_task, dict):
            return cast("dict[str, object]", by_task).get(task)
    return fields.get("label")


def label_indexes(rows: Iterable[RecordedRow], labels: tuple[str, ...]) -> list[int]:
    """Each row's gold label as its index. Raises SettingsError for a label the task does not have."""
    index = {label: place for place, label in enumerate(labels)}
    found = list[int]()
    for row in rows:
        if row.label not in index:
            raise SettingsError(
                f"row {row.id} is labelled {row.label!r}, the task's models give {', '.join(labels)}",
                advice="name the task whose labels the file holds with --task",
            )
        found.append(index[row.label])
    return found

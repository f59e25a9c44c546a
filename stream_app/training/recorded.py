"""Labelled rows with what LLMs answered to them: the input of `calibrate` and `evaluate`."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from stream_app.errors import SettingsError
from stream_app.events import Said, each_label, in_words
from stream_app.routing.label_sets import labels_in, set_of
from stream_app.training.rows import LabelledRow, in_half_a

PROMPT_EXTRA_CHARS = 317
"""What a plain prompt adds to the text, where the row does not tell the real prompt's length."""
CHARS_PER_TOKEN = 4

Half = Literal["A", "B"]


@dataclass(frozen=True, slots=True)
class RecordedRow(LabelledRow):
    """A labelled row with recorded answers: model -> label, or None where the model gave none (a refusal).

    Of a task of which any label may be right `yes` has those that apply, and `known` those that somebody looked for,
    None for all; `label` is for people then.
    """

    llm: tuple[tuple[str, Said | None], ...] = ()
    prompt_chars: int | None = None
    domain: str | None = None
    source: str | None = None
    yes: tuple[str, ...] | None = None
    known: frozenset[str] | None = None

    @property
    def truth(self) -> Said:
        """What is right of the text."""
        return self.label if self.yes is None else self.yes

    def says(self, code: int, labels: tuple[str, ...]) -> Said:
        """What an answer to it is: a label's index, or a set of labels."""
        return labels[code] if self.yes is None else labels_in(code, labels)

    def code_of(self, said: Said | None, labels: tuple[str, ...]) -> int | None:
        """The inverse of `says`; None where that is no answer to it."""
        if said is None or isinstance(said, str) != (self.yes is None) or not {*each_label(said)} <= {*labels}:
            return None
        return labels.index(said) if isinstance(said, str) else set_of(said, labels)

    @property
    def prompt_tokens(self) -> float:
        """An estimate of what asking an LLM about this text costs, in input tokens."""
        chars = self.prompt_chars if self.prompt_chars is not None else len(self.text) + PROMPT_EXTRA_CHARS
        return chars / CHARS_PER_TOKEN

    def has_answer_of(self, llm: str) -> bool:
        """Whether anything, a refusal included, was recorded of that LLM."""
        return any(name == llm for name, _ in self.llm)

    def answer_of(self, llm: str) -> Said | None:
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


def read_recorded(path: Path, task: str, half: Half | None = None, *, any_of: bool = False) -> RecordedFile:
    """Read JSON Lines (plain or gzip by content) with `text` and the task's gold label.

    The label is `labels[task]` or `gold[task]`, else `label`; a row whose `labels` or `gold` leave the task out
    is skipped. Of a task of which any label may be right (`any_of`) that is a list of those that apply, or a map of
    each to true or false, null for one that nobody looked for; the map may be `labels` itself. `half` keeps the rows
    whose group falls in that half. Raises SettingsError naming file and line.
    """
    try:
        raw = path.read_bytes()
        plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    rows = _rows(plain, path.name, task, any_of=any_of)
    kept = tuple(row for row in rows if half is None or in_half_a(row) == (half == "A"))
    if not kept:
        raise SettingsError(f"{path.name} has no row with a label for task {task}")
    return RecordedFile(path.name, hashlib.sha256(raw).hexdigest(), kept)


def _rows(plain: bytes, name: str, task: str, *, any_of: bool) -> Iterator[RecordedRow]:
    for number, line in enumerate(plain.splitlines(), 1):
        if line.strip():
            row = _row(line, task, f"{name}:{number}", number, any_of=any_of)
            if row is not None:
                yield row


def _row(line: bytes, task: str, place: str, number: int, *, any_of: bool) -> RecordedRow | None:
    try:
        found: object = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{place} is not JSON: {error}") from error
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    text, label = fields.get("text"), _label(fields, task)
    if label is None and any_of:
        label = _marks_alone(fields, task)
    if label is None and ("labels" in fields or "gold" in fields):
        return None
    yes, known = _marked(label) if any_of else (None, None)
    if any_of and yes is not None:
        label = in_words(yes)
    if not isinstance(text, str) or not isinstance(label, str) or any_of != (yes is not None):
        form = "`label` (or `labels`: task -> label)"
        if any_of:
            form = "`labels`: a list of labels, or a map of each to true or false (or `labels`: task -> that)"
        raise SettingsError(f"{place} needs the text fields `text` and {form}")
    group, chars = fields.get("group"), fields.get("prompt_chars")
    style, domain, source = (_text(fields.get(name)) for name in ("style", "domain", "source"))
    return RecordedRow(
        id=str(fields.get("id", number)),
        text=text,
        label=label,
        group=None if group is None else str(group),
        style=style,
        numbered=fields.get("id") is None,
        llm=tuple((name, _answer(told)) for name, told in (fields.get("llm") or {}).items()),
        yes=yes,
        known=known,
        prompt_chars=chars if isinstance(chars, int) else None,
        domain=domain,
        source=source,
    )


def _answer(told: Any) -> Said | None:
    """A recorded answer: a label, or a list of them."""
    return tuple(cast("list[str]", told)) if isinstance(told, list) else told


def _marks_alone(fields: dict[str, Any], task: str) -> object:
    """`labels` where it is no map of tasks but of labels, each true, false or null."""
    found = fields.get("labels")
    if not isinstance(found, dict) or task in found:
        return found if isinstance(found, list) else None
    marks = cast("dict[str, object]", found)
    return marks if any(isinstance(value, bool | int) for value in marks.values()) else None


def _marked(label: object) -> tuple[tuple[str, ...] | None, frozenset[str] | None]:
    """Which labels apply, and which are known (None: all); None for both where that is neither list nor map."""
    if isinstance(label, list):
        said = cast("list[object]", label)
        return (tuple(map(str, said)), None) if all(isinstance(one, str) for one in said) else (None, None)
    if not isinstance(label, dict):
        return None, None
    marks = cast("dict[str, object]", label)
    if not all(value is None or (isinstance(value, bool | int) and value in {0, 1}) for value in marks.values()):
        return None, None
    known = frozenset(name for name, value in marks.items() if value is not None)
    return tuple(name for name, value in marks.items() if value), known


def with_all_known(rows: Sequence[RecordedRow], labels: tuple[str, ...]) -> tuple[RecordedRow, ...]:
    """The rows of which every label is known: whether an answer to the others is right, nobody can say."""
    return tuple(row for row in rows if row.known is None or row.known >= {*labels})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _label(fields: dict[str, Any], task: str) -> object:
    for name in ("labels", "gold"):
        by_task = fields.get(name)
        if isinstance(by_task, dict):
            return cast("dict[str, object]", by_task).get(task)
    return fields.get("label")


def label_indexes(rows: Iterable[RecordedRow], labels: tuple[str, ...]) -> list[int]:
    """Each row's gold label as its index, or set of labels. Raises SettingsError for one that the task has not."""
    found = list[int]()
    for row in rows:
        code = row.code_of(row.truth, labels)
        if code is None:
            raise SettingsError(
                f"row {row.id} is labelled {row.label!r}, the task's models give {', '.join(labels)}",
                advice="name the task whose labels the file holds with --task",
            )
        found.append(code)
    return found

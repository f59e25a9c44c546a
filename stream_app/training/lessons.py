"""Which feedback may teach, and why the rest may not. Pure.

A person's label teaches; an LLM's does where it answered an event that was escalated. What an audit asked never does:
those rows are the only fair sample of what is accepted, and what they find is to stay news. Nor does anything that is
held out, by its id or by its text. Of several labels of one text the last word counts, a person's before an LLM's;
where LLMs disagree in theirs, nobody is sure, and none teaches.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stream_app.events import Feedback
from stream_app.training.held_out import HeldOut, text_sha256
from stream_app.training.rows import LabelledRow


class Refusal(StrEnum):
    """Why something does not teach, in the words that are printed."""

    OTHER_TASK = "about another task"
    AUDITED = "asked by an audit"
    HELD_OUT_ID = "held out, by id"
    HELD_OUT_TEXT = "held out, by text"
    UNANSWERED = "without a usable answer"
    SEVERAL_LABELS = "of which any label may be right"
    FOREIGN_LABEL = "with a label that the base rows do not have"
    OVERRULED = "repeated or overruled by another label of the same text"
    DISPUTED = "on which LLMs disagree"
    TAUGHT = "labelled elsewhere already"
    DOUBTED = "not believed by the small model"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A label that may teach; `llm` names the LLM that gave it, None for a person, whom the small model believes.

    `reason` is what the LLM gave for it, in its own words, where it was asked to.
    """

    row: LabelledRow
    llm: str | None
    reason: str | None = None

    @property
    def by(self) -> str:
        """Who gave it, in words."""
        return "people" if self.llm is None else self.llm


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may teach, and how much was refused for which reason.

    The lessons' order is decided by their texts alone: the same labels make the same model, whenever each came.
    """

    lessons: tuple[Lesson, ...]
    refused: Mapping[Refusal, int]


def withheld(feedback: Iterable[Feedback], held_out: HeldOut) -> HeldOut:
    """What audits asked, of whatever task, and the texts of events that are held out by their ids alone.

    No other label of these events, and of these texts, may teach either.
    """
    return HeldOut.of((row.id, row.text) for row in feedback if row.why == "audit" or held_out.holds_id(row.id))


def admit(feedback: Iterable[Feedback], task: str, labels: Collection[str], held_out: HeldOut) -> Admitted:
    """The rows that may teach `task`, one a text; nothing of what is in `held_out`."""
    refused, by_text = Counter[Refusal](), dict[str, list[Feedback]]()
    for row in feedback:
        why = _refusal(row, task, labels, held_out)
        if why is None:
            by_text.setdefault(text_sha256(row.text), []).append(row)
        else:
            refused[why] += 1
    chosen = list[Feedback]()
    for rows in by_text.values():
        last = _last_word(rows)
        refused[Refusal.OVERRULED if last else Refusal.DISPUTED] += len(rows) - (last is not None)
        chosen += [] if last is None else [last]
    chosen.sort(key=lambda row: text_sha256(row.text))
    return Admitted(tuple(_lesson(row) for row in chosen), +refused)


def _last_word(rows: Sequence[Feedback]) -> Feedback | None:
    """The latest label of one text by a person, else by an LLM; None where the latest of several LLMs disagree."""
    latest = dict[str | None, Feedback]()
    for row in sorted(rows, key=lambda row: (row.revision, row.at_ms)):
        latest[row.model] = row
    by_person = latest.get(None)
    if by_person is not None:
        return by_person
    agreed = len({row.label for row in latest.values()}) == 1
    return max(latest.values(), key=lambda row: (row.revision, row.at_ms)) if agreed else None


def held_back(own_id: str | None, text: str, held_out: HeldOut) -> Refusal | None:
    """Why this text, which came under this id, may not be learned from; None where it may."""
    if held_out.holds_id(own_id):
        return Refusal.HELD_OUT_ID
    return Refusal.HELD_OUT_TEXT if held_out.holds_text(text) else None


def _refusal(row: Feedback, task: str, labels: Collection[str], held_out: HeldOut) -> Refusal | None:
    if row.task != task:
        return Refusal.OTHER_TASK
    if row.why == "audit":
        return Refusal.AUDITED
    if (held := held_back(row.id, row.text, held_out)) is not None:
        return held
    if row.label is None:
        return Refusal.UNANSWERED
    if not isinstance(row.label, str):
        return Refusal.SEVERAL_LABELS
    return None if row.label in labels else Refusal.FOREIGN_LABEL


def _lesson(row: Feedback) -> Lesson:
    taught = LabelledRow(row.id, row.text, row.label if isinstance(row.label, str) else "")
    return Lesson(taught, row.model, row.reason)

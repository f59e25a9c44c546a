"""Which feedback may teach, and why the rest may not. Pure.

A person's label teaches; an LLM's does where it answered an event that was escalated. What an audit asked never does:
those rows are the only fair sample of what is accepted, and what they find is to stay news. Nor does anything that is
held out, by its id or by its text. Of several labels of one text the last word counts, a person's before an LLM's.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from stream_app.training.feedback_rows import Feedback
from stream_app.training.held_out import HeldOut, text_sha256
from stream_app.training.rows import LabelledRow


class Refusal(StrEnum):
    """Why something does not teach, in the words that are printed."""

    OTHER_TASK = "about another task"
    AUDITED = "asked by an audit"
    HELD_OUT_ID = "held out, by id"
    HELD_OUT_TEXT = "held out, by text"
    UNANSWERED = "without a usable answer"
    FOREIGN_LABEL = "with a label that the base rows do not have"
    OVERRULED = "overruled by a later or a person's label of the same text"
    TAUGHT = "labelled elsewhere already"
    DOUBTED = "not believed by the small model"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A label that may teach; `llm` names the LLM that gave it, None for a person, whom the small model believes."""

    row: LabelledRow
    llm: str | None

    @property
    def by(self) -> str:
        """Who gave it, in words."""
        return "people" if self.llm is None else self.llm


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may teach, in the order it was labelled, and how much was refused for which reason."""

    lessons: tuple[Lesson, ...]
    refused: Mapping[Refusal, int]


def audited(feedback: Iterable[Feedback]) -> HeldOut:
    """What audits asked, of whatever task: no other label of these events may teach either."""
    return HeldOut.of((row.id, row.text) for row in feedback if row.why == "audit")


def admit(feedback: Iterable[Feedback], task: str, labels: Collection[str], held_out: HeldOut) -> Admitted:
    """The rows that may teach `task`, one a text. `held_out` is what must not; audited events are added to it."""
    rows = list(feedback)
    barred = held_out | audited(rows)
    refused = Counter[Refusal]()
    last = dict[str, Feedback]()
    for row in rows:
        why = _refusal(row, task, labels, barred)
        if why is None:
            text = text_sha256(row.text)
            before = last.get(text)
            if before is not None:
                refused[Refusal.OVERRULED] += 1
            if before is None or _word(row) >= _word(before):
                last[text] = row
        else:
            refused[why] += 1
    chosen = sorted(last.values(), key=lambda row: (row.at_ms, row.id))
    return Admitted(tuple(_lesson(row) for row in chosen), refused)


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
    return None if row.label in labels else Refusal.FOREIGN_LABEL


def _word(row: Feedback) -> tuple[bool, int, int]:
    """What makes one label the last word on a text before another: a person, a later decision, a later hour."""
    return row.labelled_by == "human", row.revision, row.at_ms


def _lesson(row: Feedback) -> Lesson:
    return Lesson(LabelledRow(row.id, row.text, row.label or ""), None if row.labelled_by == "human" else row.model)

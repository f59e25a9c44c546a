"""The gate before all teaching: base rows, feedback and unlabelled texts pass it, or are refused and counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stream_app.events import Feedback
from stream_app.training.distil import Curriculum
from stream_app.training.held_out import HeldOut, text_sha256
from stream_app.training.lessons import Refusal, admit, held_back, withheld
from stream_app.training.rows import LabelledRow, labels_of

BASE, FEEDBACK, UNLABELLED = "base rows", "feedback rows", "unlabelled texts"


@dataclass(frozen=True, slots=True)
class Gated:
    """What may teach, and what was refused: for each kind of input, how much for which reason."""

    curriculum: Curriculum
    refused: Mapping[str, Mapping[Refusal, int]]

    def lines(self) -> list[str]:
        """The refusals for a person, most first."""
        return [
            f"refused, {kind} {why}: {count:,}"
            for kind, reasons in self.refused.items()
            for why, count in sorted(reasons.items(), key=lambda item: -item[1])
        ]


def gate(
    base: Sequence[LabelledRow],
    feedback: Iterable[Feedback],
    unlabelled: Iterable[tuple[str | None, str]],
    task: str,
    held_out: HeldOut,
) -> Gated:
    """Only what may teach `task`. Nothing passes whose id or text is held out, or was asked by an audit.

    `unlabelled` are texts under their own ids, None where they have none. A text teaches once: as a base row, else as
    feedback, else unlabelled.
    """
    rows = list(feedback)
    barred = held_out | withheld(rows, held_out)
    kept, base_refused = _base(base, barred)
    seen = {text_sha256(row.text) for row in kept}
    admitted = admit(rows, task, labels_of(kept), barred)
    lessons = [lesson for lesson in admitted.lessons if text_sha256(lesson.row.text) not in seen]
    refused = Counter(admitted.refused)
    refused[Refusal.TAUGHT] += len(admitted.lessons) - len(lessons)
    seen |= {text_sha256(lesson.row.text) for lesson in lessons}
    texts, texts_refused = _unlabelled(unlabelled, barred, seen)
    told = {BASE: base_refused, FEEDBACK: +refused, UNLABELLED: texts_refused}
    return Gated(Curriculum(labels_of(kept), kept, lessons, texts), told)


def _base(rows: Iterable[LabelledRow], barred: HeldOut) -> tuple[list[LabelledRow], Counter[Refusal]]:
    kept, refused = list[LabelledRow](), Counter[Refusal]()
    for row in rows:
        why = held_back(row.own_id, row.text, barred)
        if why is None:
            kept.append(row)
        else:
            refused[why] += 1
    return kept, refused


def _unlabelled(
    texts: Iterable[tuple[str | None, str]], barred: HeldOut, seen: set[str]
) -> tuple[list[str], Counter[Refusal]]:
    kept, refused = list[str](), Counter[Refusal]()
    for own, text in texts:
        content = text_sha256(text)
        why = held_back(own, text, barred) or (Refusal.TAUGHT if content in seen else None)
        if why is None:
            kept.append(text)
            seen.add(content)
        else:
            refused[why] += 1
    return kept, refused

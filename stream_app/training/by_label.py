"""What a policy does with each label: found, missed, sent on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.label_sets import marks_of
from stream_app.routing.models import IndexArray
from stream_app.training.shares import Share, share_of


@dataclass(frozen=True, slots=True)
class LabelOutcome:
    """One label over N rows, `rows` of them truly so labelled.

    `precision` and `recall` are those of the final answers (the LLM's where it was asked), `small_precision` and
    `small_recall` those of the small models alone. `accepted_precision` is of what was accepted with this label; of
    what truly is of it, `missed` was accepted as something else and `escalated` was sent on.
    """

    label: str
    rows: int
    prevalence: float
    precision: Share
    recall: Share
    small_precision: Share
    small_recall: Share
    accepted_precision: Share
    missed: Share
    escalated: Share


def by_label(
    labels: Sequence[str],
    truth: IndexArray,
    small: IndexArray,
    accepted: BoolArray,
    final: IndexArray,
    *,
    any_of: bool = False,
) -> tuple[LabelOutcome, ...]:
    """One outcome per label, in order. All arrays are [N], labels as indexes; `final` may hold others (no label).

    With `any_of` they hold sets: each label by itself, of which the other answer is that it does not apply.
    """
    if any_of:
        return _of_sets(labels, truth, small, accepted, final)
    return tuple(_outcome(label, place, truth, small, accepted, final) for place, label in enumerate(labels))


def _of_sets(
    labels: Sequence[str], truth: IndexArray, small: IndexArray, accepted: BoolArray, final: IndexArray
) -> tuple[LabelOutcome, ...]:
    there = [marks_of(sets, len(labels)).astype(np.intp) for sets in (truth, small, final)]
    return tuple(
        _outcome(label, 1, there[0][:, place], there[1][:, place], accepted, there[2][:, place])
        for place, label in enumerate(labels)
    )


def _outcome(
    label: str, place: int, truth: IndexArray, small: IndexArray, accepted: BoolArray, final: IndexArray
) -> LabelOutcome:
    true = truth == place
    return LabelOutcome(
        label=label,
        rows=int(true.sum()),
        prevalence=float(true.mean()) if len(true) else 0.0,
        precision=share_of(true[final == place]),
        recall=share_of(final[true] == place),
        small_precision=share_of(true[small == place]),
        small_recall=share_of(small[true] == place),
        accepted_precision=share_of(true[accepted & (small == place)]),
        missed=share_of(accepted[true] & (small[true] != place)),
        escalated=share_of(~accepted[true]),
    )

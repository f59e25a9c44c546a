"""One task's accepted answers to many events, as columns for the encoder of finals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_app.codec.finals import Grade, SmallAnswers
from stream_app.routing.holding import Backing
from stream_app.routing.label_sets import labels_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.routing.holding import Held
    from stream_app.routing.models import IndexArray


def column(
    router: TaskRouter, grades: tuple[Grade, ...], routed: Routed, held: Held | None, rows: IndexArray
) -> SmallAnswers:
    """The task's answers to `rows`, all accepted. `grades` are `grades_of` the router."""
    tier = routed.tier[rows].astype(np.intp)
    if held is not None:  # the grades are repeated for each backing
        tier += held.backing[rows].astype(np.intp) * len(router.tiers)
    if router.any_of:
        sets, label = np.unique(routed.label[rows], return_inverse=True)
        return SmallAnswers(
            task=router.task,
            labels=router.labels,
            grades=grades,
            label=label,
            grade=tier,
            probabilities=routed.probabilities[rows],
            sets=tuple(labels_in(one, router.labels) for one in sets.tolist()),
            confidence=routed.confidence[rows],
        )
    return SmallAnswers(
        task=router.task,
        labels=router.labels,
        grades=grades,
        label=routed.label[rows],
        grade=tier * len(router.labels) + routed.label[rows],
        probabilities=routed.probabilities[rows],
        cut=None if held is None else held.cut[rows],
    )


def grades_of(router: TaskRouter) -> Iterator[Grade]:
    """A grade for each tier and label; where a share is held, all of them once for each backing.

    Where any label may be right, one for each tier: it holds the cuts of all.
    """
    for backing in Backing if router.share is not None else (Backing.FLOOR,):
        for tier in router.tiers:
            for label in range(1 if router.any_of else len(router.labels)):
                yield Grade(
                    model=tier.ref,
                    threshold=tier.threshold_of(label),
                    policy=router.policy,
                    certified=router.certified and backing is Backing.FLOOR,
                    uncertified_reason=router.uncertified_reason or backing.uncertified_reason,
                )

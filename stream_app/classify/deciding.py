"""From a batch's texts to what each task's routers decided: one request per tier and batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stream_app.classify.scoring import Scorer
    from stream_app.errors import ModelRefused
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.routing.holding import Held


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was decided about N texts.

    `routed` has one column set per task, in the order of the routers. `accepted` [N] marks the rows whose every
    task was accepted; `refused` (row -> why) those a model will never answer, which are neither. `held` stands for
    the tasks that hold a share, once they have: what each row was held against.
    """

    routed: tuple[Routed, ...]
    accepted: NDArray[np.bool_]
    refused: Mapping[int, ModelRefused]
    held: tuple[Held | None, ...] = ()

    def held_of(self, index: int) -> Held | None:
        """What the share of that task made of the rows; None where it holds none."""
        return self.held[index] if self.held else None


class Decider:
    """Holds one policy's routers: a batch is decided by these to its end, whatever is swapped meanwhile."""

    def __init__(self, routers: tuple[TaskRouter, ...], scorer: Scorer) -> None:
        self.routers = routers
        self._scorer = scorer

    def retire(self) -> None:
        """Another policy is in force: what waits for a model of this one is given up, with ModelRetired."""
        self._scorer.retired = True

    async def decide(self, texts: list[str]) -> Verdicts:
        """Walks every task's tiers. Waits while Triton is away; raises nothing for it but ModelRetired."""
        walks = await asyncio.gather(*(self._walk(router, texts) for router in self.routers))
        refused = {row: why for _, task_refused in walks for row, why in task_refused.items()}
        accepted = np.logical_and.reduce([routed.accepted for routed, _ in walks])
        accepted[list(refused)] = False
        return Verdicts(tuple(routed for routed, _ in walks), accepted, refused)

    async def _walk(self, router: TaskRouter, texts: list[str]) -> tuple[Routed, dict[int, ModelRefused]]:
        routing = router.begin(texts)
        refused: dict[int, ModelRefused] = {}
        while (need := routing.need) is not None:
            rows = need.rows.tolist()
            asked = [texts[row] for row in rows]
            scored = await asyncio.gather(*(self._scorer.score(model, asked) for model in need.models))
            for answer in scored:
                refused |= {rows[place]: why for place, why in answer.refused.items()}
            routing.give([answer.scores for answer in scored])
        return routing.routed, refused

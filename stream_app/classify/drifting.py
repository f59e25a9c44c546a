"""A worker's look at what it decides: is the stream still like the calibration sample?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from stream_app.routing.decide import Route
from stream_app.routing.drift import SHIFTS, DriftWatch, Window
from stream_app.routing.label_sets import label_counts

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_app.classify.deciding import Verdicts
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.routing.policy import Policy
    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)


class Drifting:
    """Watches the events that one worker decides by one policy, batch by batch.

    `shifts` (task -> told) are the tasks whose prevalence or confidence is clearly another one than the sample's.
    """

    def __init__(self, policy: Policy | None, tasks: Collection[str], tolerance: float, metrics: Metrics) -> None:
        """`tasks` are those that are decided by the policy's own cut."""
        known = {} if policy is None else policy.tasks
        self._watches = {
            name: DriftWatch(task, tolerance)
            for name, task in known.items()
            if name in tasks and task.traffic is not None
        }
        self._edges = {name: np.array(watch.edges, np.float32) for name, watch in self._watches.items()}
        self._metrics = metrics
        self.shifts: dict[str, str] = {}

    def observe(self, routers: tuple[TaskRouter, ...], verdicts: Verdicts) -> None:
        """One batch's verdicts, shares held. What a model refused is nobody's answer."""
        for router, routed in zip(routers, verdicts.routed, strict=True):
            watch = self._watches.get(router.task)
            if watch is None:
                continue
            rows = np.setdiff1d(np.arange(len(routed.label)), list(verdicts.refused)) if verdicts.refused else None
            seen = routed if rows is None else routed.rows(rows)
            if not len(seen.label):
                continue
            for kind in watch.observe(_window(router, seen, self._edges[router.task])):
                told = watch.drifted[kind]
                log.warning("task %s drifts from its calibration sample: %s", router.task, told)
                if kind in SHIFTS:
                    self.shifts.setdefault(router.task, told)
            for kind, evidence in watch.evidence().items():
                self._metrics.drift(router.task, kind, evidence, drifted=kind in watch.drifted)


def _window(router: TaskRouter, routed: Routed, edges: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Window:
    places = np.searchsorted(edges, routed.confidence)
    return Window(
        events=len(routed.label),
        labels=label_counts(routed.label, len(router.labels), any_of=router.any_of),
        confidence=tuple(np.bincount(places, minlength=len(edges) + 1).tolist()),
        escalated=int((routed.route != Route.ACCEPTED).sum()),
        out_of_domain=int((routed.route == Route.OUT_OF_DOMAIN).sum()),
    )

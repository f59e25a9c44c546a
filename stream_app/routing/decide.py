"""Deciding, vectorised: a batch of texts walks a task's tiers until each is accepted or must be escalated.

Pure and synchronous: a `Routing` says which models it needs on which rows, the hot path asks Triton and gives
the scores back, and `routed` holds the outcome. About 60 ns a record with one tier and 160 with two, at 1,024
records a batch; the one step done in Python per record is the script check, and only with a policy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from stream_app.events import Cut, Said, TaskKind, UncertifiedReason, VoteRule
from stream_app.routing.calibration import confident, pool
from stream_app.routing.domain import Scripts
from stream_app.routing.label_sets import labels_in
from stream_app.routing.models import FloatArray, IndexArray, Scores, ServedModel
from stream_app.routing.payoff import Payoff
from stream_app.routing.share import HeldShare


class Route(IntEnum):
    """Where an answer goes. The values stand in `Routed.route`."""

    ACCEPTED = 0
    UNSURE = 1
    OUT_OF_DOMAIN = 2


@dataclass(frozen=True, slots=True)
class Knots:
    """An isotonic map, ready for `np.interp`."""

    confidence: FloatArray
    share_right: FloatArray


@dataclass(frozen=True, slots=True)
class Tier:
    """One model, or several pooled. `threshold` None accepts nothing.

    `label_thresholds` holds each label's own cut, by label index (infinite: never accepted); empty, `threshold` is
    that of all. With a `payoff` the answer is not the likeliest label but the one expected to cost least.
    """

    models: tuple[ServedModel, ...]
    weights: tuple[float, ...]
    threshold: float | None
    knots: Knots | None = None
    label_thresholds: tuple[float, ...] = ()
    payoff: Payoff | None = None

    def threshold_of(self, label: int) -> Cut:
        """The cut that the answer `label` (of `judge`) is held against; None where it is never accepted."""
        return self.cut_of(label)

    def cut_of(self, label: int) -> float | None:
        """The cut of the label at that index; None where it is never accepted."""
        if not self.label_thresholds:
            return self.threshold
        own = self.label_thresholds[label]
        return own if math.isfinite(own) else None

    @property
    def ref(self) -> str:
        """Its models as decisions name them, joined by `+`."""
        return "+".join(model.ref for model in self.models)

    def judge(self, scores: Sequence[Scores]) -> tuple[FloatArray, IndexArray, FloatArray]:
        """Calibrated probabilities [N, labels], the best label's index [N] and its confidence [N]."""
        probabilities = pool([score.probabilities for score in scores], self.weights)
        if self.knots is not None:
            probabilities = confident(probabilities, self.knots.confidence, self.knots.share_right)
        if self.payoff is None:
            return probabilities, probabilities.argmax(axis=1), probabilities.max(axis=1)
        label = self.payoff.worth(probabilities).argmax(axis=1)
        return probabilities, label, probabilities[np.arange(len(label)), label]

    def accepts(self, probabilities: FloatArray, label: IndexArray, confidence: FloatArray) -> NDArray[np.bool_]:
        """Which of the rows judged so reach their cut. It is compared as the float32 it was chosen as: equal
        confidences fall on one side.
        """
        del probabilities
        if self.threshold is None:
            return np.zeros(len(confidence), np.bool_)
        cuts = np.array(self.label_thresholds or (self.threshold,), np.float32)
        return confidence >= (cuts[label] if self.label_thresholds else cuts)


@dataclass(frozen=True, slots=True)
class Need:
    """What a routing waits for: these models' scores of these rows, in this order."""

    models: tuple[ServedModel, ...]
    rows: IndexArray


@dataclass(frozen=True, slots=True)
class Routed:
    """The outcome for N texts, by row. `tier` is the index of the tier whose answer stands in the row.

    `label` is a label's index; of an `any_of` task the set of all that apply (`label_sets`).
    """

    label: IndexArray
    confidence: FloatArray
    probabilities: FloatArray
    tier: NDArray[np.int8]
    route: NDArray[np.int8]

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """The rows whose answer is taken."""
        return self.route == Route.ACCEPTED

    def rows(self, chosen: IndexArray) -> "Routed":
        """The outcome for those rows alone."""
        return Routed(
            self.label[chosen],
            self.confidence[chosen],
            self.probabilities[chosen],
            self.tier[chosen],
            self.route[chosen],
        )


@dataclass(frozen=True, slots=True)
class TaskRouter:
    """A task, compiled: its tiers with weights, knots and thresholds, and its domain.

    `certified` says whether an accepted answer stands behind a certificate; if not, `uncertified_reason` why.
    `labels` are the models', in order; `llm_only` those that only an LLM can give. With `votes` an LLM's answer is
    weighed, without it is obeyed. With `share` the outcome of a routing is not yet the last word: `holding` accepts
    or escalates in the stream's order.
    """

    task: str
    labels: tuple[str, ...]
    llm_only: tuple[str, ...]
    tiers: tuple[Tier, ...]
    certified: bool
    uncertified_reason: UncertifiedReason | None
    policy: str | None
    known_share_min: float = 0.0
    scripts: Scripts | None = None
    votes: VoteRule | None = None
    share: HeldShare | None = None
    kind: TaskKind = "one_of"

    @property
    def any_of(self) -> bool:
        """Whether any number of the labels may be right."""
        return self.kind == "any_of"

    def said(self, label: int) -> Said:
        """What an outcome's `label` says: that label, or all that apply."""
        return labels_in(label, self.labels) if self.any_of else self.labels[label]

    def begin(self, texts: Sequence[str]) -> "Routing":
        """Start routing a batch."""
        return Routing(self, texts)


class Routing:
    """One batch on its way: while `need` is not None, ask the models and `give` their scores."""

    def __init__(self, router: TaskRouter, texts: Sequence[str]) -> None:
        count = len(texts)
        self._router = router
        self._texts = texts
        self._tier = -1
        self._rows: IndexArray = np.arange(count)
        self._held = dict[str, Scores]()  # by model, aligned with `_rows`
        self.routed = Routed(
            label=np.zeros(count, np.intp),
            confidence=np.zeros(count, np.float32),
            probabilities=np.zeros((count, len(router.labels)), np.float32),
            tier=np.zeros(count, np.int8),
            route=np.full(count, Route.UNSURE, np.int8),
        )
        self.need: Need | None = None
        self._next_tier()

    def give(self, scores: Sequence[Scores]) -> None:
        """Take the scores `need` asked for, one per model, and move on."""
        if self.need is None:
            raise ValueError("nothing was asked for")
        self._held.update(zip((model.name for model in self.need.models), scores, strict=True))
        self._judge()
        self._next_tier()

    def _next_tier(self) -> None:
        """Set `need` for the next tier; one that needs no new scores is judged at once."""
        self.need = None
        while self._tier + 1 < len(self._router.tiers) and len(self._rows):
            self._tier += 1
            models = self._router.tiers[self._tier].models
            missing = tuple(model for model in models if model.name not in self._held)
            if missing:
                self.need = Need(missing, self._rows)
                return
            self._judge()

    def _judge(self) -> None:
        """Write the tier's answers into the outcome, and keep only the rows it is unsure of."""
        tier, rows, routed = self._router.tiers[self._tier], self._rows, self.routed
        probabilities, label, confidence = tier.judge([self._held[model.name] for model in tier.models])
        routed.label[rows] = label
        routed.confidence[rows] = confidence
        routed.probabilities[rows] = probabilities
        routed.tier[rows] = self._tier
        accepted = tier.accepts(probabilities, label, confidence)
        route = np.where(accepted, np.int8(Route.ACCEPTED), np.int8(Route.UNSURE))
        if self._tier == 0:
            route[self._foreign()] = Route.OUT_OF_DOMAIN
        routed.route[rows] = route
        unsure = np.flatnonzero(route == Route.UNSURE)
        self._rows = rows[unsure]
        self._held = {name: scores.rows(unsure) for name, scores in self._held.items()}

    def _foreign(self) -> NDArray[np.bool_]:
        """Which rows are outside the calibrated domain: the first tier's models know too little of them."""
        router = self._router
        foreign = np.zeros(len(self._texts), np.bool_)
        if router.known_share_min > 0:
            for scores in self._held.values():
                foreign |= scores.known_share < np.float32(router.known_share_min)
        if router.scripts is not None:
            admits = router.scripts.admits
            foreign |= ~np.fromiter(map(admits, self._texts), np.bool_, len(self._texts))
        return foreign

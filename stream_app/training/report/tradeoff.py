"""Accuracy against cost: a policy, the cuts beside it, and other ways to choose what the LLM is asked. Pure.

Cost is that of the LLM's input tokens, as a share of what asking it about every text would take. The small models' is
not in it: it is told apart, where tiers are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.votes import NO_ANSWER
from stream_app.training.beside_llm import BesideLlm, beside_llm
from stream_app.training.cut import Judged
from stream_app.training.report.family import decided
from stream_app.training.shares import Share, share_of

BY_HAND = 0.9
"""The cut that is set without looking, on the models' own probabilities."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to decide these texts: its cost, the share of texts asked about, and how often it is right."""

    cost_share: float
    escalated_share: float
    accuracy: Share


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Over the test rows that the LLM has answered, and `second` where that one is asked too.

    `curve` falls in strictness, from all escalated to none. `random` is the expectation of asking the first about as
    many texts as the policy does, drawn blindly. `oracle` is the best that the first could give at each cost (cost
    share, accuracy): it is asked where only it is right, shortest prompt first. `llm_filled` has the small answer
    where the first gave none, and is None where it always answered.
    """

    llm: str
    second: str | None
    rows: int
    policy: Point
    small: Point
    llm_alone: Point
    llm_filled: Point | None
    by_hand: Point
    random: tuple[float, float]
    oracle: tuple[tuple[float, float], ...]
    curve: tuple[Point, ...]
    beside: BesideLlm


@dataclass(frozen=True, slots=True)
class Answered:
    """N texts that the LLMs have answered, were each escalated.

    `given` is what the first LLM said (NO_ANSWER: no label), `label` what all answers come to under the policy's
    votes, `tokens` what a plain prompt of the first takes, `calls` how many of those all calls cost.
    """

    truth: IndexArray
    given: IndexArray
    label: IndexArray
    tokens: Float64Array
    calls: Float64Array

    def point(self, small: IndexArray, accepted: BoolArray) -> Point:
        """What comes of accepting these small answers and asking about the rest."""
        asked = ~accepted
        cost = float((self.tokens * self.calls)[asked].sum() / self.tokens.sum())
        return Point(cost, float(asked.mean()), share_of(np.where(accepted, small, self.label) == self.truth))


def tradeoff(
    llms: Sequence[str],
    texts: Answered,
    routed: tuple[IndexArray, BoolArray],
    by_hand: tuple[IndexArray, BoolArray],
    tiers: Sequence[Judged],
    inside: BoolArray,
    cuts: FloatArray,
) -> Tradeoff:
    """Fold it. `routed` and `by_hand` are small answers and what is accepted, by the policy and by a cut of 0.9."""
    small, accepted = routed
    every = np.ones(len(small), np.bool_)
    alone = Point(1.0, 1.0, share_of(texts.given == texts.truth))
    silent = texts.given == NO_ANSWER
    filled = Point(1.0, 1.0, share_of(np.where(silent, small, texts.given) == texts.truth))
    policy, small_point = texts.point(small, accepted), texts.point(small, every)
    share = policy.escalated_share
    expected = (1 - share) * (small_point.accuracy.share or 0) + share * (filled.accuracy.share or 0)
    return Tradeoff(
        llm=llms[0],
        second=llms[1] if len(llms) > 1 else None,
        rows=len(small),
        policy=policy,
        small=small_point,
        llm_alone=alone,
        llm_filled=filled if silent.any() else None,
        by_hand=texts.point(*by_hand),
        random=(share, expected),
        oracle=_oracle(texts, small),
        curve=tuple(texts.point(*decided(step, tiers, inside)) for step in cuts),
        beside=beside_llm(texts.truth, small, np.where(accepted, small, texts.label), texts.given),
    )


def _oracle(texts: Answered, small: IndexArray) -> tuple[tuple[float, float], ...]:
    """At most a hundred corners of the best curve."""
    rescued = (small != texts.truth) & (texts.given == texts.truth)
    costs = np.cumsum(np.sort(texts.tokens[rescued])) / texts.tokens.sum()
    rights = (small == texts.truth).mean() + np.arange(1, len(costs) + 1) / len(small)
    corners = [(0.0, float((small == texts.truth).mean()))]
    places = np.unique(np.linspace(0, len(costs) - 1, min(len(costs), 100)).astype(np.intp)) if len(costs) else []
    return (*corners, *((float(costs[place]), float(rights[place])) for place in places))

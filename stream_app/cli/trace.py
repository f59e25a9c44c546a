"""One text's way through the tiers of every task, step by step, by the same routers the worker decides with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.cli.escalations import Escalations
from stream_app.events import Event, Source
from stream_app.routing.decide import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.classify.scoring import Models
    from stream_app.classify.start import Deciding
    from stream_app.events import Cut, Escalation, Said
    from stream_app.routing.decide import Routed, TaskRouter, Tier
    from stream_app.routing.models import Scores
    from stream_app.settings import Settings

EVENT_ID = "try"


@dataclass(frozen=True, slots=True)
class TierStep:
    """What one tier said: its models' own scores, the calibrated probabilities, and the cut they were held to."""

    tier: Tier
    scores: Mapping[str, Scores]
    label: Said
    confidence: float
    threshold: Cut
    accepted: bool


@dataclass(frozen=True, slots=True)
class TaskTrace:
    """One task's tiers in order, as far as they were asked. `script_known` is False for foreign letters."""

    router: TaskRouter
    steps: tuple[TierStep, ...]
    routed: Routed
    known_share: float
    script_known: bool

    @property
    def route(self) -> Route:
        """Where the answer goes."""
        return Route(self.routed.route[0])


@dataclass(frozen=True, slots=True)
class Trace:
    """All tasks of a text. `escalation` is what the LLM lane would get, None where every task was accepted."""

    event: Event
    tasks: tuple[TaskTrace, ...]
    escalation: Escalation | None
    took_ms: float


async def trace(settings: Settings, parts: Deciding, text: str) -> Trace:
    """Walk the text. Raises ModelUnavailable or ModelRefused as the models do."""
    began_s = time.perf_counter()
    tasks = tuple([await _walk(router, parts.models, text) for router in parts.routers])
    took_ms = 1000 * (time.perf_counter() - began_s)
    event = Event(EVENT_ID, text, b"{}", Source(settings.kafka.input_topic, 0, 0, 0), key=None)
    escalations = Escalations(settings, parts.routers, parts.policy)
    return Trace(event, tasks, escalations.of(0, event, [task.routed for task in tasks]), took_ms)


async def _walk(router: TaskRouter, models: Models, text: str) -> TaskTrace:
    routing = router.begin([text])
    held: dict[str, Scores] = {}
    while (need := routing.need) is not None:
        scores = [await models.infer(model, [text]) for model in need.models]
        held.update(zip((model.name for model in need.models), scores, strict=True))
        routing.give(scores)
    routed = routing.routed
    asked = router.tiers[: int(routed.tier[0]) + 1]
    first = [held[model.name] for model in asked[0].models]
    return TaskTrace(
        router=router,
        steps=tuple(_step(router, tier, held) for tier in asked),
        routed=routed,
        known_share=min(float(scores.known_share[0]) for scores in first),
        script_known=router.scripts is None or router.scripts.admits(text),
    )


def _step(router: TaskRouter, tier: Tier, held: Mapping[str, Scores]) -> TierStep:
    scores = {model.ref: held[model.name] for model in tier.models}
    judged = tier.judge(list(scores.values()))
    label, sure = int(judged[1][0]), bool(tier.accepts(*judged)[0])
    return TierStep(tier, scores, router.said(label), float(judged[2][0]), tier.threshold_of(label), sure)

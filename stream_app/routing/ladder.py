"""What an alarm does to a task: its answers are uncertified, and its cut rises, or the LLM has all of it. Pure."""

import math
from dataclasses import replace
from typing import Literal

from stream_app.routing.decide import TaskRouter, Tier

OnAlarm = Literal["log", "tighten", "llm_only"]

DOUBT_LEFT = 0.5
"""A tightened cut leaves half of the doubt that the cut left: 0.9 becomes 0.95. What that does to the risk nobody has
shown; it is what can be done at once, and audits go on saying what it comes to."""
MORE_AUDITS = 5
"""Under a tightened cut so many times as many events are audited: what is unsettled is looked at more closely."""


def under_alarm(router: TaskRouter, on_alarm: OnAlarm) -> TaskRouter:
    """The task as it is decided while an alarm of its stands: whatever is accepted then is not certified (`shift`).

    `tighten` raises every cut, `llm_only` accepts nothing. A share that is held stays held by `tighten`, since it is
    a budget; `llm_only` gives it up.
    """
    shifted = replace(router, certified=False, uncertified_reason=router.uncertified_reason or "shift")
    match on_alarm:
        case "log":
            return shifted
        case "tighten":
            return replace(shifted, tiers=tuple(_tightened(tier) for tier in router.tiers))
        case "llm_only":
            closed = tuple(replace(tier, threshold=None, label_thresholds=()) for tier in router.tiers)
            return replace(shifted, tiers=closed, share=None)


def audit_share(share: float, on_alarm: OnAlarm, *, alarmed: bool) -> float:
    """The share of events that are audited."""
    return min(1.0, share * MORE_AUDITS) if alarmed and on_alarm == "tighten" else share


def _tightened(tier: Tier) -> Tier:
    threshold = None if tier.threshold is None else _raised(tier.threshold)
    return replace(tier, threshold=threshold, label_thresholds=tuple(_raised(cut) for cut in tier.label_thresholds))


def _raised(cut: float) -> float:
    return cut if math.isinf(cut) else 1 - (1 - cut) * DOUBT_LEFT

"""When to try again: exponential back-off with full jitter, inside one deadline per event. Pure.

Full jitter (a delay drawn evenly between 0 and the back-off) spreads callers best after a common failure
(M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

BASE_S = 0.5
CAP_S = 20.0


@dataclass(frozen=True, slots=True)
class Sleep:
    """Try again after this long."""

    s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The deadline comes before the next try could."""


Step = Sleep | GiveUp


def next_step(failures: int, left_s: float, draw: float, at_least_s: float = 0.0) -> Step:
    """What to do after the `failures`-th failure (1 is the first) with `left_s` until the deadline.

    `draw` is a random number in [0, 1); `at_least_s` is what the server asked for (Retry-After).
    """
    backoff_s = min(CAP_S, BASE_S * 2 ** min(failures - 1, 16))
    delay_s = max(at_least_s, draw * backoff_s)
    return Sleep(delay_s) if delay_s < left_s else GiveUp()

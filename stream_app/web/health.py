"""Is this worker alive, and is it getting on? Pure: judged from what the lanes report, by committed offsets.

A process that answers is not enough: a consumer can be stuck with everything looking well (aiokafka #847).
What counts is that a partition with records behind its committed offset commits again in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.telemetry import PartitionProgress

UNREADY_AFTER_S = 60.0
"""A partition that has records and has not committed for this long makes the worker unready."""
DEAD_AFTER_S = 600.0
"""... and for this long not alive, so that an orchestrator restarts it, unless the lane waits on purpose."""


@dataclass(frozen=True, slots=True)
class LaneReading:
    """What a lane reports: whether it has joined its group, its partitions, and what it waits for, if it does."""

    joined: bool
    partitions: Mapping[int, PartitionProgress]
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The judgement. `problems` say, one line each, what is wrong; empty where `ready`."""

    alive: bool
    ready: bool
    problems: tuple[str, ...]


def judge(lanes: Mapping[str, LaneReading], now_s: float, *, stopping: bool) -> Health:
    """Alive and ready, or why not. `now_s` is on the clock of `PartitionProgress.moved_at_s`.

    Waiting on purpose (for budget, for an LLM that is away) makes a lane unready once it stalls, but a restart
    would not help, so it stays alive.
    """
    problems = ["draining"] if stopping else []
    alive = True
    for name, lane in lanes.items():
        if not lane.joined:
            problems.append(f"{name}: has not joined its consumer group yet")
        for number, progress in sorted(lane.partitions.items()):
            stalled_s = _stalled_s(progress, now_s)
            if stalled_s < UNREADY_AFTER_S:
                continue
            why = f", waiting for {lane.waiting}" if lane.waiting else ""
            problems.append(f"{name}: partition {number} has a lag of {progress.lag} and stands still{why}")
            alive = alive and (stalled_s < DEAD_AFTER_S or lane.waiting is not None)
    return Health(alive=alive, ready=not problems, problems=tuple(problems))


def _stalled_s(progress: PartitionProgress, now_s: float) -> float:
    """How long the partition has had records and not moved; 0 where it has none, or its lag is not known."""
    return now_s - progress.moved_at_s if progress.lag else 0.0

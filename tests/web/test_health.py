"""Health is judged by committed offsets, not by a process that answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.telemetry import PartitionProgress
from stream_app.web.health import DEAD_AFTER_S, UNREADY_AFTER_S, LaneReading, judge


def reading(lag: int | None, stalled_s: float, *, waiting: str | None = None, joined: bool = True) -> LaneReading:
    return LaneReading(joined, {0: PartitionProgress(committed=10, lag=lag, moved_at_s=1_000.0 - stalled_s)}, waiting)


def test_a_worker_that_keeps_committing_is_ready() -> None:
    """Lag alone is no problem as long as offsets move."""
    health = judge({"classify": reading(50_000, 1.0)}, 1_000.0, stopping=False)
    assert (health.alive, health.ready, health.problems) == (True, True, ())


def test_nothing_to_do_is_not_a_stall() -> None:
    """A quiet night makes no worker unready."""
    assert judge({"classify": reading(0, 86_400.0)}, 1_000.0, stopping=False).ready
    assert judge({"classify": reading(None, 86_400.0)}, 1_000.0, stopping=False).ready


def test_a_stalled_partition_makes_it_unready_then_dead() -> None:
    """Records behind and no commit: first unready, and after ten minutes not alive, so that it is restarted."""
    stalled = judge({"classify": reading(7, UNREADY_AFTER_S)}, 1_000.0, stopping=False)
    assert (stalled.alive, stalled.ready) == (True, False)
    assert "partition 0 has a lag of 7 and stands still" in stalled.problems[0]
    assert not judge({"classify": reading(7, DEAD_AFTER_S)}, 1_000.0, stopping=False).alive


def test_waiting_on_purpose_is_never_a_reason_to_restart() -> None:
    """A budget that is spent stalls the lane for an hour; a restart would change nothing."""
    health = judge({"escalate": reading(7, 5_000.0, waiting="budget")}, 10_000.0, stopping=False)
    assert (health.alive, health.ready) == (True, False)
    assert "waiting for budget" in health.problems[0]


def test_a_worker_is_ready_only_once_it_has_joined_and_while_it_is_not_draining() -> None:
    """Rollouts wait for the join; a draining worker says so."""
    assert not judge({"classify": reading(0, 0.0, joined=False)}, 1_000.0, stopping=False).ready
    draining = judge({"classify": reading(0, 0.0)}, 1_000.0, stopping=True)
    assert (draining.alive, draining.ready, draining.problems) == (True, False, ("draining",))


@given(st.integers(0, 10**9) | st.none(), st.floats(0, 10**6), st.booleans())
def test_who_is_dead_is_never_ready(lag: int | None, stalled_s: float, stopping: bool) -> None:
    """Readiness implies liveness, and there are no problems without unreadiness."""
    health = judge({"classify": reading(lag, stalled_s)}, 1_000.0, stopping=stopping)
    assert health.alive or not health.ready
    assert health.ready == (not health.problems)

"""429s that no limit explains never cut deep for long: the configured limit is back in stated time from any depth."""

from __future__ import annotations

import pytest

from stream_app.escalate.limit_belief import CLIMB, CLIMB_WEAK, SHARE_MIN, Belief
from stream_app.escalate.token_bucket import Limits
from tests.escalate.demand import arrive, minutes_used, shares, trouble
from tests.escalate.paces import Setting
from tests.escalate.sweep import drawn, seen

FULL = 0.99
QUIET_S = 120.0
WIDE = Limits(3_000, 1_000_000_000)
"""What few calls are little of: where the quiet minute of a fault run took a thousandth."""
USUAL = Limits(600, 1_000_000)


def _at_full_again_s(believed: list[float]) -> int:
    """After how many seconds it stayed full."""
    return max((second + 1 for second, share in enumerate(believed) if share < FULL), default=0)


@pytest.mark.parametrize("calls_before", [3, 40, 400, 1_000])
def test_one_429_after_a_quiet_minute_costs_little(calls_before):
    """Then full demand: what is believed is back within two minutes, and not half a minute's work is lost.

    Three calls in a minute measure nothing. Hundreds measure how much was asked for, where more was allowed.
    """
    for seed in range(2):
        fleet = Setting("bucket", "max", WIDE, WIDE, seed=seed).fleet_that_waits()
        arrive(fleet, lambda now_s: calls_before if now_s < QUIET_S else 1.2 * WIDE.requests_per_minute)
        once = iter([1.0])
        trouble(fleet, lambda now_s, once=once: next(once, 0.0) if now_s >= QUIET_S - 1 else 0.0)
        fleet.run(QUIET_S)
        believed = shares(fleet, QUIET_S + 240)
        assert len(fleet.provider.refusals) == 1, f"seed {seed}"
        assert min(believed) >= 0.5, f"seed {seed}"
        assert _at_full_again_s(believed) <= 120, f"seed {seed}"
        assert minutes_used(fleet, WIDE.requests_per_minute, QUIET_S, QUIET_S + 240) >= 3.4, f"seed {seed}"


@pytest.mark.parametrize(
    ("refused", "lasts_s", "back_s"), [(0.7, 5, 300), (0.7, 15, 300), (1.0, 10, 300), (0.3, 30, 750)]
)
@pytest.mark.parametrize("calls_before", [3, 400])
def test_a_burst_of_429s_after_a_quiet_minute_is_forgotten(refused, lasts_s, back_s, calls_before):
    """Then full demand: what is believed is back within five minutes; after many refusals that agree, within 13."""
    for seed in range(2):
        fleet = Setting("bucket", "max", WIDE, WIDE, seed=seed).fleet_that_waits()
        over_s = QUIET_S + lasts_s
        arrive(fleet, lambda now_s, over_s=over_s: calls_before if now_s < over_s else 1.2 * WIDE.requests_per_minute)
        trouble(fleet, lambda now_s, over_s=over_s: refused if QUIET_S <= now_s < over_s else 0.0, seed)
        fleet.run(over_s)
        believed = shares(fleet, over_s + back_s + 60)
        assert _at_full_again_s(believed) <= back_s, f"seed {seed}"


def test_a_third_is_learnt_at_any_demand():
    """Thirty runs drawn at large: used 0.93 at least from a minute after the first 429 on, four of five 0.95 with at
    most five further 429s in ten minutes. (Of 67 calls a minute, granularity alone costs two per cent.)
    """
    found = {seed: seen(drawn(seed, workers=1)) for seed in range(30)}
    assert all(one.used >= 0.93 and one.refused <= 10 for one in found.values()), found
    assert sum(one.used >= 0.95 and one.refused <= 5 for one in found.values()) >= 24, found


@pytest.mark.parametrize("demand", [0.005, 0.05, 0.2, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("refused", [0.01, 0.05])
def test_429s_now_and_then_never_take_the_limit_away(demand, refused):
    """One to five calls of a hundred are refused, half a minute of every three: no minute below a fifth, or half
    of what is asked for. Ten minutes after the last of them the whole limit is believed, whatever was asked for.
    """
    for seed in range(2):
        fleet = Setting("bucket", "max", USUAL, USUAL, seed=seed).fleet_that_waits()
        arrive(fleet, lambda _: demand * USUAL.requests_per_minute)
        over_s = 1_200 + 30
        trouble(
            fleet,
            lambda now_s, over_s=over_s: refused if 60 <= now_s < over_s and (now_s - 60) % 180 < 30 else 0.0,
            seed,
        )
        believed = shares(fleet, over_s + 600)
        low = [share < min(0.2, demand / 2) for share in believed]
        assert not any(all(low[at_s : at_s + 60]) for at_s in range(len(low) - 60)), f"seed {seed}"
        assert _at_full_again_s(believed[over_s:]) <= 600, f"seed {seed}"


@pytest.mark.parametrize(("climb", "within_s"), [(CLIMB, 780), (CLIMB_WEAK, 300)])
def test_the_configured_limit_is_believed_again_from_any_depth(climb, within_s):
    """While nothing is refused: from the least that is believed within 13 minutes, never falling on the way."""
    belief = Belief(SHARE_MIN, SHARE_MIN, SHARE_MIN, 0.0, climb)
    way = [belief.share(float(second)) for second in range(within_s + 1)]
    assert way == sorted(way)
    assert way[-1] >= FULL
    assert belief.share(1e9) == 1.0

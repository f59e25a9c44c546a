"""The stand-in's limits keep, to the unit, what each kind promises; a model that adds up everything says so."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.llm.limits import Charge, FixedWindow, Limit, LimitKind, SlidingLog, TokenBucket, new_limit

TICK_S = 1 / 64  # times are whole ticks, so that floats are exact
BEGIN_S = 1_795_222_000.0

# Each call: ticks since the one before, units it asks for, units it used in the end, ticks until that is known.
CALLS = st.lists(
    st.tuples(
        st.integers(0, 30 * 64) | st.integers(0, 3), st.integers(1, 14), st.integers(0, 16), st.integers(0, 90 * 64)
    ),
    max_size=40,
)
PER_MINUTE = st.integers(1, 40)


class Played:
    """A limit through which calls have gone; `taken` are (time, units that stand) of those let in, as told by us."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.now_s = BEGIN_S
        self.taken: list[list] = []
        self.moves: list[tuple[float, int]] = []
        self._open: list[tuple[float, list, Charge, int]] = []

    def pass_time(self, until_s: float) -> None:
        for due in sorted((one for one in self._open if one[0] <= until_s), key=lambda one: one[0]):
            at_s, taken, charge, used = due
            self._open.remove(due)
            self.limit.settle(charge, used, at_s)
            self.moves.append((at_s, taken[1] - used))
            taken[1] = used
        self.now_s = until_s

    def ask(self, units: int, used: int, later_s: float) -> float:
        wait_s = self.limit.wait_s(units, self.now_s)
        if wait_s == 0:
            taken = [self.now_s, units]
            self.taken.append(taken)
            self.moves.append((self.now_s, -units))
            self._open.append((self.now_s + later_s, taken, self.limit.take(units, self.now_s), used))
        return wait_s


def counted_by_log(taken: list[list], now_s: float) -> int:
    return sum(units for at_s, units in taken if at_s > now_s - 60)


def counted_by_window(taken: list[list], now_s: float) -> int:
    return sum(units for at_s, units in taken if math.floor(at_s / 60) == math.floor(now_s / 60))


@pytest.mark.parametrize(("kind", "counted"), [(SlidingLog, counted_by_log), (FixedWindow, counted_by_window)])
@given(calls=CALLS, per_minute=PER_MINUTE)
def test_windows_let_in_what_has_room_and_nothing_else(kind, counted, calls, per_minute):
    """A call passes exactly when what stands in its window leaves room; the wait is the shortest that helps."""
    played = Played(kind(per_minute))
    for gap, units, used, later in calls:
        played.pass_time(played.now_s + gap * TICK_S)
        now_s, before = played.now_s, [list(one) for one in played.taken]
        assert played.limit.remaining(now_s) == max(0, per_minute - counted(before, now_s))
        wait_s = played.ask(units, min(used, units), later * TICK_S)
        assert (wait_s == 0) == (counted(before, now_s) + units <= per_minute)
        assert math.isinf(wait_s) == (units > per_minute)
        if 0 < wait_s < math.inf:
            assert counted(before, now_s + wait_s) + units <= per_minute
            assert counted(before, now_s + wait_s - TICK_S) + units > per_minute


@given(calls=CALLS, per_minute=PER_MINUTE)
def test_no_sixty_seconds_of_a_log_hold_more_than_the_limit(calls, per_minute):
    """Wherever a window of 60 s begins, the log let in no more; a fixed window's minutes of the clock neither."""
    for kind, of_window in ((SlidingLog, lambda at_s: at_s), (FixedWindow, lambda at_s: at_s // 60 * 60)):
        played = Played(kind(per_minute))
        for gap, units, _, later in calls:
            played.pass_time(played.now_s + gap * TICK_S)
            played.ask(units, units, later * TICK_S)
        for begin_s in (of_window(at_s) for at_s, _ in played.taken):
            assert sum(units for at_s, units in played.taken if begin_s <= at_s < begin_s + 60) <= per_minute


def level_of(moves: list[tuple[float, int]], now_s: float, rate: Fraction, size: Fraction) -> Fraction:
    """What a bucket holds: its size, less what was taken beyond the refill since the moment it was fullest."""
    height, at_s, heights = Fraction(0), BEGIN_S, [Fraction(0)]
    for moved_at_s, units in moves:
        height += rate * Fraction(moved_at_s - at_s)
        heights.append(height)
        height, at_s = height + units, moved_at_s
        heights.append(height)
    height += rate * Fraction(now_s - at_s)
    return size + height - max(*heights, height)


@given(calls=CALLS, per_minute=PER_MINUTE, burst_s=st.sampled_from([0.5, 1, 7, 60]))
def test_a_bucket_lets_in_what_it_holds_and_no_more_than_it_promises(calls, per_minute, burst_s):
    """A call passes when the bucket holds it, or is full; over every window: rate * T + the burst, or one call."""
    played = Played(TokenBucket(per_minute, burst_s))
    rate, size = Fraction(per_minute, 60), max(Fraction(1), Fraction(per_minute) * Fraction(burst_s) / 60)
    for gap, units, used, later in calls:
        played.pass_time(played.now_s + gap * TICK_S)
        held = level_of(played.moves, played.now_s, rate, size)
        wait_s = played.ask(units, min(used, units), later * TICK_S)
        assert math.isinf(wait_s) == (units > per_minute)
        lacking = min(units, size) - held
        if units <= per_minute and abs(lacking) > 1e-6:
            assert (wait_s == 0) == (lacking <= 0)
            assert wait_s == pytest.approx(max(0, float(lacking / rate)), abs=1e-4)
    most = max([size, *(-units for _, units in played.moves)])
    for first, (begin_s, _) in enumerate(played.moves):
        net = Fraction(0)
        for at_s, units in played.moves[first:]:
            net -= units
            assert net <= rate * Fraction(at_s - begin_s) + most + Fraction(1, 10**6)


@pytest.mark.parametrize("kind", LimitKind)
def test_a_limit_that_is_cut_remembers_what_was_taken(kind):
    """Cut to a third while it runs, a limit gives no new minute away; what was taken before still stands."""
    limit = new_limit(kind, 60, 60)
    for second in range(50):
        assert limit.wait_s(1, BEGIN_S + second) == 0
        limit.take(1, BEGIN_S + second)
    limit.retune(20, 60, BEGIN_S + 50)
    assert limit.per_minute == 20
    assert limit.remaining(BEGIN_S + 50) <= 20
    if kind is not LimitKind.TOKEN_BUCKET:
        assert limit.remaining(BEGIN_S + 50) == 0
        assert limit.wait_s(1, BEGIN_S + 50) > 0
    assert limit.wait_s(1, BEGIN_S + 200) == 0
    assert limit.remaining(BEGIN_S + 200) == 20


@pytest.mark.parametrize("kind", LimitKind)
def test_a_limit_is_reset_when_nothing_of_it_is_taken(kind):
    """`reset` is the time until everything is there again."""
    limit = new_limit(kind, 60, 60)
    assert limit.reset_s(BEGIN_S) == 0
    limit.take(10, BEGIN_S)
    reset_s = limit.reset_s(BEGIN_S + 1)
    assert 0 < reset_s <= 60
    assert limit.remaining(BEGIN_S + 1 + reset_s / 2) < 60
    assert limit.remaining(BEGIN_S + 1 + reset_s) == 60


def test_nought_is_no_limit():
    """A limit of 0 is none."""
    assert [new_limit(kind, 0, 60) for kind in LimitKind] == [None, None, None]

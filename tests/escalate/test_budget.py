"""Dollars are leased before use: no kill, no rebalance and no hour's turn lets a partition pass its share."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream_app.escalate.budget import HOUR_S, NANO, Funds, Lease, PartitionBudget, parse_lease
from stream_app.kafka import finished

HOUR_USD, DAY_USD = 0.001, 0.005
AMOUNTS = st.integers(0, int(HOUR_USD * NANO / 3))


class Fleet(RuleBasedStateMachine):
    """One partition under owners that come and go; the provider's own books know what was really spent."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_s = 500_000 * 3600.0
        self.metadata: Lease | None = None
        self.spent: list[tuple[float, int]] = []
        self.take_over()

    def take_over(self) -> None:
        self.owner = PartitionBudget.opened(HOUR_USD, DAY_USD, self.metadata, self.wall_s)
        self.in_flight: list[int] = []
        self.pending: tuple[Lease, int] | None = None

    @rule(amount=AMOUNTS)
    def call(self, amount: int) -> None:
        """A call starts if it is granted."""
        if self.owner.ask(amount, self.wall_s) is Funds.GRANTED:
            self.owner.reserve(amount)
            self.in_flight.append(amount)

    @precondition(lambda self: self.in_flight)
    @rule(share=st.floats(0, 1))
    def answer(self, share: float) -> None:
        """A call ends and cost no more than its reservation."""
        reserved = self.in_flight.pop(0)
        cost = int(reserved * share)
        self.spent.append((self.wall_s, cost))
        self.owner.settle(reserved, cost, self.wall_s)

    @rule()
    def begin_commit(self) -> None:
        """A transaction begins with the lease of this moment."""
        if self.pending is None:
            lease = self.owner.lease(self.wall_s)
            self.pending = lease, self.owner.authority_of(lease)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def end_commit(self) -> None:
        """It succeeds."""
        assert self.pending is not None
        self.metadata, authority = self.pending
        self.owner.committed(authority)
        self.pending = None

    @rule(committed=st.booleans(), paid=st.booleans())
    def kill(self, committed: bool, paid: bool) -> None:
        """The owner dies, perhaps after its last transaction went through, perhaps with calls that are charged."""
        if committed and self.pending is not None:
            self.metadata = self.pending[0]
        if paid:
            self.spent += [(self.wall_s, reserved) for reserved in self.in_flight]
        self.take_over()

    @precondition(lambda self: self.pending is None)
    @rule()
    def hand_over(self) -> None:
        """A planned end: calls are over, the last commit leases nothing."""
        while self.in_flight:
            self.answer(1.0)
        self.metadata = self.owner.lease(self.wall_s, closing=True)
        assert self.metadata.leased_nusd == 0
        self.take_over()

    @rule(pause_s=st.floats(0, 2.5 * HOUR_S))
    def wait(self, pause_s: float) -> None:
        """Time goes by."""
        self.wall_s += pause_s

    @invariant()
    def no_hour_and_no_day_passes_its_share(self) -> None:
        """By the provider's books."""
        hours: dict[int, int] = {}
        days: dict[int, int] = {}
        for wall_s, cost in self.spent:
            hours[int(wall_s // HOUR_S)] = hours.get(int(wall_s // HOUR_S), 0) + cost
            days[int(wall_s // (24 * HOUR_S))] = days.get(int(wall_s // (24 * HOUR_S)), 0) + cost
        assert max(hours.values(), default=0) <= HOUR_USD * NANO
        assert max(days.values(), default=0) <= DAY_USD * NANO


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@given(st.builds(Lease, *[st.integers(0, 10**13)] * 5))
def test_a_lease_survives_the_metadata(lease):
    """What one owner writes the next one reads, inside the offset's metadata."""
    text = finished.encode(7, {9}, lease.text())
    assert parse_lease(finished.decode(text, 7).extra) == lease


def test_what_is_no_lease_is_none():
    """Anything else in the extra part is no lease, and no crash."""
    for extra in ("", "$", "$1,2,3", "1,2,3,4,5", "$1,2,3,4,-5", "$1,2,3,4,x", "$1,2,3,4,5,6", "$¹,2,3,4,5"):
        assert parse_lease(extra) is None


def test_a_call_waits_for_its_lease_then_goes():
    """Nothing is spent before a lease is committed; the lease asked for covers the call that asked."""
    budget = PartitionBudget.opened(1.0, 10.0, None, 0.0)
    amount = NANO // 10
    assert budget.ask(amount, 0.0) is Funds.LEASE_FIRST
    lease = budget.lease(0.0)
    budget.committed(budget.authority_of(lease))
    assert budget.ask(amount, 0.0) is Funds.GRANTED


def test_an_exhausted_hour_says_when_the_next_begins():
    """With the hour's share spent the next hour is waited for, with the day's spent the next day."""
    budget = PartitionBudget.opened(1.0, 1.5, Lease(0, 0, NANO, 0, 0), 600.0)
    assert budget.ask(1, 600.0) is Funds.EXHAUSTED
    assert budget.next_hour_in_s(600.0) == 3_000
    spent = PartitionBudget.opened(1.0, 1.5, Lease(0, 0, NANO, 0, NANO), HOUR_S + 600.0)
    assert spent.ask(1, HOUR_S + 600.0) is Funds.EXHAUSTED
    assert spent.next_hour_in_s(HOUR_S + 600.0) == 24 * HOUR_S - HOUR_S - 600

"""Dollars an hour and a day, for the whole fleet, through kills. Pure: the wall clock is an argument.

Each partition of the escalation topic has its share of the budget, and its owner leases dollars *before* it
spends them: the lease is committed in the partition's offset metadata (the `extra` of `stream_app.kafka.finished`),
and no call starts whose worst cost the committed lease does not cover. Whoever owns the partition next counts
the whole lease as spent. So what a killed worker spent and could not tell is in the account already.

Amounts are whole nano-dollars: a call can cost less than a micro-dollar's rounding error. Hours and days are
UTC, counted from the epoch. A call is charged to the hour in which it is settled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

NANO = 1_000_000_000
HOUR_S = 3_600
DAY_S = 86_400
CHUNKS_PER_HOUR = 60
"""A lease reaches one minute of the hourly share ahead: what a kill can cost, and how often to renew."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a partition's offset metadata says about money.

    `settled_*_nusd` is what was spent in that hour and day for certain, `leased_nusd` what its owner may spend
    beyond that before it commits again.
    """

    hour: int
    day: int
    leased_nusd: int
    settled_hour_nusd: int
    settled_day_nusd: int

    def text(self) -> str:
        """The lease as it stands in the metadata: `$` and five numbers."""
        return f"${self.hour},{self.day},{self.leased_nusd},{self.settled_hour_nusd},{self.settled_day_nusd}"


def parse_lease(extra: str) -> Lease | None:
    """The lease in a metadata's extra part; None where there is none or it cannot be read."""
    parts = extra.removeprefix("$").split(",")
    if not extra.startswith("$") or len(parts) != 5 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return Lease(*(int(part) for part in parts))


class Funds(Enum):
    """May this call be paid?"""

    GRANTED = auto()
    LEASE_FIRST = auto()  # commit a larger lease, then ask again
    EXHAUSTED = auto()  # this hour's or day's share is spent


@dataclass(slots=True)
class PartitionBudget:
    """One partition's account, kept by its owner.

    Invariant: spent in all + reserved <= the authority of the last committed lease, and in every hour (day)
    settled + reserved <= the share of the hour (day).
    """

    hour_share_nusd: int
    day_share_nusd: int
    hour: int
    day: int
    settled_hour_nusd: int = 0
    settled_day_nusd: int = 0
    reserved_nusd: int = 0
    _spent_nusd: int = 0  # since this owner opened the partition, never reset
    _authority_nusd: int = 0  # what `_spent_nusd` + reserved may reach under the committed lease
    _wanted_nusd: int = 0  # the largest call that asked for a lease

    @classmethod
    def opened(cls, usd_per_hour: float, usd_per_day: float, last: Lease | None, wall_s: float) -> PartitionBudget:
        """The account of a partition just gained, its share of the budget given in dollars.

        The last owner's whole lease counts as spent, now: nobody knows in which hour it was.
        """
        hour, day = int(wall_s // HOUR_S), int(wall_s // DAY_S)
        budget = cls(math.floor(usd_per_hour * NANO), math.floor(usd_per_day * NANO), hour, day)
        if last is not None:
            budget.settled_hour_nusd = last.leased_nusd + (last.settled_hour_nusd if last.hour == hour else 0)
            budget.settled_day_nusd = last.leased_nusd + (last.settled_day_nusd if last.day == day else 0)
        return budget

    def roll(self, wall_s: float) -> None:
        """Starts a new hour and day when the clock says so; a clock that ran back changes nothing."""
        if (hour := int(wall_s // HOUR_S)) > self.hour:
            self.hour, self.settled_hour_nusd = hour, 0
        if (day := int(wall_s // DAY_S)) > self.day:
            self.day, self.settled_day_nusd = day, 0

    @property
    def left_nusd(self) -> int:
        """What this hour and day still allow beyond what is settled; reservations come out of it."""
        hour_left = self.hour_share_nusd - self.settled_hour_nusd
        return max(0, min(hour_left, self.day_share_nusd - self.settled_day_nusd))

    def ask(self, amount_nusd: int, wall_s: float) -> Funds:
        """May a call that costs at most `amount_nusd` start?"""
        self.roll(wall_s)
        if self.reserved_nusd + amount_nusd > self.left_nusd:
            return Funds.EXHAUSTED
        if self._spent_nusd + self.reserved_nusd + amount_nusd > self._authority_nusd:
            self._wanted_nusd = max(self._wanted_nusd, amount_nusd)
            return Funds.LEASE_FIRST
        return Funds.GRANTED

    def reserve(self, amount_nusd: int) -> None:
        """Sets the worst cost of a granted call aside."""
        self.reserved_nusd += amount_nusd

    def settle(self, reserved_nusd: int, cost_nusd: int, wall_s: float) -> None:
        """Replaces a reservation by what the call cost."""
        self.roll(wall_s)
        self.reserved_nusd -= reserved_nusd
        self._spent_nusd += cost_nusd
        self.settled_hour_nusd += cost_nusd
        self.settled_day_nusd += cost_nusd

    def lease(self, wall_s: float, *, closing: bool = False) -> Lease:
        """The lease to commit now. `closing` asks for nothing beyond the calls in flight."""
        self.roll(wall_s)
        ahead = 0 if closing else max(self.hour_share_nusd // CHUNKS_PER_HOUR, 2 * self._wanted_nusd)
        wanted = min(self.reserved_nusd + ahead, self.left_nusd)
        still_committed = 0 if closing else self._authority_nusd - self._spent_nusd
        leased = max(wanted, self.reserved_nusd, still_committed)
        return Lease(self.hour, self.day, leased, self.settled_hour_nusd, self.settled_day_nusd)

    def authority_of(self, lease: Lease) -> int:
        """What `lease`, made just now, lets this owner spend; remember it until the commit has succeeded."""
        return self._spent_nusd + lease.leased_nusd

    def committed(self, authority_nusd: int) -> None:
        """The lease of that authority is committed."""
        self._authority_nusd = max(self._authority_nusd, authority_nusd)

    def next_hour_in_s(self, wall_s: float) -> float:
        """How long until the next share: of the hour, or of the day where that is what is spent."""
        period_s = HOUR_S if self.day_share_nusd - self.settled_day_nusd > self.reserved_nusd else DAY_S
        return period_s - wall_s % period_s


def nano_dollars(usd: float) -> int:
    """Dollars as whole nano-dollars, rounded up."""
    return math.ceil(usd * NANO)

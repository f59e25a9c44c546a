"""How much the last 60 s took, kept in a bounded number of slots and correctable afterwards. Pure.

A provider that counts the last minute, or whole minutes, refuses what is one token too much. So a slot is counted
until its youngest entry is 60 s old, and a little longer, because one call overtakes another on the network.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MINUTE_S = 60.0
SLOT_S = 0.05
"""At most 1,204 slots, about 100 KB where more than twenty calls a second go."""
NETWORK_S = 0.15
"""More than most calls gain on each other on the way; together with the slot 0.3 % of the minute."""


@dataclass(slots=True)
class Slot:
    """What a twentieth of a second took."""

    began_s: float
    amount: float = 0.0


@dataclass(slots=True)
class LastMinute:
    """The slots of the last minute, the oldest first. Time may stand still, it never goes back."""

    total: float = 0.0
    _slots: deque[Slot] = field(default_factory=deque[Slot])

    def add(self, amount: float, now_s: float) -> Slot:
        """Counts `amount` now; the slot is where to correct it."""
        self.forget(now_s)
        if not self._slots or now_s - self._slots[-1].began_s >= SLOT_S:
            self._slots.append(Slot(now_s))
        slot = self._slots[-1]
        self.correct(slot, amount)
        return slot

    def correct(self, slot: Slot, by: float) -> None:
        """Adds to what an earlier `add` counted. A slot that is forgotten by now changes nothing."""
        slot.amount += by
        if self._slots and slot.began_s >= self._slots[0].began_s:
            self.total += by

    def forget(self, now_s: float) -> None:
        """Drops what is older than the minute."""
        while self._slots and self._ends_s(self._slots[0]) <= now_s:
            self.total -= self._slots.popleft().amount
        if not self._slots:
            self.total = 0.0  # what floats lost in adding and taking away

    def room_in_s(self, amount: float, limit: float, now_s: float) -> float:
        """How long until `amount` fits under `limit`: 0 if now. More than the limit fits where nothing is counted."""
        self.forget(now_s)
        excess = self.total + min(amount, limit) - limit
        for slot in self._slots:
            if excess <= limit * 1e-9:  # the floats' rounding
                break
            excess -= slot.amount
            wait_s = self._ends_s(slot) - now_s
            if excess <= limit * 1e-9:
                return wait_s
        return 0.0

    def between(self, from_s: float, to_s: float) -> float:
        """What the slots took that began in [from, to), as far as they are remembered."""
        return sum(slot.amount for slot in self._slots if from_s <= slot.began_s < to_s)

    @staticmethod
    def _ends_s(slot: Slot) -> float:
        return slot.began_s + SLOT_S + NETWORK_S + MINUTE_S

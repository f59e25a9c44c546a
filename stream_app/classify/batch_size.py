"""How many records the next batch takes: as many as are decided within a quarter of a second. Pure.

A batch leaves as a whole, so a record that the first tier accepts waits for those that a slower tier is still
asked about. Cheap models get batches of thousands, which is what makes transactions cheap; an encoder on a CPU
gets dozens.
"""

from __future__ import annotations

from dataclasses import dataclass

TARGET_S = 0.25
RECORDS_MIN = 64
RECORDS_FIRST = 256


@dataclass(slots=True)
class BatchSize:
    """Doubles while full batches take less than half of `TARGET_S`, falls to what fits as soon as one takes more."""

    records_max: int
    records: int = RECORDS_FIRST

    def __post_init__(self) -> None:
        self.records = min(self.records, self.records_max)

    def took(self, records: int, seconds: float) -> None:
        """A batch of `records` was decided in `seconds`. Small batches say nothing about large ones."""
        if seconds > TARGET_S:
            fits = int(records * TARGET_S / seconds)
            self.records = max(min(RECORDS_MIN, self.records_max), min(self.records, fits))
        elif seconds < TARGET_S / 2 and records >= self.records:
            self.records = min(2 * self.records, self.records_max)

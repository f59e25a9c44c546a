"""Money as the provider counts it: exact sums of what was spent, and of what calls in flight may cost yet. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PICO = 1_000_000_000_000
"""Money is counted in whole millionths of a millionth of a dollar, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per million tokens."""

    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0

    def pico(self, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens cost, in picodollars. Prices count to the millionth of a dollar."""
        per_input, per_output = round(self.usd_per_million_input * 1e6), round(self.usd_per_million_output * 1e6)
        return input_tokens * per_input + output_tokens * per_output


@dataclass(slots=True)
class Account:
    """What was spent, and the most that the calls in flight can cost yet."""

    spent_pico: int = 0
    reserved_pico: int = 0
    most_pico: int = 0
    admitted: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def reserve(self, pico: int) -> None:
        """A call was let in that costs at most so much."""
        self.admitted += 1
        self.in_flight += 1
        self.reserved_pico += pico
        self.most_pico = max(self.most_pico, self.spent_pico + self.reserved_pico)

    def spend(self, reserved_pico: int, pico: int, input_tokens: int, output_tokens: int) -> None:
        """Such a call has ended."""
        self.in_flight -= 1
        self.reserved_pico -= reserved_pico
        self.spent_pico += pico
        self.most_pico = max(self.most_pico, self.spent_pico + self.reserved_pico)
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    def as_json(self) -> dict[str, Any]:
        """In dollars. `spent_and_reserved_max_usd` is the highest that the sum of both ever was."""
        return {
            "spent_usd": self.spent_pico / PICO,
            "reserved_usd": self.reserved_pico / PICO,
            "spent_and_reserved_max_usd": self.most_pico / PICO,
            "admitted": self.admitted,
            "in_flight": self.in_flight,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }

"""What a token costs: the settings' price, else a dated default table.

Prices in US dollars per million tokens, standard tier, as published by their makers and last read on the date
below. A price that has changed since is corrected in the settings (`usd_per_million_input`, `_output`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import SettingsError
from stream_app.escalate.budget import nano_dollars

if TYPE_CHECKING:
    from stream_app.settings import Endpoint

READ_ON = "2025-08-31"


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, in and out."""

    usd_per_million_input: float
    usd_per_million_output: float

    def cost_nusd(self, input_tokens: int, output_tokens: int) -> int:
        """What a call costs, in nano-dollars, rounded up."""
        per_million = input_tokens * self.usd_per_million_input + output_tokens * self.usd_per_million_output
        return nano_dollars(per_million / 1_000_000)


DEFAULT_PRICES: dict[str, Price] = {
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-4-turbo": Price(10.00, 30.00),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "o4-mini": Price(1.10, 4.40),
}


def price_of(endpoint: Endpoint) -> Price:
    """The endpoint's price. Raises SettingsError where neither the settings nor the table know it.

    A dated snapshot (`gpt-4o-mini-2024-07-18`) has its model's price.
    """
    known = DEFAULT_PRICES.get(endpoint.model) or DEFAULT_PRICES.get(_without_date(endpoint.model))
    input_usd, output_usd = endpoint.usd_per_million_input, endpoint.usd_per_million_output
    if input_usd is None and known is not None:
        input_usd = known.usd_per_million_input
    if output_usd is None and known is not None:
        output_usd = known.usd_per_million_output
    if input_usd is None or output_usd is None:
        raise SettingsError(
            f"the price of {endpoint.model!r} is not known, so no budget could hold",
            advice="set usd_per_million_input and usd_per_million_output under [[llm.endpoints]] (0 if it is free)",
        )
    return Price(input_usd, output_usd)


def _without_date(model: str) -> str:
    """`gpt-4o-mini-2024-07-18` -> `gpt-4o-mini`."""
    parts = model.rsplit("-", 3)
    dated = len(parts) == 4 and [len(part) for part in parts[1:]] == [4, 2, 2] and all(map(str.isdigit, parts[1:]))
    return parts[0] if dated else model

"""What a question needs to be asked: the endpoints, the queue before them, clocks; and what it has paid so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.escalate.budget import NANO
from stream_app.escalate.gate import Cost
from stream_app.events import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.escalate.admission import Admission
    from stream_app.escalate.client import LlmClient
    from stream_app.escalate.prices import Price
    from stream_app.escalate.prompt import Request
    from stream_app.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class PricedClient:
    """An endpoint's client, and what its calls cost."""

    client: LlmClient
    price: Price


@dataclass(frozen=True, slots=True)
class Line:
    """The way to the LLM: `endpoints` in the order of the gate's."""

    endpoints: Sequence[PricedClient]
    admission: Admission
    timeout_s: float
    metrics: Metrics
    now_s: Callable[[], float]
    wall_s: Callable[[], float]
    draw: Callable[[], float]
    """A random number in [0, 1), for the jitter."""

    def costs_max(self, requests: Sequence[Request]) -> tuple[Cost, ...]:
        """The most that a call can take at each endpoint, there with its own of the `requests`."""
        return tuple(self._cost_max(number, request) for number, request in enumerate(requests))

    def _cost_max(self, number: int, request: Request) -> Cost:
        use = self.admission.gate.endpoints[number].use
        sizes = request.prompt_version, request.input_tokens, request.output_tokens_max
        dollars = self.endpoints[number].price.cost_nusd(request.input_tokens_max, request.output_tokens_max)
        return Cost(use.charge(*sizes), dollars, use.held(*sizes))


@dataclass(slots=True)
class Paid:
    """What one event's calls took so far, at whichever endpoints."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    latency_s: float = 0.0
    request_id: str | None = None

    def usage(self, model: str, prompt_version: str, *, cached: bool = False) -> Usage:
        """As it stands on the decision; `model` is the one that answered, or was asked last."""
        return Usage(
            model=model,
            prompt_version=prompt_version,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_usd=self.cost_nusd / NANO,
            latency_ms=round(self.latency_s * 1000, 3),
            cached=cached,
            request_id=self.request_id,
        )

"""An account without quota is not asked again and again: the circuit opens at the first answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_app.escalate.breaker import Circuit
from stream_app.escalate.line import Line, PricedClient
from stream_app.escalate.prices import Price
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.question import NoAnswer, Question
from stream_app.escalate.results import Misconfigured
from stream_app.telemetry import Metrics
from tests.escalate.escalated import escalation, event
from tests.escalate.test_admission import Lane

if TYPE_CHECKING:
    from stream_app.escalate.gate import WhenOut
    from stream_app.escalate.results import CallResult


class NoQuota:
    """An endpoint whose account is spent (the client makes this of a 429 `insufficient_quota`, see test_client)."""

    name = "provider.example"
    model = "any"

    def __init__(self) -> None:
        self.calls_at_s: list[float] = []

    async def ask(self, request, timeout_s: float) -> CallResult:
        self.calls_at_s.append(time.monotonic())
        return Misconfigured("insufficient_quota", "HTTP 429 insufficient_quota")


def question(endpoint: NoQuota, on_outage: WhenOut, within_s: float) -> tuple[Lane, Question]:
    """One event's question to it."""
    lane, one = Lane(on_outage=on_outage), escalation(0)
    asked = [PricedClient(endpoint, Price(0.15, 0.6))]
    line = Line(asked, lane.admission, 5.0, Metrics(), time.monotonic, time.time, lambda: 0.0)
    request = Prompter(PromptOptions(), ["sentiment", "toxicity"]).render(one, event("a text"))
    return lane, Question(line, 0, [request], lane.admission.running_s + within_s)


async def test_insufficient_quota_opens_the_circuit_instead_of_retrying():
    """One call, then the circuit is open; an event that does not wait for outages leaves at once."""
    endpoint = NoQuota()
    lane, asked = question(endpoint, "degrade", 10.0)
    began_s = time.monotonic()
    result = await asked.answer()
    assert isinstance(result, NoAnswer)
    assert result.reason == "outage"
    assert len(endpoint.calls_at_s) == 1
    assert lane.gate.endpoints[0].breaker.circuit is Circuit.OPEN
    assert time.monotonic() - began_s < 0.9, "nobody waited for the cool-down"


async def test_insufficient_quota_is_probed_once_a_cool_down():
    """An event that waits costs the endpoint one probe a cool-down, which doubles: never a burst of retries."""
    endpoint = NoQuota()
    _, asked = question(endpoint, "wait", 60.0)
    first = await asked._call(await asked._turn())
    assert isinstance(first, Misconfigured)
    began_s = time.monotonic()
    await asked._call(await asked._turn())
    assert len(endpoint.calls_at_s) == 2
    assert endpoint.calls_at_s[1] - endpoint.calls_at_s[0] >= 0.99
    assert time.monotonic() - began_s < 10

"""Every call that was started ends exactly once in the account of the rate, whatever becomes of it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from stream_app.escalate.breaker import Circuit
from stream_app.escalate.call_end import Counted, Lost, OverLimit, end_of
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.line import Line, PricedClient
from stream_app.escalate.prices import Price
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.question import Dropped, GotAnswer, NoAnswer, Question
from stream_app.escalate.rate_headers import Allowance, RateHeaders
from stream_app.escalate.results import (
    Answered,
    BadRequest,
    ContentRefused,
    Failed,
    Misconfigured,
    RateLimited,
    Unusable,
)
from stream_app.escalate.token_bucket import Limits
from stream_app.escalate.token_use import TokenUse
from stream_app.telemetry import Metrics
from tests.escalate.escalated import escalation, event
from tests.escalate.test_admission import Lane

if TYPE_CHECKING:
    from stream_app.escalate.corrected_rate import Started
    from stream_app.escalate.results import CallResult

RIGHT = '{"sentiment": "positive"}'
HEADERS = RateHeaders(requests=Allowance(100.0))
RESULTS: tuple[CallResult, ...] = (
    *[Answered(RIGHT, None, "stop", 90, 5, "req")] * 12,
    Answered(RIGHT, None, "stop", None, None, None),
    Answered("nonsense", None, "stop", 90, 5, "req"),
    Answered(None, "no", "stop", 90, 5, "req"),
    RateLimited(RateHeaders(retry_after_s=0.01)),
    RateLimited(RateHeaders(retry_after_s=0.02)),
    ContentRefused("HTTP 400 content_filter"),
    Unusable("the body is no chat completion"),
    Failed("server_error", "HTTP 503"),
    Failed("timeout", "no answer", maybe_paid=True),
    BadRequest("HTTP 400"),
)


class Ledger(CorrectedRate):
    """A rate that knows which calls are under way, and fails at once where one ends that is not."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, 2)
        self.under_way: list[Started] = []
        self.started = 0

    def start(self, *given, **named) -> Started:
        started = super().start(*given, **named)
        self.under_way.append(started)
        self.started += 1
        return started

    def answered(self, started: Started, *given) -> None:
        self._ends(started)
        super().answered(started, *given)

    def refused(self, started: Started, *given) -> None:
        self._ends(started)
        super().refused(started, *given)

    def lost(self, started: Started, *given) -> None:
        self._ends(started)
        super().lost(started, *given)

    def _ends(self, started: Started) -> None:
        found = [place for place, one in enumerate(self.under_way) if one is started]
        assert len(found) == 1, "a call ended twice"
        del self.under_way[found[0]]


class Endpoint:
    """Answers by chance, after a moment by chance; now and then it raises, as a bug would."""

    name, model = "provider.example", "any"

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.calls = 0

    async def ask(self, request, timeout_s: float) -> CallResult:
        self.calls += 1
        await asyncio.sleep(self.draw.expovariate(1 / 0.03))
        if self.draw.random() < 0.01:
            raise ZeroDivisionError
        return self.draw.choice(RESULTS)


@pytest.mark.parametrize("seed", range(3))
async def test_every_start_ends_once(seed):
    """Answers, refusals, failures, time-outs, cancellations, partitions that leave and come back, a bug: none leaks.

    Neither in the rate nor in the budget, and neither circuit nor refusal waits for a probe that is over.
    """
    print("seed", seed)
    draw = random.Random(seed)
    lane = Lane(on_outage="degrade")
    lane.gate.endpoints[0].rate = ledger = Ledger(Limits(6e6, 6e9))
    for partition in (0, 1):
        ledger.gain(partition, time.monotonic())
    endpoint = Endpoint(draw)
    clocks = time.monotonic, time.time
    priced = [PricedClient(endpoint, Price(0.15, 0.6))]
    line = Line(priced, lane.admission, 5.0, Metrics(), *clocks, lambda: draw.random() / 50)
    prompter, one = Prompter(PromptOptions(), ["sentiment", "toxicity"]), escalation(0)

    def asked(number: int) -> asyncio.Task:
        request = prompter.render(one, event(f"text {number}"))
        deadline_s = lane.admission.running_s + draw.choice((0.05, 3.0))
        return asyncio.create_task(Question(line, number % 2, [request], deadline_s).answer())

    tasks: list[asyncio.Task] = []
    for number in range(400):
        tasks.append(asked(number))
        await asyncio.sleep(0.002)
        if draw.random() < 0.05:
            draw.choice(tasks).cancel()
        if number % 100 == 50:
            lane.admission.lose(number // 100 % 2)
            await asyncio.sleep(0.01)
            lane.admission.gain(number // 100 % 2, None)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(result) for result in found}
    assert {GotAnswer, NoAnswer, Dropped, asyncio.CancelledError} <= kinds
    assert kinds <= {GotAnswer, NoAnswer, Dropped, asyncio.CancelledError, ZeroDivisionError}
    assert ledger.started >= endpoint.calls > 100
    assert ledger.under_way == []
    assert ledger.shares.in_flight == 0
    assert not any(budget.reserved_nusd for budget in lane.gate.budgets.values())
    assert lane.gate.endpoints[0].breaker.circuit is not Circuit.HALF_OPEN
    assert ledger.wait_s(100, time.monotonic() + 61.0) == 0
    lane.admission.close()


def test_what_each_result_says_of_the_rate():
    """A 429 counts nothing; what the provider let in counts as reported, else as estimated; the rest is not known."""
    request = Prompter(PromptOptions(), ["sentiment"]).render(escalation(0), event("a text"))
    use = TokenUse("used")

    def end(called: CallResult):
        return end_of(called, request, 500, use, 7.0)

    assert end(RateLimited(HEADERS)) == OverLimit(7.0, HEADERS)
    assert end(Answered("", None, "stop", 300, 20, None, HEADERS)) == Counted(320, HEADERS)
    assert end(Answered("", None, "stop", None, 20, None, HEADERS)) == Counted(500, HEADERS)
    for called in (ContentRefused("", HEADERS), Unusable("", HEADERS), BadRequest("", HEADERS)):
        assert end(called) == Counted(500, HEADERS)
    assert end(Failed("timeout", "")) == end(Misconfigured("key", "")) == Lost()

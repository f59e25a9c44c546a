"""A question and its endpoints: a failed call is tried at the next one at once, and what it cost adds up."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_app.escalate.ask import Asker
from stream_app.escalate.breaker import FAILURES_MAX, Circuit
from stream_app.escalate.cache import AnswerCache
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.line import Line, PricedClient
from stream_app.escalate.prices import Price
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.question import GotAnswer, NoAnswer, Question
from stream_app.escalate.results import Answered, Failed, Misconfigured, RateLimited
from stream_app.escalate.token_bucket import Limits
from stream_app.telemetry import Metrics
from tests.escalate.escalated import escalation, event
from tests.escalate.test_admission import Lane

RIGHT = Answered('{"sentiment": "positive"}', None, "stop", 100, 10, "req")
WRONG = Answered("nonsense", None, "stop", 50, 5, "req-0")
AWAY = Failed("unreachable", "nobody listens")
LATE_DRAW = 0.999
"""Every back-off is as long as it may be, at least half a second."""


class Scripted:
    """An endpoint that gives these results in turn, the last one for ever; None: it hangs."""

    def __init__(self, name: str, *results) -> None:
        self.name, self.model = f"{name}.example", f"{name}-model"
        self.results = list(results)
        self.asked: list = []
        self.timeouts_s: list[float] = []

    async def ask(self, request, timeout_s: float):
        self.asked.append(request)
        self.timeouts_s.append(timeout_s)
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if result is None:
            await asyncio.sleep(timeout_s)
            return Failed("timeout", "no answer", maybe_paid=True)
        return result


class Two:
    """A line of two endpoints, the second ten times as dear and without structured output."""

    def __init__(self, first: Scripted, second: Scripted, **gate) -> None:
        self.lane = Lane(**gate)
        self.gate = self.lane.gate
        spare = EndpointGate(CorrectedRate(Limits(1e6, 1e9), 2))
        for partition in (0, 1):
            spare.rate.gain(partition, time.monotonic())
        self.gate.endpoints = (*self.gate.endpoints, spare)
        priced = [PricedClient(first, Price(1, 1)), PricedClient(second, Price(10, 10))]
        clocks = time.monotonic, time.time
        self.line = Line(priced, self.lane.admission, 5.0, Metrics(), *clocks, lambda: LATE_DRAW)
        self.asker = Asker(self.line, AnswerCache())
        forms = PromptOptions(), PromptOptions(json_schema=False)
        self.prompters = [Prompter(options, ["sentiment", "toxicity"]) for options in forms]

    def requests(self, text: str):
        return [prompter.render(escalation(0), event(text)) for prompter in self.prompters]

    async def answer(self, text: str = "a text", within_s: float = 10.0, *, spare: bool = False):
        deadline_s = self.lane.admission.running_s + within_s
        return await Question(self.line, 0, self.requests(text), deadline_s, spare=spare).answer()

    async def ask(self, text: str, within_s: float = 10.0):
        return await self.asker.ask(0, self.requests(text), self.lane.admission.running_s + within_s)


async def test_a_call_that_opens_the_circuit_is_tried_at_the_next_endpoint_at_once():
    """A key that is refused, a quota that is spent: the event has its answer from the second without a back-off."""
    first, second = Scripted("first", Misconfigured("key", "HTTP 401")), Scripted("second", RIGHT)
    began_s = time.monotonic()
    found = await Two(first, second, on_outage="degrade").answer()
    assert isinstance(found, GotAnswer)
    assert found.usage.model == "second-model"
    assert time.monotonic() - began_s < 0.4
    assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_while_the_circuit_is_closed_the_first_endpoint_is_tried_again():
    """One failure is no reason to leave: the retry goes there, after its back-off."""
    first, second = Scripted("first", AWAY, RIGHT), Scripted("second", RIGHT)
    began_s = time.monotonic()
    found = await Two(first, second).answer()
    assert isinstance(found, GotAnswer)
    assert found.usage.model == "first-model"
    assert time.monotonic() - began_s > 0.4
    assert second.asked == []


async def test_failures_in_a_row_move_everyone_on_and_none_is_lost():
    """The fifth failure opens the circuit: it, those that wait and those in a back-off are answered by the second."""
    first, second = Scripted("first", AWAY), Scripted("second", RIGHT)
    two = Two(first, second, on_outage="degrade")
    found = await asyncio.gather(*(two.answer(f"text {number}") for number in range(20)))
    assert {one.usage.model for one in found} == {"second-model"}
    assert len(first.asked) < 20 + FAILURES_MAX
    assert len(second.asked) == 20


async def test_a_429_stays_with_its_endpoint():
    """Told to wait, an event waits; it does not go to the second, though that is free."""
    first, second = Scripted("first", RateLimited(), RIGHT), Scripted("second", RIGHT)
    found = await Two(first, second).answer()
    assert isinstance(found, GotAnswer)
    assert found.usage.model == "first-model"
    assert second.asked == []


async def test_what_was_paid_is_summed_over_endpoints_each_at_its_price():
    """An unusable answer of the first is paid too; the model named is the one that answered."""
    first = Scripted("first", WRONG, Misconfigured("insufficient_quota", "HTTP 429"))
    second = Scripted("second", RIGHT)
    found = await Two(first, second).answer()
    assert isinstance(found, GotAnswer)
    assert (found.usage.model, found.usage.request_id) == ("second-model", "req")
    assert found.usage.cost_usd == pytest.approx((55 * 1 + 110 * 10) / 1e6)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (150, 15)
    assert "could not be used" in second.asked[0].system


async def test_each_endpoint_is_asked_in_its_own_form_and_the_answer_is_kept_for_both():
    """The second gets its JSON in words. The same question later costs nothing, whoever would be asked then."""
    first, second = Scripted("first", Misconfigured("key", "HTTP 401"), RIGHT), Scripted("second", RIGHT)
    two = Two(first, second)
    answered = await two.ask("a text")
    assert first.asked[0].response_format["type"] == "json_schema"
    assert second.asked[0].response_format == {"type": "json_object"}
    assert first.asked[0].fingerprint != second.asked[0].fingerprint
    two.gate.endpoints[0].breaker.answered()
    again = await two.ask("a text")
    assert isinstance(answered, GotAnswer)
    assert isinstance(again, GotAnswer)
    assert again.answer == answered.answer
    assert (again.usage.model, again.usage.cached, again.usage.cost_usd) == ("second-model", True, 0)
    assert again.usage.prompt_version == two.prompters[1].version != two.prompters[0].version
    assert (len(first.asked), len(second.asked)) == (1, 1)
    await two.ask("another text")
    assert len(first.asked) == 2


async def test_a_probe_leaves_its_event_time_for_the_endpoint_that_is_well():
    """The first hangs for as long as it is let: its probe's event is answered by the second before the deadline."""
    first, second = Scripted("first", None), Scripted("second", RIGHT)
    two = Two(first, second)
    breaker = two.gate.endpoints[0].breaker
    breaker.failed(time.monotonic() - 60, probe=False, at_once=True)
    found = await two.answer(within_s=1.0)
    assert len(first.asked) == 1
    assert first.timeouts_s[0] <= 0.5
    assert isinstance(found, GotAnswer)
    assert found.usage.model == "second-model"
    assert breaker.circuit is Circuit.OPEN


async def test_with_every_endpoint_away_the_outage_rule_counts():
    """`degrade`: nobody waits for a cool-down; and what is said of the event is an outage."""
    first, second = (Scripted(name, Misconfigured("key", "HTTP 401")) for name in ("first", "second"))
    two = Two(first, second, on_outage="degrade")
    found = await two.answer()
    assert isinstance(found, NoAnswer)
    assert found.reason == "outage"
    assert (len(first.asked), len(second.asked)) == (1, 1)
    began_s = time.monotonic()
    assert (await two.answer("another text")).reason == "outage"
    assert time.monotonic() - began_s < 0.4
    assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_a_parked_event_does_not_back_off_in_its_slot():
    """It has another time, and comes back then: a slot that sleeps is one less for who comes now."""
    first, second = Scripted("first", AWAY, RIGHT), Scripted("second", RIGHT)
    found = await Two(first, second).answer(spare=True)
    assert isinstance(found, NoAnswer)
    assert found.usage is not None
    assert (len(first.asked), len(second.asked)) == (1, 0)


async def test_a_parked_event_is_tried_at_the_next_endpoint_all_the_same():
    """Where another one takes over, it sleeps for nobody."""
    first, second = Scripted("first", Misconfigured("key", "HTTP 401")), Scripted("second", RIGHT)
    found = await Two(first, second).answer(spare=True)
    assert isinstance(found, GotAnswer)
    assert found.usage.model == "second-model"

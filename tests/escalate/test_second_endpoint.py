"""Two stand-in LLMs and a worker's lane on real Kafka: the second answers while the first is away, and no longer."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.escalate.breaker import FAILURES_MAX
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.telemetry import Metrics
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_FLIGHT = 20
FIRST, SECOND = "gpt-4o-mini", "gpt-4o"
PER_MINUTE = {FIRST: 1_800, SECOND: 900}
WINDOW_S = 4.0
BURST_S = 2.0
"""What the providers allow: one second for the lane's burst, another one for calls that bunch on a busy machine."""
BACK_WITHIN_S = 60.0
CALM_LOOKS = 8
"""So many looks in a row, nobody calls: the budget is spent."""


def limit(stand_in: StandIn, model: str) -> None:
    """From now on it refuses what passes the limit that the settings say."""
    told = {"requests_per_minute": PER_MINUTE[model], "tokens_per_minute": 0, "burst_s": BURST_S}
    stand_in.admin("limits", told)


class Mortal(StandIn):
    """A stand-in in a process of its own that can go away: its process ends, or it answers 503 alone."""

    def __init__(self, folder: Path) -> None:
        self.server = LlmServer(folder / "llm.log", StandInOptions(latency_median_ms=20))
        self.log: list[dict[str, Any]] = []

    def start(self) -> None:
        run_apart(self.server.start())
        super().__init__(self.server.base_url)

    def leaves(self, how: str) -> None:
        if how == "503":
            self.fault("server_error", status=503)
            return
        self.log = self.calls()
        run_apart(self.server.process.stop())

    def returns(self, how: str) -> None:
        if how == "503":
            self.well()
            return
        self.start()
        limit(self, FIRST)

    def all_calls(self) -> list[dict[str, Any]]:
        """Also those of before it ended."""
        return self.log + self.calls()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Mortal]:
    """The first endpoint, this test's own."""
    made = Mortal(tmp_path)
    made.start()
    yield made
    run_apart(made.server.process.stop())


def endpoints(first: StandIn, second: StandIn, **both: Any) -> list[dict[str, Any]]:
    """The settings of both: another model, other limits, another form of the request."""
    return [
        {"base_url": first.base_url, "model": FIRST, "requests_per_minute": PER_MINUTE[FIRST], **both},
        {
            "base_url": second.base_url,
            "model": SECOND,
            "requests_per_minute": PER_MINUTE[SECOND],
            "json_schema": False,
            **both,
        },
    ]


class Stream:
    """Escalations of this test, in phases."""

    def __init__(self, stack: Any, settings: Any) -> None:
        self.stack, self.settings, self.produced = stack, settings, 0
        self.prefix = settings.kafka.input_topic

    async def send(self, count: int) -> range:
        """So many more, and waits until they are decided; their numbers."""
        sent, topic = range(self.produced, self.produced + count), f"{self.prefix}-escalations"
        texts, servers = escalated.texts(count, self.produced), self.stack.bootstrap_servers
        await asyncio.to_thread(escalated.produce, servers, topic, texts, first_offset=self.produced)
        self.produced += count
        await caught_up(self.stack, self.settings)
        return sent

    def decisions(self) -> list[dict[str, Any]]:
        """All that are published, each event with one final and none of them degraded."""
        found = escalated.finals(self.stack.bootstrap_servers, f"{self.prefix}-decisions")
        assert escalated.finals_per_source(found) == Counter(range(self.produced))
        assert not any(decision["degraded"] for decision in found)
        return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["503", "gone"])
async def test_the_second_answers_while_the_first_is_away(stack, first, llm, prefix, how):  # noqa: F811
    """Before and after, the first alone. Every event is answered, none waits for an outage, each limit is kept.

    With `on_outage = degrade`, which would show as degraded decisions if it counted while one endpoint is well.
    """
    second = llm
    metrics = Metrics()
    settings = escalated.settings(
        stack.bootstrap_servers,
        first.base_url,
        prefix,
        max_in_flight=IN_FLIGHT,
        on_outage="degrade",
        timeout_s=3.0,
        endpoints=endpoints(first, second, tokens_per_minute=1e9),
    )
    stream = Stream(stack, settings)
    limit(first, FIRST)
    limit(second, SECOND)
    async with working(settings, metrics):
        before = await stream.send(90)
        assert second.calls() == []
        await asyncio.to_thread(first.leaves, how)
        during = await stream.send(120)
        answered = sum(call["status"] == 200 for call in second.calls())
        await asyncio.to_thread(first.returns, how)
        well = len(first.calls())
        async with asyncio.timeout(BACK_WITHIN_S):  # the next probe finds it; a probe needs an event
            while not any(call["status"] == 200 for call in first.calls(well)):
                await stream.send(3)
        between = range(during.stop, stream.produced)
        after = await stream.send(90)
    models = {decision["source"]["offset"]: decision["usage"]["model"] for decision in stream.decisions()}
    assert Counter(models[number] for number in before) == {FIRST: len(before)}
    assert Counter(models[number] for number in during) == {SECOND: len(during)} == {SECOND: answered}
    assert Counter(models[number] for number in after) == {FIRST: len(after)}
    assert {models[number] for number in between} <= {FIRST, SECOND}
    _limits_kept({FIRST: first.all_calls(), SECOND: second.calls()})
    away = Counter(call["status"] for call in first.all_calls())
    assert set(away) <= {200, 503}
    assert away[503] <= IN_FLIGHT + FAILURES_MAX + 8, "after the circuit opened, only probes"


def _limits_kept(calls: dict[str, list[dict[str, Any]]]) -> None:
    """By each one's own log: nothing was refused, and no window holds more than the rate, the burst and the calls."""
    for model, of_model in calls.items():
        assert not any(call["status"] == 429 for call in of_model)
        times_s, per_s = sorted(call["at_s"] for call in of_model), PER_MINUTE[model] / 60
        for at, began_s in enumerate(times_s):
            inside = sum(1 for other in times_s[at:] if other < began_s + WINDOW_S)
            assert inside <= per_s * (WINDOW_S + BURST_S) + escalated.PARTITIONS, model


@pytest.mark.timeout(240)
@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_one_budget_holds_over_both_endpoints(stack, first, llm, prefix):  # noqa: F811
    """By the providers' own accounts together; it is spent first at one and then at the other, which costs twice.

    And what the decisions say that they cost is what the two providers bill.
    """
    usd, metrics, second = 60.0, Metrics(), llm
    both = endpoints(first, second, requests_per_minute=1e6, tokens_per_minute=1e9)
    for stand_in, endpoint, price in ((first, both[0], 1_000), (second, both[1], 2_000)):
        prices = {"usd_per_million_input": price, "usd_per_million_output": price}
        endpoint.update(prices)
        stand_in.admin("prices", prices)
    settings = escalated.settings(
        stack.bootstrap_servers, first.base_url, prefix, max_in_flight=5, endpoints=both, usd_per_hour=usd
    )
    first.fault("server_error", match="late")
    texts = [*escalated.texts(50), *(f"{text}, and late" for text in escalated.texts(200, 50))]
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", texts, partitions=1)
    async with working(settings, metrics), asyncio.timeout(120):
        calm = 0
        while calm < CALM_LOOKS:
            waits = metrics.waiting_for("escalate") == "budget" and first.in_flight() == second.in_flight() == 0
            calm = calm + 1 if waits else 0
            await asyncio.sleep(0.2)
    billed = {stand_in.base_url: stand_in.admin("account", method="GET")["spent_usd"] for stand_in in (first, second)}
    print(billed)
    assert all(spent_usd > 10 for spent_usd in billed.values())
    assert usd - 8 < sum(billed.values()) <= usd
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    told: Counter[str] = Counter()
    for decision in decisions:
        told[decision["usage"]["model"]] += decision["usage"]["cost_usd"]
    assert told[FIRST] == pytest.approx(billed[first.base_url])
    assert told[SECOND] == pytest.approx(billed[second.base_url])

"""Two stand-ins that answer as recorded and disagree, and the lane on real Kafka: both votes, one final each."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.routing.votes import Opinions
from stream_app.telemetry import Metrics
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.escalate.test_hand_over import process, until
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.escalate.test_parked import at_rest
from tests.escalate.votes import FIRST, SECOND, Row, ask_of, escalation_of, recorded, rows, rule
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = rows(150, seed=3)
PRICE = {FIRST: 3, SECOND: 11}
"""Dollars a million tokens, in and out."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LlmServer]]:
    """A process for each LLM, which answers by the file of recorded answers."""
    folder = tmp_path_factory.mktemp("votes")
    replay = recorded(folder / "answers.jsonl", ROWS)
    made = {
        llm: LlmServer(
            folder / f"{llm}.log",
            StandInOptions(
                latency_median_ms=20,
                replay=replay,
                replay_names=(llm,),
                usd_per_million_input=PRICE[llm],
                usd_per_million_output=PRICE[llm],
            ),
        )
        for llm in (FIRST, SECOND)
    }
    for server in made.values():
        run_apart(server.start())
    yield made
    for server in made.values():
        run_apart(server.process.stop())


@pytest.fixture
def llms(servers: dict[str, LlmServer]) -> dict[str, StandIn]:
    """Both as they were at the start."""
    found = {llm: StandIn(server.base_url) for llm, server in servers.items()}
    for stand_in in found.values():
        stand_in.admin("reset")
    return found


def settings_of(stack: Any, llms: dict[str, StandIn], prefix: str, *, second_per_minute=1e6, **llm: Any) -> Any:  # noqa: F811
    """The first, and the second as the second opinion: other limits, prices and form."""
    prices = {name: {"usd_per_million_input": usd, "usd_per_million_output": usd} for name, usd in PRICE.items()}
    limits = {"requests_per_minute": 1e6, "tokens_per_minute": 1e9}
    first = {"base_url": llms[FIRST].base_url, "model": FIRST, **limits, **prices[FIRST]}
    second = {"base_url": llms[SECOND].base_url, "model": SECOND, **limits, **prices[SECOND]}
    second |= {"requests_per_minute": second_per_minute, "json_schema": False, "second_opinion": True}
    return escalated.settings(stack.bootstrap_servers, llms[FIRST].base_url, prefix, endpoints=[second, first], **llm)


async def send(stack: Any, topic: str, sample: tuple[Row, ...], **how: Any) -> None:
    """Escalates the rows, each with the rule in its header."""
    texts, first = [row.text for row in sample], sample[0].number
    await asyncio.to_thread(
        escalated.produce,
        stack.bootstrap_servers,
        topic,
        texts,
        first_offset=first,
        made=lambda number, partition: escalation_of(sample[number - first], partition),
        **how,
    )


def offline(row: Row) -> tuple[dict[str, str | None], str | None]:
    """Whom the rule asks about a row with recorded answers, and the label by their votes; None: no LLM has one."""
    probabilities = ask_of(row).small.probabilities
    cast = {FIRST: row.said[FIRST]}
    if Opinions(rule(), probabilities, len(row.text), cast).asks(SECOND):
        cast[SECOND] = row.said[SECOND]
    label = Opinions(rule(), probabilities, len(row.text), cast).label()
    return cast, label if any(cast.values()) else None


def check(decision: dict[str, Any], row: Row, *, kind: str = "final") -> None:
    """The decision is the one that the rule makes of the recorded answers."""
    cast, label = offline(row)
    answer, small = decision["answers"]["sentiment"], ask_of(row).small
    assert decision["kind"] == kind
    if label is None:
        assert (decision["degraded_reason"], answer["label"]) == ("refused", small.label)
        return
    assert (decision["degraded"], decision["decided_by"], answer["decided_by"]) == (False, "llm", "llm")
    assert answer["votes"] == {small.model: small.label, **cast}
    assert answer["label"] == label
    assert answer["model"] == decision["usage"]["model"] == "+".join(cast)
    assert answer["probabilities"] == small.probabilities
    assert (answer["confidence"], answer["certified"]) == (None, None)


def decisions_of(stack: Any, settings: Any) -> list[dict[str, Any]]:
    """All that are published."""
    return escalated.finals(stack.bootstrap_servers, settings.kafka.names.decisions)


def second_opinions(metrics: Metrics) -> Counter[str]:
    """What became of them, by the metrics."""
    family = next(each for each in metrics.registry.collect() if each.name == "shunt_second_opinions")
    return Counter(
        {each.labels["result"]: int(each.value) for each in family.samples if each.name.endswith("_total")}
    )


async def test_live_decisions_are_those_of_the_rule_offline(stack, llms, prefix):  # noqa: F811
    """For the same recorded answers, refusals among them: who is asked, both votes, the label, and the bill.

    The second's own limit is kept as its provider counts it.
    """
    settings, metrics = settings_of(stack, llms, prefix, second_per_minute=900), Metrics()
    llms[SECOND].admin("limits", {"requests_per_minute": 900, "tokens_per_minute": 0, "burst_s": 2})
    await send(stack, settings.kafka.names.escalations, ROWS)
    async with working(settings, metrics):
        await caught_up(stack, settings)
    decisions = decisions_of(stack, settings)
    assert escalated.finals_per_source(decisions) == Counter(range(len(ROWS)))
    for decision in decisions:
        check(decision, ROWS[decision["source"]["offset"]])
    expected = [offline(row) for row in ROWS]
    asked = sum(SECOND in cast for cast, _ in expected)
    alone = [
        Opinions(rule(), ask_of(row).small.probabilities, len(row.text), {FIRST: row.said[FIRST]}) for row in ROWS
    ]
    changed = sum(
        SECOND in cast and cast[SECOND] is not None and label != one.label()
        for (cast, label), one in zip(expected, alone, strict=True)
    )
    told = second_opinions(metrics)
    assert told["changed"] == changed > 5
    assert told.total() == asked == told["changed"] + told["same"] + told["refused"]
    assert told["refused"] == sum(SECOND in cast and cast[SECOND] is None for cast, _ in expected)
    assert 20 < asked < len(ROWS) - 20
    calls = {llm: llms[llm].calls() for llm in llms}
    assert (len(calls[FIRST]), len(calls[SECOND])) == (len(ROWS), asked)
    assert {call["status"] for each in calls.values() for call in each} == {200}
    told_usd = sum(decision["usage"]["cost_usd"] for decision in decisions)
    billed_usd = sum(stand_in.admin("account", method="GET")["spent_usd"] for stand_in in llms.values())
    assert told_usd == pytest.approx(billed_usd)


@pytest.mark.parametrize("how", ["server_error", "hang"])
async def test_without_the_second_every_event_has_the_opinion_of_the_first(stack, llms, prefix, how):  # noqa: F811
    """None is degraded for it or waits for its outage, with `on_outage = wait` too; once it is back, it is asked."""
    settings, metrics = settings_of(stack, llms, prefix, deadline_s=3.0, timeout_s=1.0), Metrics()
    llms[SECOND].fault(how)
    async with working(settings, metrics):
        await send(stack, settings.kafka.names.escalations, ROWS[:60])
        await caught_up(stack, settings, 60.0)
        assert metrics.waiting_for("escalate") is None
        during = decisions_of(stack, settings)
        llms[SECOND].well()
        before = len(llms[SECOND].calls())
        number = 60
        async with asyncio.timeout(60):
            while len(llms[SECOND].calls()) < before + 5:  # the next probe finds it; a probe needs an event
                await send(stack, settings.kafka.names.escalations, ROWS[number : number + 6], partitions=1)
                await caught_up(stack, settings)
                await asyncio.sleep(0.5)
                number += 6
    assert escalated.finals_per_source(during) == Counter(range(60))
    for decision in during:
        row = ROWS[decision["source"]["offset"]]
        cast = {FIRST: row.said[FIRST]}
        if row.said[FIRST] is None:
            assert decision["degraded_reason"] == "refused"
            continue
        label = Opinions(rule(), ask_of(row).small.probabilities, len(row.text), cast).label()
        assert (decision["degraded"], decision["answers"]["sentiment"]["label"]) == (False, label)
        assert decision["usage"]["model"] == FIRST
    assert second_opinions(metrics)["changed"] + second_opinions(metrics)["same"] > 0


async def test_killed_between_the_first_and_the_second_each_event_has_one_final(stack, llms, prefix, tmp_path):  # noqa: F811
    """Every first opinion is there, no second one: nothing of it is published, and the next worker asks both."""
    settings = settings_of(stack, llms, prefix)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"session_timeout_ms": 6_000})})
    llms[SECOND].latency(60_000, 0)
    sample = ROWS[:60]
    asked = sum(SECOND in offline(row)[0] for row in sample)
    await send(stack, settings.kafka.names.escalations, sample)
    async with process(settings, tmp_path / "worker.log") as worker:
        await until(lambda: llms[SECOND].in_flight() == asked)
        await until(lambda: len(decisions_of(stack, settings)) == len(sample) - asked)
        worker.kill()
        worker.wait()
    assert len(llms[FIRST].calls()) == len(sample)
    llms[SECOND].latency(20, 0.5)
    async with working(settings):
        await caught_up(stack, settings)
    decisions = decisions_of(stack, settings)
    assert escalated.finals_per_source(decisions) == Counter(range(len(sample)))
    for decision in decisions:
        check(decision, sample[decision["source"]["offset"]])
    calls = Counter(call["event_id"] for call in llms[FIRST].calls())
    for row in sample:
        assert calls[f"r-{row.number}"] == (2 if SECOND in offline(row)[0] else 1)


async def test_a_parked_event_is_corrected_by_both_votes(stack, llms, prefix):  # noqa: F811
    """What was decided without the LLM is asked after all, of both where that is worth it."""
    settings = settings_of(stack, llms, prefix)
    sample = ROWS[:30]
    await send(stack, settings.kafka.names.parked, sample, parked=True)
    async with working(settings):
        await at_rest(stack, settings)
    corrections = decisions_of(stack, settings)
    answered = {row.number for row in sample if offline(row)[1] is not None}
    assert escalated.corrections_per_source(corrections) == Counter(answered)
    assert sum("+" in decision["usage"]["model"] for decision in corrections) > 3
    for decision in corrections:
        check(decision, sample[decision["source"]["offset"]], kind="correction")


async def test_questions_that_are_the_same_share_both_calls(stack, llms, prefix):  # noqa: F811
    """Thirty events with one text: each LLM is asked once, and one decision names what both cost."""
    settings = settings_of(stack, llms, prefix)
    row = next(row for row in ROWS if len(offline(row)[0]) == 2 and None not in offline(row)[0].values())
    await asyncio.to_thread(
        escalated.produce,
        stack.bootstrap_servers,
        settings.kafka.names.escalations,
        [row.text] * 30,
        made=lambda number, partition: escalation_of(
            Row(number, row.text, row.positive, row.truth, row.said), partition
        ),
    )
    async with working(settings):
        await caught_up(stack, settings)
    decisions = decisions_of(stack, settings)
    assert escalated.finals_per_source(decisions) == Counter(range(30))
    for decision in decisions:
        check(decision, row)
    assert [len(llms[llm].calls()) for llm in (FIRST, SECOND)] == [1, 1]
    assert sum(not decision["usage"]["cached"] for decision in decisions) == 1

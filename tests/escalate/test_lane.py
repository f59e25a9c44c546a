"""The slow lane on real Kafka against the stand-in LLM over HTTP: one final for every event, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream_app.escalate.start import escalate_lane, group_of
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.kafka.reading import committed_and_end, produce, read_all


@pytest.fixture
def prefix(request, stack, make_topic, unique_name) -> str:
    """A pipeline's topics, this test's own; their common prefix is the input topic's name.

    A parameter is the number of partitions of each.
    """
    name = unique_name("reviews")
    outputs = ("-decisions", "-escalations", "-dlq", "-parked", "-review", "-feedback", "-verdicts", "-audits")
    names = {f"{name}{suffix}" for suffix in ("", *outputs)}
    for topic in names:
        make_topic(name=topic, partitions=getattr(request, "param", escalated.PARTITIONS))
    names.add(make_topic(name=f"{name}-audit-results", partitions=1))
    names.add(make_topic(name=f"{name}-control", partitions=1, cleanup_policy="compact"))
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    while not names <= set(admin.list_topics(timeout=10).topics):  # made, and not yet everywhere known
        time.sleep(0.05)
    return name


@asynccontextmanager
async def working(settings, metrics=None):
    """The lane at work; drained at the end of the block."""
    metrics = metrics or Metrics()
    async with escalate_lane(settings, metrics) as lane:
        stop = asyncio.Event()
        task = asyncio.create_task(lane.run(stop))
        try:
            yield lane, task
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=40)
            assert task.done()
            task.result()


async def caught_up(stack, settings, within_s: float = 120.0) -> None:
    """Waits until the lane's group has committed the very end of its topic."""
    topic, group = settings.kafka.names.escalations, group_of(settings)
    async with asyncio.timeout(within_s):
        while True:
            try:
                found = await asyncio.to_thread(committed_and_end, stack.bootstrap_servers, topic, group)
            except KafkaException:  # the group's coordinator is just being found
                found = {}
            if found and all(committed == end for committed, end in found.values() if end):
                return
            await asyncio.sleep(0.1)


async def test_every_event_has_one_final_and_calls_run_side_by_side(stack, llm, prefix):
    """600 escalations end in 600 finals of the LLM; with 200 in flight they take far less than one after another."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=200)
    llm.admin("latency", {"median_ms": 200, "sigma": 0.3})
    texts = escalated.texts(600)
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", texts)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with working(settings):
        await caught_up(stack, settings)
    assert loop.time() - began_s < 600 * 0.2 / 4
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(600))
    assert len(llm.calls()) == 600
    for decision in decisions:
        answer = decision["answers"]["sentiment"]
        assert decision["decided_by"] == answer["decided_by"] == "llm"
        assert answer["confidence"] is None
        assert answer["certified"] is None
        assert answer["votes"] == {"sentiment_fast:1": "positive", "gpt-4o-mini": answer["label"]}
        assert decision["answers"]["toxicity"]["decided_by"] == "small"
        assert decision["certified"] is True
        assert decision["usage"]["cost_usd"] > 0
        assert decision["usage"]["request_id"]


async def run_through(stack, settings, texts, *, metrics=None, partitions=escalated.PARTITIONS) -> list[dict]:
    """Escalates `texts`, lets the lane work them off; the decisions."""
    prefix = settings.kafka.input_topic
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, texts, partitions=partitions)
    async with working(settings, metrics):
        await caught_up(stack, settings)
    return escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")


async def test_every_fault_of_the_llm_still_ends_in_one_final(stack, llm, prefix):
    """429s, 5xx, hangs, lost connections, refusals and unusable answers: each event has one final, and says why."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, timeout_s=3.0, deadline_s=60)
    kinds = ("rate_limited", "rate_limited_silent", "server_error", "hang", "close", "close_midway")
    bad = ("refusal", "content_filter", "content_refused", "malformed_json", "off_schema_label", "empty", "truncated")
    for kind in kinds:
        llm.fault(kind, count=6, match=f"[{kind}]", retry_after_s=0.2)
    for kind in bad:
        llm.fault(kind, match=f"[{kind}]")
    texts = [f"[{kind}] {text}" for kind in (*kinds, *bad) for text in escalated.texts(6)]
    decisions = await run_through(stack, settings, texts)
    assert escalated.finals_per_source(decisions) == Counter(range(len(texts)))
    reasons = {decision["source"]["offset"]: decision["degraded_reason"] for decision in decisions}
    refused, invalid = (
        ("refusal", "content_filter", "content_refused"),
        ("malformed_json", "off_schema_label", "empty", "truncated"),
    )
    for offset, text in enumerate(texts):
        kind = text[1 : text.index("]")]
        expected = "refused" if kind in refused else "invalid_answer" if kind in invalid else None
        assert reasons[offset] == expected, text
    copies = read_all(stack.bootstrap_servers, f"{prefix}-review")
    assert len(copies) == 6 * len(bad)
    assert {dict(copy.headers())["shunt-review-reason"] for copy in copies} == {b"refused", b"invalid_answer"}
    asked = Counter(call["event_id"] for call in llm.calls())
    for offset, text in enumerate(texts):
        if f"[{'refusal'}]" in text:
            assert asked[f"r-{offset}"] == 1  # a refusal is not retried
        if "[malformed_json]" in text:
            assert asked[f"r-{offset}"] == 2  # an unusable answer is asked for again once


async def test_the_limits_of_the_endpoint_are_kept(stack, llm, prefix):
    """At a limit that the events exceed, the server refuses nothing and no 60-second window could overfill."""
    endpoint = {"requests_per_minute": 1_200, "tokens_per_minute": 1e9}
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, endpoint=endpoint)
    llm.admin("limits", {"requests_per_minute": 1_200, "tokens_per_minute": 0, "burst_s": 1})
    decisions = await run_through(stack, settings, escalated.texts(120))
    assert escalated.finals_per_source(decisions) == Counter(range(120))
    calls = llm.calls()
    assert Counter(call["status"] for call in calls) == {200: 120}
    times = sorted(call["at_s"] for call in calls)
    for first, at_s in enumerate(times):
        inside = sum(1 for other in times[first:] if other < at_s + 2.0)
        assert inside <= 20 * 2.0 + 20 + 3  # rate * T + burst + one call a partition


async def test_a_server_that_limits_harder_than_we_were_told_is_obeyed(stack, llm, prefix):
    """Settings too high: 429s come, Retry-After is obeyed by all, and every event is answered in the end."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    llm.admin("limits", {"requests_per_minute": 1_200, "tokens_per_minute": 0, "burst_s": 1})
    decisions = await run_through(stack, settings, escalated.texts(100))
    assert escalated.finals_per_source(decisions) == Counter(range(100))
    assert not any(decision["degraded"] for decision in decisions)
    statuses = Counter(call["status"] for call in llm.calls())
    assert statuses[429] > 0
    assert statuses[200] == 100


@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_at_its_deadline_an_event_is_degraded_and_certified_false(stack, llm, prefix):
    """A model that hangs costs each event its deadline and no more; the small answer stands and says so.

    One partition, so that all are asked at once: who comes after the first deadlines meets an open circuit.
    """
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, deadline_s=2.0, timeout_s=30.0)
    llm.fault("hang", match="hangs")
    decisions = await run_through(stack, settings, [f"{text} hangs" for text in escalated.texts(9)], partitions=1)
    assert escalated.finals_per_source(decisions) == Counter(range(9))
    for decision in decisions:
        answer = decision["answers"]["sentiment"]
        assert (decision["degraded"], decision["degraded_reason"]) == (True, "deadline")
        assert (decision["decided_by"], answer["decided_by"], answer["label"]) == ("small", "small", "positive")
        assert decision["certified"] is False
        assert answer["certified"] is False
        assert decision["answers"]["toxicity"]["certified"] is True


async def test_an_outage_is_waited_out_or_ends_in_dead_letters_as_set(stack, llm, prefix):
    """`on_outage = wait` answers everything when the LLM is back, deadlines standing still meanwhile."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, deadline_s=4.0, timeout_s=1.0)
    llm.fault("server_error", status=503)
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(60))
    metrics = Metrics()
    async with working(settings, metrics):
        await asyncio.sleep(7)
        assert metrics.waiting_for("escalate") == "the LLM"
        assert not escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
        llm.admin("faults", method="DELETE")
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(60))
    assert not any(decision["degraded"] for decision in decisions)


async def test_giving_up_can_be_a_dead_letter_with_the_original_bytes(stack, llm, prefix):
    """`on_outage = dlq`: key, value and headers as they came in, and the cause beside them."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, on_outage="dlq", on_deadline="dlq")
    llm.fault("unauthorized")
    decisions = await run_through(stack, settings, escalated.texts(30))
    letters = read_all(stack.bootstrap_servers, f"{prefix}-dlq")
    dead = Counter(int(dict(letter.headers())["__connect.errors.offset"]) for letter in letters)
    assert dead + escalated.finals_per_source(decisions) == Counter(range(30))
    for letter in letters:
        headers = letter.headers()
        assert headers[0] == ("shop", b"one")
        assert "shunt-escalation" not in dict(headers)
        assert dict(headers)["shunt-cause"] in {b"llm_outage", b"llm_deadline"}
        assert letter.value().startswith(b'{"id": "r-')


@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_the_budget_of_the_hour_holds_and_degrades_as_set(stack, llm, prefix):
    """The bill stays below the budget, and it is spent: the first are asked while nothing is known of the demand.

    One partition, whose share is the whole budget: of three, the first that opens would degrade what passes its own.
    """
    endpoint = {"usd_per_million_input": 1_000, "usd_per_million_output": 1_000}
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, endpoint=endpoint, usd_per_hour=60.0, on_budget="degrade"
    )
    decisions = await run_through(stack, settings, escalated.texts(150), partitions=1)
    assert escalated.finals_per_source(decisions) == Counter(range(150))
    reasons = Counter(decision["degraded_reason"] for decision in decisions)
    assert set(reasons) == {None, "budget"}
    assert reasons[None] >= 25
    billed = sum(call["input_tokens"] + call["output_tokens"] for call in llm.calls()) / 1_000
    told = sum(decision["usage"]["cost_usd"] for decision in decisions if decision["usage"])
    assert told == pytest.approx(billed)
    assert billed <= 60.0


async def test_the_same_question_is_asked_once(stack, llm, prefix):
    """Identical texts in one partition share one call; each has its own final, marked as cached."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    decisions = await run_through(stack, settings, ["quite nice, really"] * 90)
    assert escalated.finals_per_source(decisions) == Counter(range(90))
    assert len(llm.calls()) == 1
    assert Counter(decision["usage"]["cached"] for decision in decisions) == {True: 89, False: 1}
    assert sum(decision["usage"]["cost_usd"] > 0 for decision in decisions) == 1


async def test_a_record_that_is_no_escalation_is_a_dead_letter(stack, llm, prefix):
    """Foreign bytes on the escalation topic stop nothing."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    values = [b"\xff\x00", b"{}", None, b'{"text": "no header"}']
    await asyncio.to_thread(produce, stack.bootstrap_servers, f"{prefix}-escalations", values, partitions=3)
    decisions = await run_through(stack, settings, escalated.texts(6))
    assert escalated.finals_per_source(decisions) == Counter(range(6))
    letters = read_all(stack.bootstrap_servers, f"{prefix}-dlq")
    assert sorted(letter.value() or b"" for letter in letters) == sorted(value or b"" for value in values)
    assert {dict(letter.headers())["shunt-cause"] for letter in letters} == {b"bad_escalation"}


async def test_a_record_overdue_by_its_own_timestamp_is_degraded_without_a_call(stack, llm, prefix):
    """With `deadline_from = record` what lay there too long costs nothing; with `fetch` it has its full time.

    What is parked of it is given up at once here, else it would be asked now that nobody waits.
    """
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, deadline_from="record", deadline_s=0.5, parked_max_age_s=0.001
    )
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(12))
    await asyncio.sleep(0.6)
    async with working(settings):
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(12))
    assert {decision["degraded_reason"] for decision in decisions} == {"deadline"}
    assert llm.calls() == []

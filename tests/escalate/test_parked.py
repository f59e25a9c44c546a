"""Parked events on real Kafka: asked after all, once, when nobody else wants the LLM."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import datetime

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from stream_app.escalate.start import group_of
from stream_app.settings import Events
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_hand_over import until
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.kafka.reading import committed_and_end, produce, read_all


async def at_rest(stack, settings, within_s: float = 60.0) -> None:
    """Waits until the lane has committed the very end of the parked topic."""
    topic, group = settings.kafka.names.parked, group_of(settings)

    def done() -> bool:
        found = committed_and_end(stack.bootstrap_servers, topic, group)
        return any(end for _, end in found.values()) and all(each == end for each, end in found.values() if end)

    await until(done, within_s)


def decisions_of(stack, settings) -> list[dict]:
    return escalated.finals(stack.bootstrap_servers, settings.kafka.names.decisions)


def given_up(metrics: Metrics) -> dict[str, float]:
    """How many parked events keep their final, by cause."""
    family = next(each for each in metrics.registry.collect() if each.name == "shunt_parked_given_up")
    return {each.labels["cause"]: each.value for each in family.samples if each.name.endswith("_total")}


def at_s(stamp: str) -> float:
    """A decision's time in seconds."""
    return datetime.fromisoformat(stamp).timestamp()


async def test_a_final_without_the_llm_is_corrected_once_when_the_llm_is_back(stack, llm, prefix):  # noqa: F811
    """`on_outage = degrade`: each event has its degraded final, then one correction of it, on the same partition."""
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, on_outage="degrade", deadline_s=10.0, timeout_s=2.0
    )
    llm.fault("server_error", status=503)
    topic, metrics = settings.kafka.names.escalations, Metrics()
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(60))
    async with working(settings, metrics):
        await caught_up(stack, settings)
        before = await asyncio.to_thread(decisions_of, stack, settings)
        assert not escalated.corrections_per_source(before)
        llm.well()
        await at_rest(stack, settings)
    messages = read_all(stack.bootstrap_servers, settings.kafka.names.decisions)
    finals: dict[int, tuple] = {}
    corrected = Counter()
    for message in messages:
        decision = json.loads(message.value())
        offset = decision["source"]["offset"]
        if decision["kind"] == "final":
            assert (decision["degraded"], decision["decided_by"]) == (True, "small")
            assert decision["degraded_reason"] in {"outage", "deadline"}
            assert offset not in finals
            finals[offset] = (message.partition(), message.offset(), message.key(), decision["revision"])
            continue
        corrected[offset] += 1
        partition, stands, key, revision = finals[offset]
        assert (message.partition(), message.key()) == (partition, key)
        assert message.offset() > stands
        assert (decision["kind"], decision["replaces"]) == ("correction", revision)
        assert decision["revision"] == revision + 1
        assert (decision["degraded"], decision["decided_by"]) == (False, "llm")
        assert decision["usage"]["cost_usd"] > 0
    assert set(finals) == set(range(60))
    assert corrected == Counter(range(60))
    assert given_up(metrics) == {}


@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_parked_events_do_not_delay_who_comes_now(stack, llm, prefix):  # noqa: F811
    """A backlog that takes the whole rate for a minute: events that come meanwhile are answered within moments."""
    endpoint = {"requests_per_minute": 300, "tokens_per_minute": 1e9}
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, endpoint=endpoint)
    names = settings.kafka.names
    await asyncio.to_thread(
        escalated.produce, stack.bootstrap_servers, names.parked, escalated.texts(300), partitions=1, parked=True
    )
    async with working(settings):
        await until(lambda: len(llm.calls()) >= 5)
        for number in range(1_000, 1_012):
            await asyncio.to_thread(
                escalated.produce,
                stack.bootstrap_servers,
                names.escalations,
                escalated.texts(1, number),
                first_offset=number,
                partitions=1,
            )
            await asyncio.sleep(1.0)
        await caught_up(stack, settings)
    decisions = decisions_of(stack, settings)
    took_s = [
        (at_s(one["decided_at"]) - at_s(one["source"]["timestamp"])) for one in decisions if one["kind"] == "final"
    ]
    corrected = escalated.corrections_per_source(decisions)
    print(f"{len(corrected)} corrected; finals took {min(took_s):.2f} to {max(took_s):.2f} s")
    assert len(took_s) == 12
    assert max(took_s) < 2.5
    assert len(corrected) >= 20
    assert set(corrected.values()) == {1}


async def test_an_event_that_was_parked_too_long_keeps_its_final(stack, llm, prefix):  # noqa: F811
    """During an outage that lasts: given up, counted, and out of the topic, without a call and without an output."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, parked_max_age_s=3.0)
    llm.fault("unauthorized")  # opens the circuit at once
    names, metrics = settings.kafka.names, Metrics()
    for topic, parked in ((names.escalations, False), (names.parked, True)):
        await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(30), parked=parked)
    async with working(settings, metrics):
        await at_rest(stack, settings)
        assert metrics.waiting_for("escalate") == "the LLM"
    assert given_up(metrics) == {"expired": 30.0}
    assert not decisions_of(stack, settings)
    assert not read_all(stack.bootstrap_servers, names.dlq)


@pytest.mark.parametrize("kind", ["refusal", "malformed_json"])
async def test_what_the_llm_will_not_answer_keeps_its_final(stack, llm, prefix, kind):  # noqa: F811
    """A refusal is asked once, an unusable answer twice, as always; nothing is published and nobody reviews it."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    llm.fault(kind)
    names, metrics = settings.kafka.names, Metrics()
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.parked, escalated.texts(6), parked=True)
    async with working(settings, metrics):
        await at_rest(stack, settings)
    assert not decisions_of(stack, settings)
    assert not read_all(stack.bootstrap_servers, names.review)
    assert given_up(metrics) == {"refused" if kind == "refusal" else "invalid_answer": 6.0}
    asked = Counter(call["event_id"] for call in llm.calls())
    assert set(asked.values()) == {1 if kind == "refusal" else 2}


async def test_a_record_that_is_not_parked_is_a_dead_letter(stack, llm, prefix):  # noqa: F811
    """Somebody else's record on the parked topic holds nothing up."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    names = settings.kafka.names
    await asyncio.to_thread(produce, stack.bootstrap_servers, names.parked, [b"what?", b"{}"])
    async with working(settings):
        await at_rest(stack, settings)
    letters = read_all(stack.bootstrap_servers, names.dlq)
    assert [dict(letter.headers())["shunt-cause"] for letter in letters] == [b"bad_parked"] * 2
    assert letters[0].value() == b"what?"


async def test_a_parked_event_that_the_settings_no_longer_read_keeps_its_final(stack, llm, prefix):  # noqa: F811
    """The text stands elsewhere since `[events]` changed: counted, without a dead letter beside the final."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"events": Events(text_fields=("body",))})
    names, metrics = settings.kafka.names, Metrics()
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.parked, escalated.texts(6), parked=True)
    async with working(settings, metrics):
        await at_rest(stack, settings)
    assert given_up(metrics) == {"unreadable": 6.0}
    assert not decisions_of(stack, settings)
    assert not read_all(stack.bootstrap_servers, names.dlq)
    assert not llm.calls()


@pytest.mark.parametrize("known", [True, False], ids=["a-group-that-works-already", "a-group-that-begins"])
async def test_a_group_begins_with_both_topics_at_once(stack, llm, prefix, known):  # noqa: F811
    """`start = latest`: a group that begins skips what was parked before it; one that works on skips nothing.

    The latter is a pipeline whose workers did not know of parked events before.
    """
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"start": "latest"})})
    names = settings.kafka.names
    if known:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=stack.bootstrap_servers, group_id=group_of(settings), enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = [TopicPartition(names.escalations, number) for number in range(escalated.PARTITIONS)]
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()
    parked = {"parked": True, "partitions": escalated.PARTITIONS}
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.parked, escalated.texts(9), **parked)
    async with working(settings) as (lane, _):
        await until(lambda: all(each.committed >= 0 for each in lane.membership.owned) and lane.membership.joined)
        later = escalated.texts(9, 9)
        await asyncio.to_thread(
            escalated.produce, stack.bootstrap_servers, names.parked, later, first_offset=9, **parked
        )
        await at_rest(stack, settings)
    corrected = escalated.corrections_per_source(decisions_of(stack, settings))
    assert corrected == Counter(range(0 if known else 9, 18))


async def test_workers_share_both_topics_by_equal_numbers(stack, llm, prefix):  # noqa: F811
    """A parked event is paid by the escalation partition of its number: its owner has both."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    names = settings.kafka.names

    def numbers(lane, topic: str) -> set[int]:
        return {each.number for each in lane.membership.owned if each.tp.topic == topic and each.committed >= 0}

    async with working(settings) as (first, _):
        async with working(settings) as (second, _):
            lanes, topics = (first, second), (names.escalations, names.parked)

            def shared() -> bool:
                opened = [[numbers(lane, topic) for lane in lanes] for topic in topics]
                return all(sum(map(len, each)) == escalated.PARTITIONS and all(each) for each in opened)

            await until(shared)
            for lane in lanes:
                assert numbers(lane, names.escalations) == numbers(lane, names.parked)
        await until(lambda: len(numbers(first, names.parked)) == escalated.PARTITIONS)
        assert numbers(first, names.escalations) == numbers(first, names.parked)


async def test_a_hand_over_in_the_middle_corrects_nothing_twice(stack, llm, prefix):  # noqa: F811
    """Workers join and leave while parked events are asked: each is asked once and corrected once."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=80)
    llm.latency(300, 0.3)
    names = settings.kafka.names
    await asyncio.to_thread(
        escalated.produce, stack.bootstrap_servers, names.parked, escalated.texts(300), parked=True
    )
    async with working(settings):
        await until(lambda: len(llm.calls()) > 40)
        async with working(settings) as (second, _):
            await until(lambda: any(partition.committed >= 0 for partition in second.membership.owned))
            began_s = time.monotonic()
            await until(lambda: len(llm.calls()) > 150 or time.monotonic() - began_s > 20)
        await at_rest(stack, settings)
    assert escalated.corrections_per_source(decisions_of(stack, settings)) == Counter(range(300))
    assert set(Counter(call["event_id"] for call in llm.calls()).values()) == {1}


async def test_the_same_question_is_asked_once_after_all(stack, llm, prefix):  # noqa: F811
    """Parked events with one text: the first is asked, the others wait a moment and have its answer for nothing."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    texts = ["quite nice, really"] * 30
    await asyncio.to_thread(
        escalated.produce, stack.bootstrap_servers, settings.kafka.names.parked, texts, parked=True
    )
    async with working(settings):
        await at_rest(stack, settings)
    decisions = decisions_of(stack, settings)
    assert escalated.corrections_per_source(decisions) == Counter(range(30))
    assert len(llm.calls()) == 1
    assert Counter(decision["usage"]["cached"] for decision in decisions) == {True: 29, False: 1}


async def test_the_other_topics_open_last(stack, llm, prefix):  # noqa: F811
    """Its partitions are in no hurry: an opening of theirs must not hold up one that a failover waits for."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    opened: list[str] = []
    async with working(settings) as (lane, _):
        begins = lane.opened

        def noted(partition, committed) -> None:
            opened.append(partition.tp.topic)
            begins(partition, committed)

        lane.opened = noted
        await until(lambda: len(opened) == 3 * escalated.PARTITIONS, 60.0)
    assert set(opened[: escalated.PARTITIONS]) == {settings.kafka.names.escalations}
    assert set(opened[escalated.PARTITIONS :]) == {settings.kafka.names.parked, settings.kafka.names.audits}

"""A person's verdict becomes one correction, numbered by the one writer of a record's corrections, on real Kafka."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from stream_app.cli.said import Unusable
from stream_app.cli.verdict_fate import SaidBefore, Sends
from stream_app.codec import Codec, with_parked_at
from stream_app.events import Decision, Event, Kind
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_hand_over import until
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.escalate.test_parked import at_rest, given_up
from tests.escalate.verdicts import breaches, histories, say
from tests.escalate.workers import PARTITIONS, WITHIN_S, Pipeline
from tests.kafka.reading import read_all

if TYPE_CHECKING:
    from pathlib import Path

    from stream_app.settings import Settings


def counted(metrics: Metrics) -> dict[str, float]:
    """What became of verdicts."""
    family = next(each for each in metrics.registry.collect() if each.name == "shunt_verdicts")
    return {each.labels["result"]: each.value for each in family.samples if each.name.endswith("_total")}


def refs(numbers) -> list[str]:
    """The sources of the escalations that `escalated.produce` writes."""
    return [f"reviews/{number % escalated.PARTITIONS}/{number}" for number in numbers]


def decided(settings: Settings, numbers: range, *, parked: bool = False) -> None:
    """Finals of the hot path, made here without it; with `parked` as the slow lane parks them."""
    codec = Codec(settings.events, settings.kafka.group)
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for number in numbers:
        source = escalated.escalation(number, partition=number % escalated.PARTITIONS).source
        answers = {"sentiment": replace(escalated.small(share=0.97), escalated_because=None, certified=True)}
        event = Event(f"r-{number}", "x", b'{"n": 1.0}', source, f"k{number}".encode())
        value, headers = codec.encode_decision(
            Decision(event, Kind.FINAL, 0, "small", answers, "demo@1", certified=True, decided_at_ms=5)
        )
        if parked:
            headers = with_parked_at(headers, number % escalated.PARTITIONS)
        topic = settings.kafka.names.decisions
        producer.produce(
            topic, value=value, key=event.key, partition=number % escalated.PARTITIONS, headers=list(headers)
        )
    assert producer.flush(30) == 0


async def corrected(settings: Settings, wanted: int) -> None:
    """Waits until so many corrections by people are there."""

    def done() -> bool:
        found = histories(settings.kafka.bootstrap_servers, settings.kafka.names.decisions)
        return sum(len(one.by_people) for one in found.values()) >= wanted

    await until(done, 60.0)


async def test_a_verdict_on_an_accepted_final_corrects_it(stack, llm, prefix):  # noqa: F811
    """The answer is the person's, key, payload and the rest stand; and it is a row to train on."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    decided(settings, range(6))
    async with working(settings):
        fates = await say(settings, dict.fromkeys(refs(range(4)), "negative"))
        assert all(isinstance(fate, Sends) for fate in fates)
        await corrected(settings, 4)
    messages = read_all(stack.bootstrap_servers, settings.kafka.names.decisions)
    corrections = [message for message in messages if json.loads(message.value())["kind"] == "correction"]
    assert len(corrections) == 4
    for message in corrections:
        decision = json.loads(message.value())
        number = decision["source"]["offset"]
        assert message.key() == f"k{number}".encode()
        assert message.partition() == number % escalated.PARTITIONS
        assert b'"n": 1.0' in message.value()
        assert (decision["decided_by"], decision["revision"], decision["replaces"]) == ("human", 1, 0)
        answer = decision["answers"]["sentiment"]
        assert (answer["label"], answer["decided_by"], answer["model"]) == ("negative", "human", "person")
        assert answer["votes"] == {"sentiment_fast:1": "positive"}
        assert dict(message.headers())["shunt-verdict"].startswith(settings.kafka.names.verdicts.encode())
    found = histories(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert not breaches(found)
    rows = [
        json.loads(message.value()) for message in read_all(stack.bootstrap_servers, settings.kafka.names.feedback)
    ]
    assert {(row["why"], row["labelled_by"], row["label"], row["revision"]) for row in rows} == {
        ("verdict", "human", "negative", 0)
    }
    assert {row["small"]["label"] for row in rows} == {"positive"}
    assert len(rows) == 4


async def test_after_a_verdict_the_llms_later_answer_is_dropped(stack, llm, prefix):  # noqa: F811
    """Parked events: those a person decides keep that, without a call; the others are corrected by the LLM."""
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, on_outage="degrade", deadline_s=5.0, timeout_s=2.0
    )
    llm.fault("server_error", status=503)
    names, metrics = settings.kafka.names, Metrics()
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.escalations, escalated.texts(30))
    async with working(settings, metrics):
        await caught_up(stack, settings)
        await say(settings, dict.fromkeys(refs(range(10)), "negative"))
        await corrected(settings, 10)
        llm.admin("reset")
        await at_rest(stack, settings)
    found = histories(stack.bootstrap_servers, names.decisions)
    assert not breaches(found)
    assert Counter(tuple(who for _, _, who, _ in one.corrections) for one in found.values()) == {
        ("human",): 10,
        ("llm",): 20,
    }
    assert given_up(metrics) == {"verdict": 10.0}
    assert not {call["event_id"] for call in llm.calls()} & {f"r-{number}" for number in range(10)}


async def test_a_verdict_is_remembered_by_the_next_owner(stack, llm, prefix):  # noqa: F811
    """The verdict is done, the worker ends, the LLM comes back: the next owner knows, and drops the LLM's answers."""
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, on_outage="degrade", deadline_s=5.0, timeout_s=2.0
    )
    llm.fault("server_error", status=503)
    names = settings.kafka.names
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.escalations, escalated.texts(12))
    async with working(settings):
        await caught_up(stack, settings)
        await say(settings, dict.fromkeys(refs(range(12)), "negative"))
        await corrected(settings, 12)
    llm.admin("reset")
    metrics = Metrics()
    async with working(settings, metrics):
        await at_rest(stack, settings)
    found = histories(stack.bootstrap_servers, names.decisions)
    assert not breaches(found)
    assert all(one.by_people == ["negative"] and len(one.corrections) == 1 for one in found.values())
    assert not counted(metrics)


async def test_a_verdict_after_the_llms_later_answer_replaces_that(stack, llm, prefix):  # noqa: F811
    """Whoever posts it had seen the final alone, or the correction: the number is the next one either way."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, on_outage="degrade", deadline_s=5.0)
    llm.fault("server_error", status=503)
    names = settings.kafka.names
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.escalations, escalated.texts(12))
    async with working(settings):
        await caught_up(stack, settings)
    await say(settings, dict.fromkeys(refs(range(6)), "negative"))  # nobody works: it waits
    llm.admin("reset")
    async with working(settings):
        await at_rest(stack, settings)
        await corrected(settings, 6)
        await say(settings, dict.fromkeys(refs(range(6, 12)), "negative"))
        await corrected(settings, 12)
    found = histories(stack.bootstrap_servers, names.decisions)
    assert not breaches(found)
    late = [found[ref].corrections for ref in refs(range(6, 12))]
    assert {tuple(each[:3] for each in one) for one in late} == {((1, 0, "llm"), (2, 1, "human"))}


async def test_verdicts_that_say_the_same_count_once_and_others_in_turn(stack, llm, prefix):  # noqa: F811
    """The same word twice is one correction; another word is another correction; back again is a third."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    decided(settings, range(2))
    (ref, other) = refs(range(2))
    assert isinstance((await say(settings, {ref: "negative"}))[0], Sends)
    assert isinstance((await say(settings, {ref: "negative"}))[0], SaidBefore)
    assert isinstance((await say(settings, {ref: "positive"}))[0], Sends)
    assert isinstance((await say(settings, {"reviews/0/77": "positive"}))[0], Unusable)
    async with working(settings):
        await corrected(settings, 2)
        assert isinstance((await say(settings, {ref: "positive", other: "negative"}))[0], SaidBefore)
        await say(settings, {ref: "negative"})
        await corrected(settings, 4)
    found = histories(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert not breaches(found)
    assert found[ref].corrections == [
        (1, 0, "human", "negative"),
        (2, 1, "human", "positive"),
        (3, 2, "human", "negative"),
    ]
    assert found[other].by_people == ["negative"]


async def test_a_verdict_beside_an_answer_that_is_not_committed(stack, llm, prefix):  # noqa: F811
    """The LLM has answered and its corrections wait for their commit: the verdicts' numbers come after theirs."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"escalate": settings.escalate.model_copy(update={"linger_ms": 8_000.0})})
    decided(settings, range(30), parked=True)
    topic = settings.kafka.names.parked
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(30), parked=True)
    async with working(settings):
        await until(lambda: len(llm.calls()) >= 30)
        await say(settings, dict.fromkeys(refs(range(30)), "negative"))
        await corrected(settings, 30)
    found = histories(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert not breaches(found)
    assert sum(len(one.corrections) == 2 for one in found.values()) == 30, "the verdicts came too late or too soon"


@pytest.mark.timeout(420)  # workers are started five times, and a machine may be busy
def test_kills_neither_lose_nor_double_a_verdict(stack, llm, unique_name, tmp_path: Path):
    """Verdicts while parked events are corrected and workers are killed -9: each verdict is one correction, revisions
    rise by one, and no model speaks after a person."""
    made = Pipeline(tmp_path, stack, llm, unique_name("verdicts"), lane={"on_outage": "degrade", "deadline_s": 20.0})
    names = made.settings.kafka.names
    llm.latency(100, 0.5)
    llm.fault("server_error", status=503)
    made.start()
    made.start()
    try:
        made.produce(30 * PARTITIONS)
        made.at_rest()
        everybody = [f"reviews/{number % PARTITIONS}/{number}" for number in range(made.produced)]
        wanted = dict.fromkeys(everybody[::2], "negative")
        llm.well()
        for start in range(0, len(wanted), 30):
            asyncio.run(say(made.settings, dict(list(wanted.items())[start : start + 30])))
            victim = made.workers[-1]
            victim.kill()
            made.start()
        asyncio.run(until(lambda: _settled(made, wanted), WITHIN_S))
    finally:
        for worker in made.workers:
            worker.kill()
    found = histories(made.servers, names.decisions)
    assert not breaches(found)
    assert {ref: found[ref].by_people for ref in wanted} == {ref: ["negative"] for ref in wanted}


def _settled(made: Pipeline, wanted: dict[str, str]) -> bool:
    """Every verdict and every parked event is done."""
    found = histories(made.servers, made.settings.kafka.names.decisions)
    return all(found[ref].by_people for ref in wanted) and all(one.corrections for one in found.values())

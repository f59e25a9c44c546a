"""Audit results on real Kafka become an alarm that every worker heeds, a later one too, until the next policy."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from stream_app.classify.start import classify_lane
from stream_app.cli.accepted import AcceptedDraw, draw_accepted
from stream_app.cli.feedback import send_labels
from stream_app.cli.said import Said
from stream_app.codec import Codec, encode_audit_result, llm_result
from stream_app.events import Answer, Audit, Source
from stream_app.kafka.connection import Connection
from stream_app.kafka.control_log import ControlVoice
from stream_app.routing.control import IN_FORCE, InForce, encoded
from stream_app.routing.policy import LlmDisagreement, Traffic, dump_policy
from stream_app.telemetry import Metrics
from stream_app.training.held_out import HeldOut
from tests.classify.lanes import caught_up, pipeline
from tests.classify.policies import scripted_policy
from tests.kafka.reading import produce, read_all

TASKS = [{"name": "sentiment", "tiers": ["scripted"], "target_error": 0.05}]


def policy(number: int = 1, bound: float = 0.05, traffic: Traffic | None = None):
    made = scripted_policy(number=number)
    known = LlmDisagreement(llm="some", accepted=500, disagreed=10, bound=bound)
    task = msgspec.structs.replace(made.tasks["sentiment"], llm_disagreement=known, traffic=traffic)
    return msgspec.structs.replace(made, tasks={"sentiment": task})


def results(count: int, *, lost: bool, ref: str = "scripted@1") -> list[bytes]:
    """So many results of audits of that policy."""
    made = []
    for offset in range(count):
        small = Answer("positive", 0.97, {"negative": 0.03, "positive": 0.97}, 0.9, "small", "scripted:1", True, ref)
        audit = Audit(Source("reviews", 0, offset, 0), {"sentiment": small}, {"sentiment": ("a", "b")}, ref, 0)
        label = "negative" if lost else "positive"
        value, _ = encode_audit_result(llm_result(audit, "sentiment", "e", label, None, "m", int(time.time() * 1000)))
        made.append(value)
    return made


@pytest.fixture
def made(stack, make_topic, unique_name, tmp_path):
    """Settings for an action on alarm, with the policy in a file."""

    def one(on_alarm: str, traffic: Traffic | None = None):
        file = tmp_path / "policy.json"
        file.write_bytes(dump_policy(policy(traffic=traffic)))
        audit = {"on_alarm": on_alarm, "share": 0.1}
        return pipeline(stack, make_topic, unique_name, tasks=TASKS, policy={"file": file}, audit=audit, partitions=2)

    return one


@asynccontextmanager
async def worker(settings, metrics: Metrics):
    """The lane's task, once it owns partitions."""
    stop = asyncio.Event()
    async with classify_lane(settings, metrics) as lane:
        task = asyncio.create_task(lane.run(stop))
        try:
            async with asyncio.timeout(40):
                while not (lane.membership.joined and all(each.committed >= -1 for each in lane.membership.owned)):
                    await asyncio.sleep(0.05)
            yield task
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=40)
            assert task.done()
            task.result()


async def alarms(metrics: list[Metrics], by: str = "llm") -> list[float | None]:
    labels = {"task": "sentiment", "by": by}
    return [one.registry.get_sample_value("shunt_audit_alarm", labels) for one in metrics]


async def until_alarm(metrics: list[Metrics], value: float = 1.0, by: str = "llm") -> None:
    async with asyncio.timeout(40):
        while await alarms(metrics, by) != [value] * len(metrics):
            await asyncio.sleep(0.1)


def events(sure: float, count: int = 20) -> list[bytes]:
    return [json.dumps({"id": f"{sure}-{n}", "text": f"it is p={sure}"}).encode() for n in range(count)]


async def decided(stack, settings, task, values) -> list[dict]:
    """Small finals of these events, those escalated left out."""
    names = settings.kafka.names
    before = {(one.partition(), one.offset()) for one in read_all(stack.bootstrap_servers, names.decisions)}
    await asyncio.to_thread(produce, stack.bootstrap_servers, names.input, values, partitions=2)
    await caught_up(settings, task)
    messages = read_all(stack.bootstrap_servers, names.decisions)
    return [json.loads(one.value()) for one in messages if (one.partition(), one.offset()) not in before]


async def decided_so(stack, settings, task, values, wanted) -> list[dict]:
    """The same, once what is wanted of the finals is so: the word goes round by the control topic."""
    async with asyncio.timeout(40):
        while not wanted(finals := await decided(stack, settings, task, values)):
            await asyncio.sleep(0.5)
    return finals


def sureness(finals: list[dict]) -> set[float]:
    return {float(one["id"].split("-")[0]) for one in finals}


def heeded(finals: list[dict], accepted: set[float]) -> bool:
    return sureness(finals) == accepted and not any(one["certified"] for one in finals)


async def test_people_who_find_accepted_answers_wrong_raise_the_alarm(stack, made):
    """Drawn among the accepted, judged by a person, posted: the worker that decided them says that they are wrong."""
    settings, metrics = made("log"), Metrics()
    async with worker(settings, metrics) as lane:
        await decided(stack, settings, lane, [*events(0.97, 40), *events(0.6)])
        draw = AcceptedDraw("scripted@1", settings.kafka.names.input, ["sentiment"], HeldOut(), 30, 7)
        drawn = await draw_accepted(settings, policy(), draw, None, lambda _: None)
        assert {one.event.text for one in drawn} == {"it is p=0.97"}
        assert draw.offered == 40
        said = [
            Said(one.event.id, one.event.source.ref, None, one.event.text, "sentiment", "negative", audit=True)
            for one in drawn
        ]
        assert len(await send_labels(settings, said, dry_run=False)) == 30
        await until_alarm([metrics], by="human")
        assert await alarms([metrics], "llm") == [0.0]


@pytest.mark.parametrize(("on_alarm", "accepted"), [("log", {0.92, 0.97}), ("tighten", {0.97}), ("llm_only", set())])
async def test_an_alarm_is_heeded_by_every_worker_until_the_next_policy(stack, made, on_alarm, accepted):
    """Two workers read the same results, and one that starts later; another policy begins without the alarm."""
    settings = made(on_alarm)
    names, servers = settings.kafka.names, stack.bootstrap_servers
    values = [*events(0.92), *events(0.97), *events(0.6)]
    metrics = [Metrics(), Metrics(), Metrics()]
    async with AsyncExitStack() as lanes:
        first = await lanes.enter_async_context(worker(settings, metrics[0]))
        await lanes.enter_async_context(worker(settings, metrics[1]))
        finals = await decided(stack, settings, first, [*values, *events(0.98, 300)])
        assert len(finals) == 340
        assert {one["certified"] for one in finals} == {True}
        await asyncio.to_thread(produce, servers, names.audit_results, [b"not ours", *results(60, lost=True)])
        await until_alarm(metrics[:2])
        finals = await decided_so(stack, settings, first, values, lambda finals: heeded(finals, accepted))
        assert len(finals) == 20 * len(accepted)
        for one in finals:
            answer = one["answers"]["sentiment"]
            assert (one["certified"], answer["certified"], answer["uncertified_reason"]) == (False, False, "shift")
        await asyncio.to_thread(produce, servers, names.audit_results, results(200, lost=False))
    async with worker(settings, metrics[2]) as later:
        finals = await decided(stack, settings, later, values)
        assert sureness(finals) == accepted, "before it has read a single result"
        voice, at = ControlVoice(Connection(settings.kafka)), "2026-11-20T09:00:00Z"
        promoted = InForce(swap="another", policy=policy(2), previous=policy(), cause="promote", at=at)
        await voice.say(IN_FORCE, encoded(promoted))
        await until_alarm([metrics[2]], 0.0)
        by_the_next = {("scripted@2", True)}
        finals = await decided_so(
            stack,
            settings,
            later,
            values,
            lambda found: {(one["policy"], one["certified"]) for one in found} == by_the_next,
        )
        assert len(finals) == 40
        await decided(stack, settings, later, events(0.97, 300))  # a tenth is audited: drawn from few, it may be none
    codec = Codec(settings.events, settings.kafka.group)
    audits = [codec.decode_audit(one.key(), one.value(), one.headers()) for one in read_all(servers, names.audits)]
    assert {audit.policy for audit, _, _ in audits} == {"scripted@1", "scripted@2"}


async def test_agreement_raises_no_alarm(stack, made):
    """Results are read, and what they come to is told."""
    settings, metrics = made("llm_only"), Metrics()
    names, servers = settings.kafka.names, stack.bootstrap_servers
    await asyncio.to_thread(produce, servers, names.audit_results, results(300, lost=False))
    async with worker(settings, metrics) as task:
        async with asyncio.timeout(40):
            labels = {"task": "sentiment", "by": "llm"}
            while metrics.registry.get_sample_value("shunt_audit_risk", labels) != 0.0:
                await asyncio.sleep(0.1)
        assert len(await decided(stack, settings, task, events(0.97))) == 20
    assert await alarms([metrics]) == [0.0]


async def test_a_stream_that_shifted_is_uncertified_by_every_worker(stack, made):
    """Most answers were negative in the sample, and most are positive now: said on decisions, and no more is done."""
    sample = Traffic(
        rows=2_000,
        labels={"negative": 1_600, "positive": 400},
        confidence_edges=(0.9,),
        confidence=(0, 2_000),
        escalated=0,
        out_of_domain=0,
    )
    settings, metrics = made("llm_only", sample), [Metrics(), Metrics()]
    as_before = [
        json.dumps({"id": f"b-{n}", "text": f"it is p={0.97 if n % 5 == 0 else 0.03}"}).encode() for n in range(6_000)
    ]
    async with AsyncExitStack() as lanes:
        tasks = [await lanes.enter_async_context(worker(settings, one)) for one in metrics]
        finals = await decided(stack, settings, tasks[0], as_before)
        assert {one["certified"] for one in finals} == {True}
        await decided(stack, settings, tasks[0], events(0.97, 6_000))
        async with asyncio.timeout(60):  # the word goes round by the control topic
            reasons = set[tuple[bool, str | None]]()
            while reasons != {(False, "shift")}:
                finals = await decided(stack, settings, tasks[0], events(0.97, 200))
                assert len(finals) == 200
                reasons = {
                    (one["certified"], one["answers"]["sentiment"].get("uncertified_reason")) for one in finals
                }
    labels = {"task": "sentiment", "what": "prevalence"}
    assert 1.0 in [one.registry.get_sample_value("shunt_drifted", labels) for one in metrics]

"""Workers of the slow lane that come, go and die: one final for every event, and how many calls it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream_app.escalate.budget import parse_lease
from stream_app.escalate.start import escalate_lane, group_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.finished import decode
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture

WORKER = Path(__file__).with_name("worker.py")


@asynccontextmanager
async def process(settings, log: Path):
    """A worker's process; killed at the end of the block if it still runs."""
    with log.open("ab") as out:
        running = subprocess.Popen(
            [sys.executable, str(WORKER), settings.model_dump_json()], stdout=out, stderr=out, cwd=WORKER.parents[2]
        )
        try:
            yield running
        finally:
            running.kill()
            await asyncio.to_thread(running.wait)


async def until(condition, within_s: float = 60.0) -> None:
    """Waits until a condition that may block holds."""
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def committed_metadata(bootstrap_servers: str, settings) -> dict[int, tuple[int, str]]:
    """Per partition the group's committed offset and its metadata."""
    topic = settings.kafka.names.escalations
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        asked = [TopicPartition(topic, number) for number in range(escalated.PARTITIONS)]
        found = await admin.list_consumer_group_offsets(group_of(settings), partitions=asked)
    finally:
        await admin.close()
    return {tp.partition: (each.offset, each.metadata or "") for tp, each in found.items()}


async def test_a_planned_hand_over_asks_nothing_twice(stack, llm, prefix):  # noqa: F811
    """Workers join and leave while 450 events are under way: every call is made once, every final written once."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=40)
    llm.admin("latency", {"median_ms": 300, "sigma": 0.3})
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", escalated.texts(450))
    async with working(settings):
        await until(lambda: len(llm.calls()) > 60)
        async with working(settings) as (second, _):
            await until(lambda: any(partition.committed >= 0 for partition in second.membership.owned))
            await until(lambda: len(llm.calls()) > 200)
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(450))
    assert set(Counter(call["event_id"] for call in llm.calls()).values()) == {1}


@pytest.mark.parametrize("drain_first", [True, False], ids=["rebalance-in-a-drain", "drain-in-a-rebalance"])
async def test_a_drain_and_a_rebalance_that_meet_pay_nothing_twice(stack, llm, prefix, caplog, drain_first):  # noqa: F811
    """Whichever comes first hands over; the other waits for it: calls that end within `handover_s` are delivered."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=60)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"session_timeout_ms": 6_000})})
    llm.admin("latency", {"median_ms": 3_500, "sigma": 0})
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", escalated.texts(120))
    caplog.set_level("INFO", "aiokafka.consumer.group_coordinator")
    stop = asyncio.Event()
    async with escalate_lane(settings, Metrics()) as lane, asyncio.TaskGroup() as group:
        leaving = group.create_task(lane.run(stop))
        await until(lambda: len(llm.calls()) == 60)
        caplog.clear()
        async with working(settings):
            if drain_first:
                stop.set()
            await until(lambda: revocations(caplog))
            assert not leaving.done()
            stop.set()
            await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(120))
    assert set(Counter(call["event_id"] for call in llm.calls()).values()) == {1}


def revocations(caplog) -> int:
    """How often partitions were taken from a worker of this process."""
    return sum("Revoking" in record.msg and bool(record.args[0]) for record in caplog.records)


async def test_kill_9_loses_no_event_and_repeats_only_what_was_in_the_air(stack, llm, prefix, tmp_path):  # noqa: F811
    """Killed in the middle, with events finished beyond the oldest unfinished one: the next worker skips those.

    Asked twice are at most the calls in flight and the answers of the last uncommitted moment.
    """
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=60)
    llm.admin("latency", {"median_ms": 150, "sigma": 0.3})
    llm.fault("slow", match="order 3)", delay_s=600)  # holds partition 0's commit point back
    texts = escalated.texts(400)
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", texts)

    def finals_of(*partitions: int) -> int:
        decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
        return sum(decision["source"]["offset"] % 3 in partitions for decision in decisions)

    async with process(settings, tmp_path / "worker.log") as worker:
        await until(lambda: finals_of(0) > 40 and finals_of(0, 1, 2) > 120)
        worker.kill()
    called_before = len(llm.calls())
    offset, metadata = (await committed_metadata(stack.bootstrap_servers, settings))[0]
    assert offset <= 1
    assert len(decode(metadata, offset).finished) > 10
    llm.admin("faults", method="DELETE")
    async with working(settings):
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(400))
    twice = sum(count - 1 for count in Counter(call["event_id"] for call in llm.calls()).values())
    assert 1 <= twice <= 60 + 150  # in flight, and what a worker answers in the linger and a slow transaction
    assert called_before + 400 - 120 >= len(llm.calls())


@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_the_lease_stands_in_the_metadata_before_anything_is_spent(stack, llm, prefix, tmp_path):  # noqa: F811
    """A killed worker's whole lease counts as spent: the fleet's bill stays below the budget through kills.

    One partition: of three, the first that opens would degrade what passes its own share.
    """
    endpoint = {"usd_per_million_input": 1_000, "usd_per_million_output": 1_000}
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, endpoint=endpoint, usd_per_hour=90.0, on_budget="degrade"
    )
    llm.admin("latency", {"median_ms": 100, "sigma": 0.3})
    llm.fault("hang", match="order 99)")
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(300), partitions=1)
    async with process(settings, tmp_path / "worker.log"):
        await until(lambda: len(llm.calls()) > 15)
        committed = await committed_metadata(stack.bootstrap_servers, settings)
        leased = [parse_lease(decode(metadata, offset).extra) for offset, metadata in committed.values() if metadata]
        assert any(lease is not None and lease.leased_nusd > 0 for lease in leased)
    llm.admin("faults", method="DELETE")
    async with working(settings):
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(300))
    assert {decision["degraded_reason"] for decision in decisions} == {None, "budget"}
    billed = sum(call["input_tokens"] + call["output_tokens"] for call in llm.calls()) / 1_000
    assert billed <= 90.0


async def test_calls_that_outlast_the_hand_over_are_not_repeated_where_the_partition_comes_back(stack, llm, prefix):  # noqa: F811
    """A rebalance that a new worker causes and that takes nothing away: the running calls' answers are used."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"handover_s": 0.3})})
    llm.admin("latency", {"median_ms": 2_500, "sigma": 0})
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", escalated.texts(30))
    metrics = Metrics()
    async with working(settings, metrics):
        await until(lambda: len(llm.calls()) == 30)
        async with working(settings, metrics):
            await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(30))
    asked = Counter(call["event_id"] for call in llm.calls())
    kept = [event_id for event_id, times in asked.items() if times == 1]
    assert len(kept) >= 10  # at least one of three partitions stayed
    assert in_vain(metrics) == sum(times - 1 for times in asked.values())


def in_vain(metrics: Metrics) -> float:
    """Calls that workers which have ended count as paid in vain, because a partition or the worker itself went."""
    causes = ("rebalance", "shutdown")
    name = "shunt_llm_calls_wasted_total"
    return sum(metrics.registry.get_sample_value(name, {"cause": cause}) or 0.0 for cause in causes)


async def test_a_second_rebalance_during_the_first_pays_no_more_than_what_went_away(stack, llm, prefix):  # noqa: F811
    """Two workers join one after the other while calls of 5 s run: what comes back is answered by those calls.

    Never by the old assignment: every event has one final. The calls of partitions that went are counted exactly.
    """
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    kafka = settings.kafka.model_copy(update={"handover_s": 0.3, "session_timeout_ms": 6_000})
    settings = settings.model_copy(update={"kafka": kafka})
    llm.admin("latency", {"median_ms": 5_000, "sigma": 0})
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", escalated.texts(60))
    metrics = Metrics()
    async with working(settings, metrics):
        await until(lambda: len(llm.calls()) == 60)
        async with working(settings, metrics):
            await asyncio.sleep(1.5)
            async with working(settings, metrics):
                await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(60))
    asked = Counter(call["event_id"] for call in llm.calls())
    assert max(asked.values()) <= 3
    assert in_vain(metrics) == sum(times - 1 for times in asked.values())


async def test_no_event_is_started_further_ahead_than_the_span(stack, llm, prefix):  # noqa: F811
    """One slow call holds the commit point; the partition runs `span_max` ahead of it and no further."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"escalate": settings.escalate.model_copy(update={"span_max": 10})})
    llm.fault("slow", count=1, match="order 0)", delay_s=4)
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", escalated.texts(90))
    async with working(settings):
        await until(lambda: len(llm.calls()) >= 70)
        await asyncio.sleep(1)
        assert len(llm.calls()) == 30 + 30 + 10  # the other two partitions are done
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(90))


async def test_a_lane_that_is_fenced_joins_again_and_finishes(stack, llm, prefix):  # noqa: F811
    """Somebody takes a partition's transactional id: its uncommitted work is dropped, and done again once."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=40)
    llm.admin("latency", {"median_ms": 200, "sigma": 0.3})
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(300))
    async with working(settings) as (lane, task):
        await until(lambda: len(llm.calls()) > 60)
        thief = Connection(settings.kafka).transactional_producer(f"{group_of(settings)}:{topic}:0")
        await thief.start()
        await thief.stop()
        await caught_up(stack, settings)
        assert not task.done()
        assert lane.membership.lost_count == 1
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(300))


async def test_metadata_that_is_not_believed_costs_calls_and_no_event(stack, llm, prefix, caplog):  # noqa: F811
    """Foreign metadata beside the committed offset is named in the log; everything behind the offset is asked."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    topic = f"{prefix}-escalations"
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, topic, escalated.texts(30))
    tp = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stack.bootstrap_servers, group_id=group_of(settings), enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(4, "shunt1:3:00000000:AAAA:")})
    finally:
        await consumer.stop()
    async with working(settings):
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    skipped = {0, 3, 6, 9}  # the first four of partition 0, committed by hand
    assert escalated.finals_per_source(decisions) == Counter(set(range(30)) - skipped)
    assert "is not believed" in caplog.text

"""The slow lane on real Kafka against the stand-in LLM over HTTP: one final for every event, whatever happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from stream_app.escalate.start import escalate_lane, group_of
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.kafka.reading import committed_and_end


@pytest.fixture
def prefix(make_topic, unique_name) -> str:
    """A pipeline's topics, this test's own; their common prefix is the input topic's name."""
    name = unique_name("reviews")
    for suffix in ("", "-decisions", "-escalations", "-dlq", "-review"):
        make_topic(name=f"{name}{suffix}", partitions=escalated.PARTITIONS)
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


async def caught_up(stack, settings, within_s: float = 60.0) -> None:
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

"""What the slow lane costs beside the bare client: calls a second and CPU an answer, in one run.

    python benchmarks/llm_lane.py [--events N] [--in-flight N]

Three ways to put the same questions to the stand-in LLM (20 ms an answer, no limits): `openai.AsyncOpenAI` as its
documentation has it, our adapter over the same library, and the whole lane on real Kafka (consume, prompt,
limits, budget, call, judge, transaction). CPU is this process's own: Kafka and the stand-in are others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import openai
from aiokafka import AIOKafkaProducer

from stream_app.codec import encode_escalation
from stream_app.escalate.client import OpenAiClient
from stream_app.escalate.prompt import Prompter, PromptOptions, Request
from stream_app.escalate.results import Answered
from stream_app.escalate.start import escalate_lane
from stream_app.events import Answer, Ask, Escalation, Event, Source
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import Endpoint, Settings
from stream_app.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PARTITIONS = 6
SENTENCE = "The handle came loose after two weeks, but the colour is lovely and my daughter uses it every day. "


def escalation(number: int) -> Escalation:
    small = Answer("positive", 0.6, {"negative": 0.4, "positive": 0.6}, 0.93, "small", "fast:1", False)
    ask = Ask("sentiment", ("negative", "positive"), small, "unsure")
    source = Source("bench", number % PARTITIONS, number, int(time.time() * 1000))
    return Escalation(source, ("sentiment",), (ask,), {}, "bench@1", 0, number % PARTITIONS, source.timestamp_ms)


def text(number: int) -> str:
    return f"{SENTENCE * 5}Order {number}."


def requests(events: int) -> list[Request]:
    prompter = Prompter(PromptOptions(), ["sentiment"])
    made = [(number, escalation(number)) for number in range(events)]
    return [prompter.render(one, Event(f"r-{number}", text(number), b"{}", one.source, None)) for number, one in made]


async def timed(name: str, events: int, work: Awaitable[None]) -> dict[str, float | str]:
    cpu_s, began_s = time.process_time(), time.perf_counter()
    await work
    took_s = time.perf_counter() - began_s
    return {
        "way": name,
        "answers_per_s": round(events / took_s, 1),
        "cpu_ms_per_answer": round((time.process_time() - cpu_s) * 1000 / events, 3),
    }


async def side_by_side(asked: list[Request], in_flight: int, call: Callable[[Request], Awaitable[None]]) -> None:
    slots = asyncio.Semaphore(in_flight)

    async def one(request: Request) -> None:
        async with slots:
            await call(request)

    await asyncio.gather(*(one(request) for request in asked))


async def bare(base_url: str, asked: list[Request], in_flight: int) -> dict[str, float | str]:
    client = openai.AsyncOpenAI(
        api_key="none", base_url=base_url, max_retries=0, http_client=openai.DefaultAioHttpClient()
    )

    async def call(request: Request) -> None:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=request.messages,
            response_format=request.response_format,
            max_tokens=300,
            temperature=0,
        )
        json.loads(completion.choices[0].message.content or "")

    try:
        return await timed("openai, aiohttp transport", len(asked), side_by_side(asked, in_flight, call))
    finally:
        await client.close()


async def adapter(base_url: str, asked: list[Request], in_flight: int) -> dict[str, float | str]:
    client = OpenAiClient(Endpoint(base_url=base_url), connections_max=in_flight)

    async def call(request: Request) -> None:
        answered = await client.ask(request, 30.0)
        if not isinstance(answered, Answered):
            raise SystemExit(f"the stand-in did not answer: {answered}")

    try:
        return await timed("our adapter", len(asked), side_by_side(asked, in_flight, call))
    finally:
        await client.aclose()


async def lane(stack: Stack, events: int, in_flight: int) -> dict[str, float | str]:
    endpoint = {"base_url": stack.llm_base_url, "requests_per_minute": 1e7, "tokens_per_minute": 1e10}
    settings = Settings(
        kafka={"bootstrap_servers": stack.bootstrap_servers, "group": "bench", "input_topic": "bench"},
        tasks=[{"name": "sentiment", "tiers": ["fast"], "threshold": 0.9}],
        llm={"max_in_flight": in_flight, "usd_per_hour": 1e6, "usd_per_day": 1e7, "endpoints": [endpoint]},
    )
    await create(Connection(settings.kafka), plan(settings.kafka, None, partitions=PARTITIONS))
    await produce(stack, settings.kafka.names.escalations, events)
    metrics, stop = Metrics(), asyncio.Event()

    async def work() -> None:
        async with escalate_lane(settings, metrics) as running:
            task = asyncio.create_task(running.run(stop))
            while done(metrics) < events and not task.done():
                await asyncio.sleep(0.05)
            stop.set()
            await task

    return await timed("the lane on Kafka", events, work())


def done(metrics: Metrics) -> float:
    found = metrics.registry.get_sample_value("shunt_decisions_total", {"kind": "final", "decided_by": "llm"})
    return found or 0.0


async def produce(stack: Stack, topic: str, events: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, linger_ms=20) as producer:
        sent = []
        for number in range(events):
            value = json.dumps({"id": f"r-{number}", "text": text(number)}).encode()
            headers = list(encode_escalation(escalation(number), ()))
            sent.append(
                await producer.send(topic, value, key=b"%d" % number, partition=number % PARTITIONS, headers=headers)
            )
        await asyncio.gather(*sent)


async def main(events: int, in_flight: int) -> None:
    options = StandInOptions(latency_median_ms=20, latency_sigma=0.3)
    with tempfile.TemporaryDirectory() as folder:
        async with Stack.start(Path(folder), triton=False, llm_options=options) as stack:
            asked = requests(events)
            base_url = stack.llm_base_url
            await adapter(base_url, asked[:200], in_flight)  # connections, imports and caches are warm for all
            for result in (
                await bare(base_url, asked, in_flight),
                await adapter(base_url, asked, in_flight),
                await lane(stack, events, in_flight),
            ):
                print(json.dumps(result))
    print(json.dumps({"events": events, "in_flight": in_flight, "load_1m": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3_000)
    parser.add_argument("--in-flight", type=int, default=200)
    given = parser.parse_args()
    asyncio.run(main(given.events, given.in_flight))

"""What the LLM lane costs beside the bare client: calls a second, CPU an answer and the event loop's lag, in one run.

    python -m benchmarks.llm_lane [--events N] [--in-flight N] [--latency-ms N] [--seconds N]

Three ways to put the same questions to the stand-in LLM (1 s an answer, no limits), each with 1,000 calls in flight:
`openai.AsyncOpenAI` as its documentation has it, our adapter over the same library, and the whole lane on real
Kafka (consume, prompt, limits, budget, call, judge, transaction), a worker as a user starts it. CPU is the client's
own process: Kafka and the stand-in are others. Then the worker gets half of what the bare client managed a
second, and its event loop is asked 50 times a second how late a timer is; so is a thread that does nothing else,
which tells how much of that is the machine's.

Exits 1 where a bar is missed: the worker's CPU an answer at most 1.3 times the bare client's, and 99 % of the timers
less than 50 ms late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import openai
from confluent_kafka import Producer

from benchmarks.watched_worker import CHECK_S
from benchmarks.worker import WorkerProcess
from stream_app.codec import encode_escalation
from stream_app.collector import calm_garbage_collector
from stream_app.escalate.client import OpenAiClient
from stream_app.escalate.prompt import Prompter, PromptOptions, Request
from stream_app.escalate.results import Answered
from stream_app.events import Answer, Ask, Escalation, Event, Source
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import Endpoint
from tests.pauses import Pauses
from tests.settings_file import NO_LLM, write_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Row = dict[str, float | str]

PARTITIONS = 6
WARM_EVENTS = 200
POLL_S = 0.5
CPU_TIMES_MAX = 1.3
LAG_P99_MAX_S = 0.05
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


async def timed(name: str, events: int, work: Awaitable[None]) -> Row:
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


async def bare(base_url: str, asked: list[Request], in_flight: int) -> Row:
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


async def adapter(base_url: str, asked: list[Request], in_flight: int) -> Row:
    client = OpenAiClient(Endpoint(base_url=base_url), connections_max=in_flight)

    async def call(request: Request) -> None:
        answered = await client.ask(request, 30.0)
        if not isinstance(answered, Answered):
            raise SystemExit(f"the stand-in did not answer: {answered}")

    try:
        return await timed("our adapter", len(asked), side_by_side(asked, in_flight, call))
    finally:
        await client.aclose()


class LaneWorker:
    """A worker of the LLM lane, and what it is fed."""

    def __init__(self, stack: Stack, folder: Path, in_flight: int) -> None:
        lane = {"max_in_flight": in_flight, "usd_per_hour": 1e6, "usd_per_day": 1e7}
        self._settings = write_settings(
            folder,
            "bench",
            bootstrap_servers=stack.bootstrap_servers,
            triton=NO_LLM.removeprefix("http://").removesuffix("/v1"),
            llm_base_url=stack.llm_base_url,
            llm=lane,
            endpoint={"requests_per_minute": 1e7, "tokens_per_minute": 1e10},
        )
        self._folder = folder
        self._producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "linger.ms": 5})
        self._written = 0

    async def start(self) -> None:
        """Returns when it has answered a first event of each partition."""
        kafka = self._settings.kafka
        await create(Connection(kafka), plan(kafka, None, partitions=PARTITIONS))
        self.process = WorkerProcess(self._folder, "escalate", module="benchmarks.watched_worker")
        await self.answer(WARM_EVENTS)

    async def answer(self, events: int) -> None:
        """Writes so many events at once, and waits until all are decided."""
        self._write(events)
        await self._decided()

    async def fed(self, per_s: float, seconds: float) -> None:
        """Writes so many events a second, and waits until all are decided."""
        began_s, written = time.perf_counter(), 0
        while (elapsed_s := time.perf_counter() - began_s) < seconds:
            due = int(per_s * elapsed_s)
            self._write(due - written)
            written = due
            await asyncio.sleep(0.02)
        await self._decided()

    def lags(self) -> dict[float, float]:
        """How many timers were at most so late, in seconds, since the start."""
        name = "shunt_event_loop_lag_seconds_bucket"
        return {
            float(dict(labels)["le"]): count
            for (found, labels), count in self.process.metrics().items()
            if found == name
        }

    def _write(self, events: int) -> None:
        for number in range(self._written, self._written + events):
            value = json.dumps({"id": f"r-{number}", "text": text(number)}).encode()
            headers = list(encode_escalation(escalation(number), ()))
            self._producer.produce(
                self._settings.kafka.names.escalations, value, partition=number % PARTITIONS, headers=headers
            )
            self._producer.poll(0)
        self._written += events

    async def _decided(self) -> None:
        self._producer.flush(30)
        decided = -1.0
        while decided < self._written:
            await asyncio.sleep(POLL_S)
            self.process.check()
            decided = self.process.metric("shunt_decisions_total", kind="final", decided_by="llm")


def late_s(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Within which of the histogram's bounds such a share of the timers was."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    return next(bound for bound, count in counts.items() if count >= share * counts[math.inf])


async def lane(stack: Stack, folder: Path, events: int, given: argparse.Namespace, bare_per_s: float) -> list[Row]:
    """The worker's CPU with everything in flight that may be, and its lag at half the bare client's rate."""
    worker = LaneWorker(stack, folder, given.in_flight)
    await worker.start()
    try:
        cpu_s, began_s = worker.process.cpu_s(), time.perf_counter()
        await worker.answer(events)
        took_s, cpu_s = time.perf_counter() - began_s, worker.process.cpu_s() - cpu_s
        busy: Row = {"way": "the lane on Kafka", "answers_per_s": round(events / took_s, 1)}
        busy["cpu_ms_per_answer"] = round(cpu_s * 1000 / events, 3)
        before = worker.lags()
        with Pauses(CHECK_S) as idle:
            await worker.fed(bare_per_s / 2, given.seconds)
        after = worker.lags()
        half: Row = {"way": "the lane at half the rate", "answers_per_s": round(bare_per_s / 2, 1)}
        half["timers"] = int(after[math.inf] - before[math.inf])
        half["loop_lag_p99_below_s"] = late_s(before, after, 0.99)
        half["loop_lag_max_below_s"] = late_s(before, after, 1.0)
        half["idle_thread_p99_s"] = round(idle.p99_s, 4)
        return [busy, half]
    finally:
        worker.process.end()


def misses(bare_cpu_ms: float, busy: Row, half: Row) -> list[str]:
    """The bars that were missed."""
    times, lag_s = float(busy["cpu_ms_per_answer"]) / bare_cpu_ms, float(half["loop_lag_p99_below_s"])
    held = {
        f"CPU an answer is {times:.2f} times the bare client's": times <= CPU_TIMES_MAX,
        f"the 99th of 100 timers is more than {LAG_P99_MAX_S} s late (below {lag_s} s)": lag_s <= LAG_P99_MAX_S,
    }
    return [text for text, holds in held.items() if not holds]


async def main(given: argparse.Namespace) -> int:
    options = StandInOptions(latency_median_ms=given.latency_ms, latency_sigma=0.3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Stack.start(folder / "stack", triton=False, llm_options=options) as stack:
            asked = requests(given.events)
            calm_garbage_collector()  # as the worker does: it makes both clients cheaper
            base_url = stack.llm_base_url
            await adapter(base_url, asked[:WARM_EVENTS], given.in_flight)  # imports and caches are warm for both
            rows = [
                await bare(base_url, asked, given.in_flight),
                await adapter(base_url, asked, given.in_flight),
            ]
            for row in rows:
                print(json.dumps(row), flush=True)
            bare_per_s, bare_cpu_ms = float(rows[0]["answers_per_s"]), float(rows[0]["cpu_ms_per_answer"])
            rows = await lane(stack, folder, given.events, given, bare_per_s)
            for row in rows:
                print(json.dumps(row), flush=True)
    missed = misses(bare_cpu_ms, *rows)
    print(json.dumps({**vars(given), "misses": missed, "load_1m": round(os.getloadavg()[0], 1)}))
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=6_000)
    parser.add_argument("--in-flight", type=int, default=1_000)
    parser.add_argument("--latency-ms", type=float, default=1_000)
    parser.add_argument("--seconds", type=float, default=30, help="at half the bare client's rate")
    raise SystemExit(asyncio.run(main(parser.parse_args())))

"""A share that is held through a shift to another domain: real texts, the shipped models, the stream's own decisions.

    SHUNT_DATA=DIR python -m benchmarks.share [--events 20000] [--share 0.2] [--tiers sentiment_fast] [--then FILE]

Calibrates `escalate_max` on half A of `imdb_llm_calibration` (film reviews) with the shipped models on a real
Triton, then sends 20,000 events through the live lane on real Kafka: first film reviews of half B, then texts of
another kind (product reviews for validation), each as often as it takes. Counts what was escalated of the whole, of
each part and of every thousand events; beside it what the policy's cut would have escalated if it stood still. Exits
1 where the whole is off by more than half a point.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks.evaluation_data import evaluation_data
from stream_app.classify.start import classify_lane
from stream_app.classify.triton import TritonModels
from stream_app.codec import decode_escalation
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.kafka.topics import create, plan
from stream_app.local.demo.config import shipped_models_path
from stream_app.local.stack import Stack
from stream_app.routing.policy import dump_policy, load_policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Settings, Task
from stream_app.telemetry import Metrics
from stream_app.training.calibrate import calibrate_on, merged
from stream_app.training.fitted import Terms
from stream_app.training.recorded import read_recorded
from stream_app.training.scoring import route_scored, score

PARTITIONS = 3
OFF_MAX = 0.005
WINDOW = 1_000
MADE_AT = "2026-11-20T09:00:00Z"
TIMEOUT_S = 60.0


def texts_of(data: Path, events: int, then: str) -> list[str]:
    """The first half of the events from half B of the film reviews, the rest from the file `then`."""
    films = read_recorded(data / "imdb_llm_calibration.jsonl.gz", "sentiment", "B").rows
    with gzip.open(data / f"{then}.jsonl.gz", "rt", encoding="utf-8") as lines:
        others = [row["text"] for row in map(json.loads, lines) if row.get("style") in {None, "raw"}]
    first = islice(cycle(row.text for row in films), events // 2)
    return [*first, *islice(cycle(others), events - events // 2)]


async def calibrated(data: Path, models: TritonModels, task: Task, file: Path) -> None:
    """Writes the policy that holds the task's share, from half A alone."""
    films = read_recorded(data / "imdb_llm_calibration.jsonl.gz", task.name, "A")
    made = await calibrate_on(models, task, [films], Terms(0.05, MADE_AT), lambda _: None)
    file.write_bytes(dump_policy(merged(None, "share", task.name, made.task, MADE_AT)))


async def streamed(settings: Settings, texts: list[str]) -> list[bool]:
    """Who was escalated, in the order of `texts`, as the live lane decided."""
    connection = Connection(settings.kafka)
    await create(connection, plan(settings.kafka, None, partitions=PARTITIONS))
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    await producer.start()
    for number, text in enumerate(texts):
        value = json.dumps({"id": str(number), "text": text}).encode()
        await producer.send(settings.kafka.input_topic, value, partition=number % PARTITIONS)
    await producer.stop()
    metrics, stop = Metrics(), asyncio.Event()
    async with classify_lane(settings, metrics) as lane:
        running = asyncio.create_task(lane.run(stop))
        while sum(found.committed or 0 for found in metrics.progress("classify").values()) < len(texts):
            if running.done():
                running.result()
            await asyncio.sleep(0.05)
        stop.set()
        await running
    names, escalated = settings.kafka.names, [False] * len(texts)
    async for batch in read_topic(connection, names.escalations, to_end=True):
        for record in batch:
            place = decode_escalation(record.headers).escalation.source
            escalated[place.offset * PARTITIONS + place.partition] = True
    return escalated


async def fixed_share(models: TritonModels, settings: Settings, texts: list[str], policy_file: Path) -> float:
    """What the policy's cut alone would escalate of distinct texts, standing still."""
    (task,) = settings.tasks
    served = {name: await models.describe(name) for name in task.models}
    (router,) = task_routers([task], served, load_policy(policy_file.read_bytes()))
    scores = {name: await score(models, model, texts, lambda _: None) for name, model in served.items()}
    return float((~route_scored(replace(router, share=None), texts, scores).accepted).mean())


async def measure(data: Path, events: int, share: float, tiers: tuple[str, ...], then: str) -> dict[str, object]:
    """The figures of one run."""
    task = Task(name="sentiment", tiers=tiers, escalate_max=share)
    texts = texts_of(data, events, then)
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.json"
        async with Stack.start(
            Path(folder) / "stack", llm=False, model_repository=shipped_models_path(), load_models=list(task.models)
        ) as stack:
            kafka = {"bootstrap_servers": stack.bootstrap_servers, "input_topic": "share", "group": "share"}
            settings = Settings.model_validate(
                {"kafka": kafka, "triton": {"url": stack.triton_grpc}, "tasks": [task], "policy": {"file": policy}}
            )
            async with TritonModels.connect(stack.triton_grpc, TIMEOUT_S) as models:
                await calibrated(data, models, task, policy)
                fixed = [
                    await fixed_share(models, settings, part, policy)
                    for part in (texts[: events // 2][:2_000], texts[events // 2 :][:2_000])
                ]
            escalated = np.array(await streamed(settings, texts))
    halves = escalated[: events // 2], escalated[events // 2 :]
    windows = [float(escalated[at : at + WINDOW].mean()) for at in range(0, events, WINDOW)]
    return {
        "events": events,
        "escalate_max": share,
        "escalated_share": float(escalated.mean()),
        "films": float(halves[0].mean()),
        then: float(halves[1].mean()),
        "windows_least": min(windows),
        "windows_most": max(windows),
        "fixed_cut_films": fixed[0],
        f"fixed_cut_{then}": fixed[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--tiers", nargs="+", default=["sentiment_fast"])
    parser.add_argument("--then", default="product_reviews_validation")
    given = parser.parse_args()
    data = evaluation_data()
    found = asyncio.run(measure(data, given.events, given.share, tuple(given.tiers), given.then))
    print(json.dumps(found))
    return 0 if abs(float(str(found["escalated_share"])) - given.share) <= OFF_MAX else 1


if __name__ == "__main__":
    sys.exit(main())

"""The hot path against the bare loop, in one run: records/s and CPU a record.

Both read the same topic (200-byte values, six partitions) with one worker, exactly once. The bare loop is
aiokafka alone: consume, copy, one transaction a batch and partition; no decoding, no model, no decision. The hot
path decodes, asks the echo model in a real Triton, decides and writes full decisions with all their headers.

    python benchmarks/hot_path.py [--records 600000]

Prints one line of JSON for each and the two ratios. Each runs in a process of its own; broker and Triton share
the machine's cores with it. CPU is the worker process's own (user + system).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata

from stream_app.classify.start import classify_lane
from stream_app.collector import calm_garbage_collector, give_memory_back
from stream_app.kafka.connection import Connection
from stream_app.local.stack import Stack
from stream_app.settings import Kafka, Settings, Task
from stream_app.telemetry import Metrics

ROOT = Path(__file__).parent.parent
PARTITIONS = 6
VALUE_BYTES = 200
BARE_BATCH = 16_384


def value(number: int) -> bytes:
    """A JSON event of exactly 200 bytes."""
    head = f'{{"id":"r-{number:08d}","product":"B{number % 1000:05d}","stars":{number % 5 + 1},"text":"'
    body = "a kettle that boils fast and pours well, bought it again for a friend "
    room = VALUE_BYTES - len(head) - 2
    return (head + (body * 4)[:room] + '"}').encode()


async def fill(bootstrap: str, topic: str, records: int) -> None:
    """Creates the topics and writes the input."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    planned = Kafka(input_topic=topic).names.model_dump(exclude={"control", "audit_results"}).values()
    names = [*planned, f"{topic}-bare"]
    compact = NewTopic(f"{topic}-control", 1, 1, topic_configs={"cleanup.policy": "compact"})
    results = NewTopic(f"{topic}-audit-results", 1, 1)
    await admin.create_topics([*(NewTopic(name, PARTITIONS, 1) for name in names), results, compact])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=512 * 1024, acks=1)
    await producer.start()
    number = 0
    while number < records:
        for partition in range(PARTITIONS):
            batch = producer.create_batch()
            while number < records:
                key = f"r-{number}".encode()
                if (
                    batch.append(timestamp=None, key=key, value=value(number)) is None
                    or batch.record_count() >= 2_000
                ):
                    break
                number += 1
            await (await producer.send_batch(batch, topic, partition=partition))
    await producer.stop()


class Stopwatch:
    """Counts from the first record, so that joining the group and importing are left out on both sides."""

    def __init__(self) -> None:
        self.started_s = 0.0
        self.cpu_before_s = 0.0

    def start(self) -> None:
        """The first record is here."""
        if not self.started_s:
            self.started_s = time.perf_counter()
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.cpu_before_s = used.ru_utime + used.ru_stime

    def report(self, name: str, records: int) -> None:
        """One line of JSON for the parent."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used.ru_utime + used.ru_stime - self.cpu_before_s
        seconds = time.perf_counter() - self.started_s
        print(json.dumps({"name": name, "records": records, "seconds": seconds, "cpu_s": cpu_s}), flush=True)


async def bare(bootstrap: str, topic: str, records: int, compression: str) -> None:
    """aiokafka alone: a transactional producer and a chain of transactions for each partition."""
    connection = Connection(Kafka(bootstrap_servers=bootstrap, input_topic=topic, compression=compression))
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"{topic}-bare",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    while not consumer.assignment():
        await asyncio.sleep(0.05)
    producers = {}
    for tp in consumer.assignment():
        producers[tp] = connection.transactional_producer(f"{topic}-bare:{tp.partition}")
        await producers[tp].start()
    watch, done, running = Stopwatch(), 0, {}

    async def copy(tp, found, after) -> None:
        if after is not None:
            await after
        producer = producers[tp]
        await producer.begin_transaction()
        futures, builder = [], producer.create_batch()
        for record in found:
            if builder.append(timestamp=None, key=record.key, value=record.value) is None:
                futures.append(await producer.send_batch(builder, f"{topic}-bare", partition=tp.partition))
                builder = producer.create_batch()
                builder.append(timestamp=None, key=record.key, value=record.value)
        futures.append(await producer.send_batch(builder, f"{topic}-bare", partition=tp.partition))
        await asyncio.gather(*futures)
        await producer.send_offsets_to_transaction({tp: OffsetAndMetadata(found[-1].offset + 1, "")}, f"{topic}-bare")
        await producer.commit_transaction()

    while done < records:
        fetched = await consumer.getmany(timeout_ms=200, max_records=BARE_BATCH)
        for tp, found in fetched.items():
            watch.start()
            running[tp] = asyncio.create_task(copy(tp, found, running.get(tp)))
            done += len(found)
    await asyncio.gather(*running.values())
    watch.report("bare", records)
    for producer in producers.values():
        await producer.stop()
    await consumer.stop()


async def shunt(bootstrap: str, triton: str, topic: str, records: int) -> None:
    """The hot path as a worker runs it."""
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": bootstrap, "input_topic": topic, "group": topic},
            "triton": {"url": triton},
            "tasks": [Task(name="sentiment", tiers=("echo",), threshold=0.5)],
        }
    )
    give_memory_back()  # both as a worker does at its start
    calm_garbage_collector()
    metrics, stop, watch = Metrics(), asyncio.Event(), Stopwatch()
    async with classify_lane(settings, metrics) as lane:
        running = asyncio.create_task(lane.run(stop))
        while True:
            # From the first record that has come; what is public tells only of those that are committed.
            if any(feed.partition.position > 0 for feed in lane._feeds.values()):  # noqa: SLF001 - see above
                watch.start()
            done = sum(found.committed or 0 for found in metrics.progress("classify").values())
            if done >= records:
                break
            if running.done():
                running.result()
            await asyncio.sleep(0.01)
        watch.report("shunt", records)
        stop.set()
        await running


def run_part(part: str, *arguments: str) -> dict[str, float]:
    """Runs one side in a process of its own and reads its line."""
    command = [sys.executable, __file__, "--part", part, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


async def compare(records: int, rounds: int, bare_compression: str) -> None:
    """Bare, shunt, bare, shunt, ...: the median of the ratios of neighbours."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack.start(
            Path(folder), llm=False, model_repository=ROOT / "tests" / "models", load_models=["echo"]
        ) as stack:
            found: dict[str, list[dict[str, float]]] = {"bare": [], "shunt": []}
            for number in range(rounds):
                topic = f"bench-{number}"
                await fill(stack.bootstrap_servers, topic, records)
                common = ["--records", str(records), "--bootstrap", stack.bootstrap_servers, "--topic", topic]
                common += ["--bare-compression", bare_compression]
                for part in ("bare", "shunt"):
                    result = await asyncio.to_thread(run_part, part, *common, "--triton", stack.triton_grpc)
                    found[part].append(result)
                    rate = records / result["seconds"]
                    cpu_us = result["cpu_s"] / records * 1e6
                    print(
                        json.dumps({"side": part, "records_per_s": round(rate), "cpu_us_a_record": round(cpu_us, 2)})
                    )
    pairs = list(zip(found["bare"], found["shunt"], strict=True))
    print(
        json.dumps(
            {
                "rate_ratio": round(statistics.median(bare["seconds"] / own["seconds"] for bare, own in pairs), 3),
                "rate_ratio_bar": 0.35,
                "cpu_ratio": round(statistics.median(own["cpu_s"] / bare["cpu_s"] for bare, own in pairs), 2),
                "cpu_ratio_bar": 4.0,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bare-compression", default="none", help="of the bare loop's output; aiokafka's default: none"
    )
    parser.add_argument("--part")
    parser.add_argument("--bootstrap")
    parser.add_argument("--triton")
    parser.add_argument("--topic")
    given = parser.parse_args()
    if given.part == "bare":
        asyncio.run(bare(given.bootstrap, given.topic, given.records, given.bare_compression))
    elif given.part == "shunt":
        asyncio.run(shunt(given.bootstrap, given.triton, given.topic, given.records))
    else:
        asyncio.run(compare(given.records, given.rounds, given.bare_compression))


if __name__ == "__main__":
    main()

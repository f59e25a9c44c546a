"""The whole pipeline on real film reviews with a real LLM's recorded answers, counted by readers that are not ours.

    SHUNT_DATA=... python benchmarks/half_b.py [--records N] [--kill]

Runs `shunt demo --input` with half B of `imdb_llm_calibration` and `--llm-replay` on that file (the recorded
answers of gpt-3.5-turbo-1106), on real Kafka and real Triton. While Kafka still stands, confluent-kafka and
Kafka's own console consumer, both read-committed, count the finals and dead letters of every record. Prints one
JSON object; exits 1 if a record has no outcome or two, if the readers disagree, or a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from stream_app.local.demo.audit import audit
from stream_app.local.demo.options import DemoOptions
from stream_app.local.demo.runner import Demo
from stream_app.local.demo.screen import Screen, console

if TYPE_CHECKING:
    from stream_app.settings import Settings

LLM = "gpt-3.5-turbo-1106"
ESCALATED_MAX, GAIN_MIN = 0.25, 0.015


def half_b(data: Path, target: Path) -> int:
    """Writes the rows whose group's sha-256 begins with 8 to f; how many."""
    count = 0
    with gzip.open(data / "imdb_llm_calibration.jsonl.gz", "rt", encoding="utf-8") as rows, target.open("w") as out:
        for line in rows:
            row = json.loads(line)
            if int(hashlib.sha256(row["group"].encode()).hexdigest()[0], 16) >= 8:
                out.write(line)
                count += 1
    return count


def closing_sources(bootstrap_servers: str, topics: tuple[str, ...]) -> Counter[str]:
    """How often each source is closed by a final, a tombstone or a dead letter, as confluent-kafka reads it."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"count-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for topic in topics
        for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ]
    consumer.assign(partitions)
    found: Counter[str] = Counter()
    ended = 0
    while ended < len(partitions):
        for message in consumer.consume(1_000, 1.0):
            if message.error():
                ended += 1
                continue
            headers = dict(message.headers() or [])
            if headers.get("kind", b"final") == b"final":
                found[headers["shunt-source"].decode()] += 1
    consumer.close()
    return found


class CountedDemo(Demo):
    """A demo that lets others count before it goes."""

    counted: dict[str, Any]

    async def _balance(self, connection: Any, settings: Settings, sent: Any, *more: Any) -> Any:
        names = settings.kafka.names
        topics = (names.decisions, names.dlq)
        times = await asyncio.to_thread(closing_sources, settings.kafka.bootstrap_servers, topics)
        console_count = await audit(settings.kafka, len(sent))
        self.counted = {
            "sent": len(sent),
            "confluent": {
                "closing": times.total(),
                "lost": len(sent) - len(times),
                "duplicated": times.total() - len(times),
            },
            "console_consumer": {
                "closing": console_count.closing,
                "lost": console_count.lost,
                "duplicated": console_count.duplicated,
            },
        }
        return await super()._balance(connection, settings, sent, *more)


def main() -> int:
    """Runs it; the exit status says whether every line held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int)
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    data = Path(os.environ["SHUNT_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "half_b.jsonl"
        half_b(data, rows)
        options = DemoOptions(
            records=given.records, input=rows, replay=rows, llm_names=(LLM,), exit=True, kill=given.kill
        )
        demo = CountedDemo(options, Screen(console(stderr=True)))
        told = asyncio.run(demo.run()).told
    counted = demo.counted
    share = told["escalated"] / told["events"]
    gain = told["accuracy"] - told["small_accuracy"]
    holds = {
        "one outcome each": all(
            counted[who]["lost"] == counted[who]["duplicated"] == 0 for who in ("confluent", "console_consumer")
        ),
        "readers agree": counted["confluent"] == counted["console_consumer"],
        "summary agrees": told["decisions"] + told["dlq"] == counted["confluent"]["closing"],
        f"escalated at most {ESCALATED_MAX:.0%}": share <= ESCALATED_MAX,
        f"gain at least {GAIN_MIN:.1%}": gain >= GAIN_MIN,
    }
    shown = {"escalated_share": round(share, 4), "gain": round(gain, 4)}
    print(json.dumps({**told, **shown, "counted": counted, "holds": holds}))
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

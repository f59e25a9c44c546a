"""`shunt feedback` on real Kafka, as a process: each label once, however often it is run and killed."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from stream_app.codec import Codec
from stream_app.events import Answer, Decision, Event, Kind, Source
from stream_app.settings import Events
from tests.kafka.reading import read_all

from .command import command, environment
from .test_on_kafka import pipeline  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from .test_on_kafka import Pipeline

PARTITIONS = 3


def decide(made: Pipeline, count: int) -> list[dict]:
    """Finals for so many events, and what a person says of each."""
    producer = Producer({"bootstrap.servers": made.kafka.bootstrap_servers})
    codec, rows = Codec(Events(), made.topic), []
    for number in range(count):
        partition = number % PARTITIONS
        source = Source(made.topic, partition, number // PARTITIONS, int(time.time() * 1000))
        event = Event(f"r-{number}", "x", b"{}", source, b"k")
        answers = {"sentiment": Answer("good", 0.95, {"good": 0.95, "bad": 0.05}, 0.9, "small", "echo:1", False)}
        value, headers = codec.encode_decision(
            Decision(event, Kind.FINAL, 0, "small", answers, None, certified=False, decided_at_ms=5)
        )
        producer.produce(
            made.kafka.names.decisions, value=value, key=b"k", partition=partition, headers=list(headers)
        )
        told = {"topic": source.topic, "partition": partition, "offset": source.offset}
        rows.append({"id": event.id, "text": f"text {number}", "source": told, "labels": {"sentiment": "bad"}})
    assert producer.flush(30) == 0
    return rows


def write(folder: Path, rows: list[dict], name: str = "labels.jsonl") -> str:
    """The file a person filled in."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.fixture
def made(pipeline: Pipeline) -> Pipeline:  # noqa: F811 - the fixture
    """Its topics exist."""
    assert pipeline.shunt("topics", "create", "--partitions", str(PARTITIONS)).status == 0
    return pipeline


def verdicts(made: Pipeline) -> Counter[tuple[str, str]]:
    """Record and label of every verdict that counts."""
    messages = read_all(made.kafka.bootstrap_servers, made.kafka.names.verdicts)
    told = [json.loads(message.value()) for message in messages if message.key() != b"opened"]
    return Counter((one["ref"], one["label"]) for one in told)


def kept(made: Pipeline) -> Counter[tuple[str, str]]:
    """Id and label of every row that counts."""
    rows = [json.loads(one.value()) for one in read_all(made.kafka.bootstrap_servers, made.kafka.names.feedback)]
    return Counter((row["id"], row["label"]) for row in rows)


def test_labels_are_sent_once_and_refusals_are_named(made: Pipeline) -> None:
    """A dry run sends nothing, the first run everything, the second nothing more; what cannot be sent is status 1."""
    rows = decide(made, 6)
    file = write(made.folder, rows)
    rehearsed = made.json_lines("feedback", file, "--dry-run", "--json")
    assert Counter(row["result"] for row in rehearsed) == {"would_be_sent": 6}
    assert not verdicts(made)
    assert Counter(row["result"] for row in made.json_lines("feedback", file, "--json")) == {"sent": 6}
    assert Counter(row["result"] for row in made.json_lines("feedback", file, "--json")) == {"said_before": 6}
    changed = [{**rows[0], "labels": {"sentiment": "good"}}, {"id": "r-99", "text": "x", "label": "bad"}]
    ran = made.shunt("feedback", write(made.folder, changed, "more.jsonl"))
    assert ran.status == 1
    assert "1 labels sent" in ran.out
    assert "1 of 2 labels were not sent" in ran.err
    assert "no final decision about r-99" in ran.err
    wanted = Counter({(f"{made.topic}/{n % PARTITIONS}/{n // PARTITIONS}", "bad"): 1 for n in range(6)})
    assert verdicts(made) == wanted + Counter({(f"{made.topic}/0/0", "good"): 1})
    assert kept(made) == Counter({(f"r-{n}", "bad"): 1 for n in range(6)}) + Counter({("r-0", "good"): 1})


def uncommitted(made: Pipeline) -> int:
    """How much stands on the feedback topic, transactions under way included."""
    consumer = Consumer({"bootstrap.servers": made.kafka.bootstrap_servers, "group.id": "ends"})
    try:
        places = [TopicPartition(made.kafka.names.feedback, number) for number in range(PARTITIONS)]
        return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
    finally:
        consumer.close()


def test_a_kill_in_the_middle_loses_and_doubles_nothing(made: Pipeline) -> None:
    """Killed -9 while it sends, three times over, then run to its end: each label is there once, with its row."""
    rows = decide(made, 6_000)
    file = write(made.folder, rows)
    struck = 0
    for _ in range(3):
        before = uncommitted(made)
        running = subprocess.Popen(
            [*command("feedback", file)], cwd=made.folder, env=environment(), stdout=subprocess.DEVNULL
        )
        while running.poll() is None and uncommitted(made) == before:
            time.sleep(0.01)
        running.kill()
        struck += running.wait() != 0
    assert struck >= 1, "it was never caught in the middle"
    told = made.json_lines("feedback", file, "--json")
    assert {row["result"] for row in told} <= {"sent", "said_before"}
    assert verdicts(made) == Counter(
        {(f"{made.topic}/{n % PARTITIONS}/{n // PARTITIONS}", "bad"): 1 for n in range(len(rows))}
    )
    assert kept(made) == Counter({(row["id"], "bad"): 1 for row in rows})

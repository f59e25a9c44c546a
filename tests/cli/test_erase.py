"""`shunt erase`: an event leaves training and gets its tombstone, once, and nobody else's key does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from stream_app.cli.feedback_topic import FeedbackRead, read_feedback_topic
from stream_app.codec import encode_feedback
from stream_app.events import Feedback, SmallOpinion, Source
from stream_app.settings import Settings
from tests.kafka.reading import read_all

from .command import command, environment
from .test_on_kafka import pipeline  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from .test_on_kafka import Pipeline

NOW_MS = int(time.time() * 1000)


def row(event_id: str, topic: str = "reviews", came_ms: int = NOW_MS - 60_000) -> Feedback:
    """A label of an event that came then."""
    small = SmallOpinion("good", 0.6, {"good": 0.6, "bad": 0.4}, "echo:1")
    source = Source(topic, 0, 0, came_ms)
    return Feedback(event_id, "sentiment", "x", "bad", "llm", "escalated", "gpt", small, None, 0, source, NOW_MS)


def test_a_label_that_comes_late_is_erased_too() -> None:
    """The event was with the LLM when it was erased; one that comes afterwards is another event."""
    found = FeedbackRead()
    for one, written_ms in ((row("a"), NOW_MS), (row("b"), NOW_MS)):
        found.fold_feedback(one.id.encode(), encode_feedback(one)[1], written_ms)
    found.fold_feedback(b"a", None, NOW_MS + 10)
    found.fold_feedback(b"a", encode_feedback(row("a"))[1], NOW_MS + 20)
    assert [one.id for one in found.feedback] == ["b"]
    later = replace(row("a"), source=replace_ms(row("a").source, NOW_MS + 30))
    found.fold_feedback(b"a", encode_feedback(later)[1], NOW_MS + 40)
    assert [one.id for one in found.feedback] == ["b", "a"]


def replace_ms(source: Source, at_ms: int) -> Source:
    return Source(source.topic, source.partition, source.offset, at_ms)


@pytest.fixture
def made(pipeline: Pipeline) -> Pipeline:  # noqa: F811 - the fixture
    """Events with a key of their own, with one that two share, and without any; two have a label."""
    assert pipeline.shunt("topics", "create", "--partitions", "2").status == 0
    producer = Producer({"bootstrap.servers": pipeline.kafka.bootstrap_servers})
    events = (("own", b"k-own", 1), ("one", b"k-shared", 0), ("two", b"k-shared", 0), ("none", None, 1))
    for name, key, partition in events:
        value = json.dumps({"id": name, "text": f"text of {name}"}).encode()
        producer.produce(pipeline.topic, value=value, key=key, partition=partition)
    for name in ("own", "two"):
        key, value, headers = encode_feedback(row(name, pipeline.topic))
        producer.produce(pipeline.kafka.names.feedback, value=value, key=key, partition=0, headers=list(headers))
    assert producer.flush(30) == 0
    return pipeline


def input_tombstones(made: Pipeline) -> list[tuple[bytes, int]]:
    """Key and partition of each."""
    messages = read_all(made.kafka.bootstrap_servers, made.topic)
    return [(message.key(), message.partition()) for message in messages if message.value() is None]


def classified(made: Pipeline, records: int) -> list:
    """What the hot path makes of the input, in a process of its own."""
    running = subprocess.Popen(command("run", "classify"), cwd=made.folder, env=environment())
    try:
        deadline_s = time.monotonic() + 90
        while len(found := read_all(made.kafka.bootstrap_servers, made.kafka.names.decisions)) < records:
            assert time.monotonic() < deadline_s
            assert running.poll() is None
            time.sleep(0.5)
    finally:
        running.terminate()
        running.wait()
    return found


def test_an_event_is_erased_once(made: Pipeline) -> None:
    """A dry run writes nothing; then one tombstone under its own key, on its partition, however often it is run; it
    comes out on the decisions topic once; its labels train nobody, the others' do."""
    (dry,) = made.json_lines("erase", "--id", "own", "--dry-run", "--json")
    assert (dry["records"], dry["tombstones"], input_tombstones(made)) == (1, 1, [])
    made.json_lines("erase", "--id", "own", "--json", "--list", "erased.jsonl")
    (again,) = made.json_lines("erase", "--id", "own", "--json")
    assert again["tombstones"] == 0
    assert input_tombstones(made) == [(b"k-own", 1)]
    assert json.loads((made.folder / "erased.jsonl").read_text()) == {"id": "own"}
    settings = Settings(kafka=made.kafka, tasks=({"name": "sentiment", "tiers": ("echo",), "threshold": 0.9},))
    assert [one.id for one in asyncio.run(read_feedback_topic(settings)).feedback] == ["two"]
    assert not {one["id"] for one in made.json_lines("sample")} & {"own"}
    decided = classified(made, 5)
    gone = [(message.key(), message.partition()) for message in decided if message.value() is None]
    assert gone == [(b"k-own", 1)]
    finals = Counter(json.loads(message.value())["id"] for message in decided if message.value() is not None)
    assert finals == {"own": 1, "one": 1, "two": 1, "none": 1}


def test_what_has_no_key_of_its_own_gets_no_tombstone(made: Pipeline) -> None:
    """Somebody else's records must not be deleted with it; it says so."""
    (shared,) = made.json_lines("erase", "--id", "one", "--json")
    assert (shared["tombstones"], shared["shared_keys"]) == (0, 1)
    ran = made.shunt("erase", "--id", "none")
    assert "1 of its records have no key" in ran.out
    assert input_tombstones(made) == []

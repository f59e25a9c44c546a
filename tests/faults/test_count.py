"""The independent count must be able to fail: each breach, made by hand, is found under its own name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.faults import count as counting
from tests.faults.count import count
from tests.faults.feed import record
from tests.kafka.reading import produce


@pytest.fixture
def topics(make_topic, unique_name, stack):
    """Names of input, decisions and DLQ; ten records and one that is no event stand in the input."""
    name = unique_name("counted")
    names = [make_topic(name=name + suffix, partitions=2) for suffix in ("", "-decisions", "-dlq")]
    values = [record(f"r-{number}", "good", number) for number in range(10)] + [b"no JSON"]
    produce(stack.bootstrap_servers, names[0], values, keys=[b"k"] * 11)
    return names


def decision(
    topic: str, offset: int, *, kind="final", revision=0, ident=None, meta=None, partition=0, degraded=False
) -> dict:
    """A decision as a consumer sees it, with where it goes."""
    whole = record("", "", offset).partition(b'"meta":')[2][:-1]
    value = json.dumps({"id": ident or f"r-{offset}", "kind": kind, "revision": revision, "decided_by": "small"})[:-1]
    replaces = revision - 1 if kind == "correction" else None
    value += f', "degraded": {json.dumps(degraded)}, "replaces": {json.dumps(replaces)}'
    value += f', "source": {json.dumps({"topic": topic, "partition": 0, "offset": offset})}'
    value += f', "payload": {{"meta":{(meta or whole).decode()}}}}}'
    return {"value": value.encode(), "key": b"k", "partition": partition, "source": f"{topic}/0/{offset}"}


def write(stack, names: list[str], decisions: list[dict], letters: list[dict]) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    for topic, entries in ((names[1], decisions), (names[2], letters)):
        for entry in entries:
            producer.produce(
                topic,
                entry["value"],
                entry["key"],
                partition=entry["partition"],
                headers=[("shunt-source", entry["source"].encode())],
            )
    assert producer.flush(20) == 0


def sound(topic: str) -> tuple[list[dict], list[dict]]:
    letter = {"value": b"no JSON", "key": b"k", "partition": 0, "source": f"{topic}/0/10"}
    return [decision(topic, offset) for offset in range(10)], [letter]


def spoil(breach: str, topic: str) -> tuple[list[dict], list[dict]]:
    """What a pipeline that breaks its promise in that way leaves behind."""
    decisions, letters = sound(topic)
    match breach:
        case "lost":
            del decisions[4]
        case "duplicated":
            letters.append(letters[0])
        case "altered":
            decisions[3] = decision(topic, 3, meta=b'{"n": 3}')
        case "altered id":
            decisions[3] = decision(topic, 3, ident="r-4")
        case "altered letter":
            letters[0]["value"] = b"no JSON "
        case "disordered":
            decisions[2], decisions[3] = decisions[3], decisions[2]
        case "disordered revisions":
            decisions[5] = decision(topic, 5, revision=1)
            decisions.append(decision(topic, 5, kind="provisional"))
        case "disordered partitions":
            decisions[5:6] = [
                decision(topic, 5, kind="provisional", partition=1),
                decision(topic, 5, revision=1),
            ]
        case "duplicated provisionals":
            decisions[5:6] = [
                decision(topic, 5, kind="provisional"),
                decision(topic, 5, kind="provisional"),
                decision(topic, 5, revision=1),
            ]
        case "duplicated corrections":
            decisions[5:6] = [
                decision(topic, 5, degraded=True),
                decision(topic, 5, kind="correction", revision=1),
                decision(topic, 5, kind="correction", revision=1),
            ]
        case "disordered correction":
            decisions[5:6] = [
                decision(topic, 5, kind="correction", revision=1),
                decision(topic, 5, degraded=True),
            ]
        case "disordered correction of nothing degraded":
            decisions.append(decision(topic, 5, kind="correction", revision=1))
        case "disordered correction elsewhere":
            decisions[5:6] = [
                decision(topic, 5, degraded=True),
                decision(topic, 5, kind="correction", revision=1, partition=1),
            ]
        case "foreign":
            decisions.append(decision(topic, 77))
    return decisions, letters


@pytest.mark.parametrize(
    "breach",
    ["lost", "duplicated", "altered", "altered id", "altered letter", "disordered", "disordered revisions",
     "disordered partitions", "duplicated provisionals", "duplicated corrections", "disordered correction",
     "disordered correction of nothing degraded", "disordered correction elsewhere", "foreign"],
)  # fmt: skip
def test_each_breach_is_found(stack, topics, breach):
    """A count that finds nothing must mean that nothing is wrong."""
    write(stack, topics, *spoil(breach, topics[0]))
    assert breach.split()[0] in count(stack.bootstrap_servers, *topics).breaches


def test_a_sound_pipeline_has_no_breach(stack, topics):
    """Ten finals and a dead letter for eleven records; one of the finals was degraded, and is corrected."""
    decisions, letters = sound(topics[0])
    decisions[5] = decision(topics[0], 5, degraded=True)
    decisions.append(decision(topics[0], 5, kind="correction", revision=1))
    write(stack, topics, decisions, letters)
    found = count(stack.bootstrap_servers, *topics)
    assert found.breaches == {}
    assert (found.records, found.finals, found.dead_letters, found.corrections) == (11, 10, 1, 1)


def test_the_count_shares_no_code_with_the_project():
    """What is wrong in the project must not be wrong in the count in the same way."""
    for module in (counting.__file__, "tests/kafka/reading.py"):
        source = (Path(__file__).parent.parent.parent / module).read_text()
        assert "stream_app" not in source.replace("Nothing of `stream_app` is imported here", "")

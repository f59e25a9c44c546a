"""The hot path on real Kafka and real Triton: every record has exactly one outcome, and the right one."""

from __future__ import annotations

import asyncio
import json

import pytest

from stream_app.classify.start import classify_lane
from stream_app.codec import decode_dead_letter, decode_escalation
from stream_app.errors import UnreadableTopic
from stream_app.telemetry import Metrics
from tests.classify.lanes import caught_up, classifying, pipeline
from tests.kafka.reading import committed_and_end, produce, read_all


def event(number: int, text: str, **more) -> bytes:
    return json.dumps({"id": f"r-{number}", "text": text, "n": number, **more}).encode()


def headers_of(message) -> dict[str, bytes]:
    return dict(message.headers() or [])


async def test_every_event_is_decided_or_escalated_once(stack, make_topic, unique_name):
    """Sure answers go to the decisions topic in their partition's order, unsure ones to the escalations."""
    settings = pipeline(stack, make_topic, unique_name)
    names = settings.kafka.names
    words = ["good", "bad", "unsure"]
    values = [event(number, f"it is {words[number % 3]}") for number in range(3_000)]
    keys = [f"k{number % 50}".encode() for number in range(3_000)]
    produce(stack.bootstrap_servers, names.input, values, partitions=3, keys=keys)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    finals = read_all(stack.bootstrap_servers, names.decisions)
    escalations = read_all(stack.bootstrap_servers, names.escalations)
    decided = [json.loads(message.value()) for message in finals]
    assert {d["id"] for d in decided} == {f"r-{n}" for n in range(3_000) if n % 3 != 2}
    assert len(decided) == 2_000
    assert {d["answers"]["sentiment"]["label"] for d in decided if int(d["id"][2:]) % 3 == 0} == {"positive"}
    for message, decision in zip(finals, decided, strict=True):
        assert message.partition() == decision["source"]["partition"]
        assert message.key() == keys[decision["payload"]["n"]]
        assert headers_of(message)["kind"] == b"final"
        assert headers_of(message)["ce_id"].decode().endswith(f"/{decision['source']['offset']}#0")
    for number in range(3):
        offsets = [d["source"]["offset"] for d in decided if d["source"]["partition"] == number]
        assert offsets == sorted(offsets)
    assert len(escalations) == 1_000
    for message in escalations:
        record = decode_escalation(message.headers())
        assert message.value() == values[json.loads(message.value())["n"]]
        (ask,) = record.escalation.asks
        assert (ask.task, set(ask.labels), ask.because) == ("sentiment", {"negative", "positive"}, "unsure")
        assert record.escalation.output_partition == record.escalation.source.partition
    assert read_all(stack.bootstrap_servers, names.dlq) == []


BAD = {
    "not_json": b"this is no JSON",
    "not_an_object": b'["an", "array"]',
    "missing_text": b'{"id": "r-1", "body": "the text stands elsewhere"}',
    "text_too_long": b'{"id": "r-2", "text": "' + b"x" * 5_000_000 + b'"}',
    "wrong_type": b'{"id": "r-3", "text": {"not": "a string"}}',
    "too_deep": b'{"id": "r-4", "text": "good", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nan": b'{"id": "r-5", "text": "good", "price": NaN}',
    "invalid_utf8": b'{"id": "r-6", "text": "caf\xe9"}',
    "schema_registry_frame": b"\x00\x00\x00\x00\x07" + b'{"text": "good"}',
}


async def test_bad_records_become_dead_letters_and_the_stream_goes_on(stack, make_topic, unique_name):
    """Each bad record: a dead letter with its cause, key and bytes untouched; the good ones around it are decided;
    a tombstone passes as a tombstone."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    names = settings.kafka.names
    values: list[bytes | None] = []
    for number, bad in enumerate(BAD.values()):
        values += [event(number, "good"), bad, event(100 + number, "bad")]
    values.insert(5, None)
    keys = [f"key-{number}".encode() for number in range(len(values))]
    produce(stack.bootstrap_servers, names.input, values, keys=keys)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    letters = read_all(stack.bootstrap_servers, names.dlq)
    assert len(letters) == len(BAD)
    for message in letters:
        letter = decode_dead_letter(message.headers())
        assert message.value() == BAD[letter.cause.name]
        assert message.key() == keys[letter.offset]
        assert not letter.truncated
        assert headers_of(message)["__connect.errors.exception.message"]
    decisions = read_all(stack.bootstrap_servers, names.decisions)
    assert [message.key() for message in decisions if message.value() is None] == [keys[5]]
    assert len(decisions) == 2 * len(BAD) + 1


async def test_an_unknown_cloudevents_version_is_named(stack, make_topic, unique_name):
    """A CloudEvent of a version we do not know is a dead letter that says so."""
    from confluent_kafka import Producer

    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    for version in (b"9.9", b"1.0"):
        headers = [("ce_specversion", version), ("ce_id", b"e-1"), ("ce_type", b"t"), ("ce_source", b"/s")]
        producer.produce(settings.kafka.input_topic, value=event(1, "good"), headers=headers)
    producer.flush(10)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    (letter,) = read_all(stack.bootstrap_servers, settings.kafka.names.dlq)
    assert decode_dead_letter(letter.headers()).cause.name == "unknown_cloudevents_version"
    (final,) = read_all(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert json.loads(final.value())["id"] == "e-1"


async def test_a_topic_of_nothing_readable_stops_the_worker(stack, make_topic, unique_name):
    """A wrong field name must not eat a topic: nothing is committed or dead-lettered, the error names the setting."""
    settings = pipeline(stack, make_topic, unique_name, events={"text_fields": ["txet"]})
    produce(stack.bootstrap_servers, settings.kafka.input_topic, [event(n, "good") for n in range(200)], partitions=3)
    async with classifying(settings) as task:
        await asyncio.wait({task}, timeout=30)
        error = task.exception()
    assert isinstance(error, UnreadableTopic)
    assert "text_fields" in error.one_line()
    assert "missing_text" in error.one_line()
    group = f"{settings.kafka.group}-classify"
    offsets = committed_and_end(stack.bootstrap_servers, settings.kafka.input_topic, group)
    assert all(committed <= 0 for committed, _ in offsets.values())
    assert read_all(stack.bootstrap_servers, settings.kafka.names.dlq) == []


async def test_a_record_that_the_model_refuses_is_found_by_halving(stack, make_topic, unique_name):
    """A batch that fails for good is halved down to the record that fails it; the others are decided."""
    settings = pipeline(stack, make_topic, unique_name)
    texts = ["good"] * 500
    texts[137] = texts[402] = "poison"
    values = [event(number, text) for number, text in enumerate(texts)]
    produce(stack.bootstrap_servers, settings.kafka.input_topic, values, partitions=3)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    letters = read_all(stack.bootstrap_servers, settings.kafka.names.dlq)
    assert {message.value() for message in letters} == {values[137], values[402]}
    assert {decode_dead_letter(message.headers()).cause.name for message in letters} == {"model_refused"}
    assert len(read_all(stack.bootstrap_servers, settings.kafka.names.decisions)) == 498


async def test_an_output_too_large_for_its_topic_is_a_dead_letter(stack, make_topic, unique_name):
    """Sizes are checked before the transaction begins: the record goes to the dead letters, the rest is decided."""
    limits = {"decisions": 20_000, "escalations": 20_000}
    settings = pipeline(stack, make_topic, unique_name, limits=limits)
    values = [
        event(0, "good"),
        event(1, "good", pad="x" * 40_000),
        event(2, "unsure", pad="x" * 40_000),
        event(3, "bad"),
    ]
    produce(stack.bootstrap_servers, settings.kafka.input_topic, values)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    letters = read_all(stack.bootstrap_servers, settings.kafka.names.dlq)
    assert [message.value() for message in letters] == values[1:3]
    assert {decode_dead_letter(message.headers()).cause.name for message in letters} == {"output_too_large"}
    assert len(read_all(stack.bootstrap_servers, settings.kafka.names.decisions)) == 2


async def test_a_dead_letter_too_large_for_its_topic_keeps_all_but_the_value(stack, make_topic, unique_name):
    """Only what does not fit is cut: headers, sha-256 and source stay, marked as truncated."""
    settings = pipeline(stack, make_topic, unique_name, limits={"dlq": 20_000}, partitions=1)
    values = [event(0, "good"), b"not JSON " * 10_000, event(1, "good")]
    produce(stack.bootstrap_servers, settings.kafka.input_topic, values)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    (letter,) = read_all(stack.bootstrap_servers, settings.kafka.names.dlq)
    told = decode_dead_letter(letter.headers())
    assert told.truncated
    assert (told.topic, told.offset) == (settings.kafka.input_topic, 1)
    assert len(headers_of(letter)["shunt-value-sha256"]) == 64


async def test_a_provisional_decision_comes_with_an_escalation(stack, make_topic, unique_name):
    """With `provisional`, an escalated event has its small answers at once, and its final will be revision 1."""
    settings = pipeline(stack, make_topic, unique_name, decisions={"provisional": True})
    produce(stack.bootstrap_servers, settings.kafka.input_topic, [event(0, "unsure"), event(1, "good")])
    async with classifying(settings) as task:
        await caught_up(settings, task)
    found = {
        d["id"]: d
        for d in map(
            json.loads, (m.value() for m in read_all(stack.bootstrap_servers, settings.kafka.names.decisions))
        )
    }
    assert (found["r-0"]["kind"], found["r-0"]["revision"], found["r-0"]["pending"]) == (
        "provisional",
        0,
        ["sentiment"],
    )
    assert found["r-1"]["kind"] == "final"
    (escalation,) = read_all(stack.bootstrap_servers, settings.kafka.names.escalations)
    assert decode_escalation(escalation.headers()).escalation.revision == 1


async def test_two_tasks_escalate_only_the_unsure_one(stack, make_topic, unique_name):
    """Sure answers travel with the escalation as knowledge; only the unsure task is asked."""
    tasks = [
        {"name": "sentiment", "tiers": ["scripted"], "threshold": 0.9},
        {"name": "mood", "tiers": ["echo"], "threshold": 0.9},
    ]
    settings = pipeline(stack, make_topic, unique_name, tasks=tasks)
    produce(stack.bootstrap_servers, settings.kafka.input_topic, [event(0, "unsure"), event(1, "good")])
    async with classifying(settings) as task:
        await caught_up(settings, task)
    (message,) = read_all(stack.bootstrap_servers, settings.kafka.names.escalations)
    escalation = decode_escalation(message.headers()).escalation
    assert [ask.task for ask in escalation.asks] == ["sentiment"]
    assert {task: answer.label for task, answer in escalation.sure.items()} == {"mood": "positive"}
    (final,) = read_all(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert list(json.loads(final.value())["answers"]) == ["sentiment", "mood"]


async def test_triton_killed_and_restarted_loses_nothing(stack, make_topic, unique_name):
    """While Triton is away records wait; none becomes a dead letter, none is lost or decided twice."""
    from tests.conftest import run_apart

    settings = pipeline(stack, make_topic, unique_name)
    values = [event(number, "good") for number in range(4_000)]
    async with classifying(settings) as task:
        await asyncio.to_thread(
            produce, stack.bootstrap_servers, settings.kafka.input_topic, values[:2_000], partitions=3
        )
        await asyncio.to_thread(run_apart, stack.kill_triton())
        await asyncio.to_thread(
            produce, stack.bootstrap_servers, settings.kafka.input_topic, values[2_000:], partitions=3
        )
        await asyncio.sleep(1)
        await asyncio.to_thread(run_apart, stack.start_triton())
        await caught_up(settings.model_copy(), task)
    found = [
        json.loads(message.value())["id"]
        for message in read_all(stack.bootstrap_servers, settings.kafka.names.decisions)
    ]
    assert sorted(found) == sorted(f"r-{number}" for number in range(4_000))
    assert read_all(stack.bootstrap_servers, settings.kafka.names.dlq) == []


class NeverDecides:
    """A decider whose Triton never comes back."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def decide(self, texts):
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_drain_ends_while_triton_is_away(stack, make_topic, unique_name):
    """A batch that waits for Triton does not keep the worker from ending, and is left uncommitted."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1, kafka={"drain_timeout_s": 2.0})
    names = settings.kafka.names
    produce(stack.bootstrap_servers, names.input, [event(number, "good") for number in range(100)], partitions=1)
    stop = asyncio.Event()
    async with classify_lane(settings, Metrics()) as lane:
        lane._batch_work.policing.decider = decider = NeverDecides()
        task = asyncio.create_task(lane.run(stop))
        await asyncio.wait_for(decider.asked.wait(), 30)
        stop.set()
        done, _ = await asyncio.wait({task}, timeout=10)
        task.cancel()
    assert done
    task.result()
    assert read_all(stack.bootstrap_servers, names.decisions) == []
    async with classifying(settings) as task:
        await caught_up(settings, task)
    assert len(read_all(stack.bootstrap_servers, names.decisions)) == 100


@pytest.mark.parametrize("decisions_partitions", [1, 2, 5])
async def test_outputs_with_another_partition_count(stack, make_topic, unique_name, decisions_partitions):
    """Where counts differ the key chooses by murmur2, as Java clients do: a key keeps one partition and its order."""
    from aiokafka.partitioner import murmur2

    name = unique_name("reviews")
    for use, count in (
        ("", 3),
        ("-decisions", decisions_partitions),
        ("-escalations", 2),
        ("-dlq", 1),
        ("-parked", 2),
        ("-review", 1),
        ("-feedback", 1),
        ("-verdicts", 1),
        ("-audits", 2),
        ("-audit-results", 1),
    ):
        make_topic(partitions=count, name=f"{name}{use}")
    make_topic(name=f"{name}-control", cleanup_policy="compact")
    settings = pipeline(stack, lambda **_: None, lambda _: name)
    keys = [f"k{number % 7}".encode() for number in range(210)]
    produce(stack.bootstrap_servers, name, [event(n, "good") for n in range(210)], partitions=3, keys=keys)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    finals = read_all(stack.bootstrap_servers, f"{name}-decisions")
    assert len(finals) == 210
    assert all(m.partition() == (murmur2(m.key()) & 0x7FFFFFFF) % decisions_partitions for m in finals)
    assert len({message.partition() for message in finals}) > 1 or decisions_partitions == 1
    sources = [(m.key(), json.loads(m.value())["source"]) for m in finals]
    for key in set(keys):
        for number in range(3):
            offsets = [s["offset"] for of, s in sources if (of, s["partition"]) == (key, number)]
            assert offsets == sorted(offsets)


async def test_an_input_that_grows_while_the_lane_runs(stack, make_topic, unique_name):
    """The input gets partitions that the decisions topic has not: their events are decided, where the key says."""
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
    from aiokafka.partitioner import murmur2

    settings = pipeline(stack, make_topic, unique_name)
    names = settings.kafka.names
    words = ["good", "bad", "unsure"]
    values = [event(number, words[number % 3]) for number in range(300)]
    keys = [f"k{number}".encode() for number in range(300)]
    async with classifying(settings) as task:
        await asyncio.to_thread(
            produce, stack.bootstrap_servers, names.input, values[:150], partitions=3, keys=keys[:150]
        )
        await caught_up(settings, task)
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
        await admin.start()
        await admin.create_partitions({names.input: NewPartitions(5, None)})
        await admin.close()
        await asyncio.sleep(1)
        await asyncio.to_thread(
            produce, stack.bootstrap_servers, names.input, values[150:], partitions=5, keys=keys[150:]
        )
        await caught_up(settings, task)
    finals = read_all(stack.bootstrap_servers, names.decisions)
    escalations = read_all(stack.bootstrap_servers, names.escalations)
    assert sorted(message.key() for message in finals + escalations) == sorted(keys)
    for message in finals:
        number = json.loads(message.value())["source"]["partition"]
        assert message.partition() == (number if number < 3 else (murmur2(message.key()) & 0x7FFFFFFF) % 3)
    assert read_all(stack.bootstrap_servers, names.dlq) == []

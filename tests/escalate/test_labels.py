"""What LLMs said of escalated events is kept on the feedback topic: each once, in its decision's transaction."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2

from stream_app.codec import record_batch_bytes
from stream_app.escalate.labels import labels_given
from stream_app.escalate.outbox import Outbox
from stream_app.escalate.question import GotAnswer
from stream_app.events import Parked
from stream_app.kafka.topics import TopicFound
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.escalate.test_outbox import GOT, escalated_record, outbox
from tests.escalate.test_parked import at_rest
from tests.escalate.workers import PARTITIONS, Pipeline
from tests.kafka.reading import read_all
from tests.messages.test_schemas import validator

if TYPE_CHECKING:
    from pathlib import Path


def labels_in(outcome) -> list[dict]:
    return [json.loads(out.value) for out in outcome.outgoing if out.topic == "shop-feedback"]


def counted(metrics: Metrics, name: str) -> float:
    family = next(each for each in metrics.registry.collect() if each.name == name)
    return sum(each.value for each in family.samples if each.name.endswith("_total"))


def test_an_answer_leaves_with_the_label_it_gave():
    """One row for the task that was asked, none for the sure one; keyed by the id, and about this decision."""
    box, codec = outbox()
    record, original, event = escalated_record(codec, revision=1)
    outcome = box.answered(record, original, event, GOT, 1_700_000_000_000)
    (row,) = labels_in(outcome)
    validator("feedback", strict=True).validate(row)
    assert (row["id"], row["task"], row["text"]) == (event.id, "sentiment", event.text)
    assert (row["label"], row["labelled_by"], row["why"]) == ("negative", "llm", "escalated")
    assert (row["model"], row["policy"], row["revision"]) == ("gpt-4o-mini", "demo@1", 1)
    assert row["small"]["label"] == "positive"
    assert row["source"]["offset"] == event.source.offset
    out = outcome.outgoing[-1]
    assert out.key == event.id.encode()
    assert out.partition == (murmur2(out.key) & 0x7FFFFFFF) % 4
    assert (outcome.labels, outcome.labels_left_out) == (1, 0)


def test_a_correction_by_the_llm_leaves_with_its_label():
    """A parked event that is answered after all: the row is about the correction."""
    box, codec = outbox()
    outcome = box.corrected(*escalated_record(codec), Parked("reviews/2/6#0", 0, "outage"), GOT, 2_000)
    (row,) = labels_in(outcome)
    assert (row["label"], row["revision"]) == ("negative", 1)


def test_each_opinion_is_a_row_and_none_is_the_votes_sum():
    """Two LLMs, who differ: each label with who gave it; one that gave none has no row."""
    box, codec = outbox()
    votes = {"sentiment": {"gpt-4o-mini": "negative", "llama": "positive", "mute": None}}
    outcome = box.answered(*escalated_record(codec), replace(GOT, votes=votes), 1_000)
    assert [(row["model"], row["label"]) for row in labels_in(outcome)] == [
        ("gpt-4o-mini", "negative"),
        ("llama", "positive"),
    ]


def test_a_reason_goes_with_the_label_it_was_given_for():
    """That of the LLM whose answer it is; nobody knows of which label it speaks where several tasks were asked."""
    box, codec = outbox()
    record, original, event = escalated_record(codec)
    votes = {"sentiment": {"mute": None, "gpt-4o-mini": "negative", "llama": "positive"}}
    got = replace(GOT, votes=votes, answer=replace(GOT.answer, reason="It fell apart."))
    outcome = box.answered(record, original, event, got, 1_000)
    rows = labels_in(outcome)
    assert [(row["model"], row.get("reason")) for row in rows] == [("gpt-4o-mini", "It fell apart."), ("llama", None)]
    validator("feedback", strict=True).validate(rows[0])
    (first, *_) = original.escalation.asks
    two = replace(original.escalation, asks=(first, replace(first, task="toxicity")))
    answer = replace(got.answer, labels={"sentiment": "negative", "toxicity": "toxic"})
    told = labels_given(outcome.decision, two, GotAnswer(answer, got.usage))
    assert [(row.task, row.reason) for row in told] == [("sentiment", None), ("toxicity", None)]


def test_a_reason_does_not_cost_the_label():
    """A row that fits its topic without it leaves without it."""
    box, codec = outbox(feedback_bytes_max=1_500)
    wordy = replace(GOT, answer=replace(GOT.answer, reason="very " * 200))
    outcome = box.answered(*escalated_record(codec), wordy, 1_000)
    (row,) = labels_in(outcome)
    assert (row["label"], row.get("reason"), outcome.labels_left_out) == ("negative", None, 0)
    roomy, codec = outbox(feedback_bytes_max=3_000)
    (row,) = labels_in(roomy.answered(*escalated_record(codec), wordy, 1_000))
    assert row["reason"] == "very " * 200


def test_a_row_that_does_not_fit_is_left_out_and_counted():
    """The decision stands without it: keeping a label is no reason to lose an outcome."""
    box, codec = outbox(feedback_bytes_max=300)
    outcome = box.answered(*escalated_record(codec), GOT, 1_000)
    assert [out.topic for out in outcome.outgoing] == ["shop-decisions"]
    assert (outcome.labels, outcome.labels_left_out) == (0, 1)
    roomy, codec = outbox()
    row = roomy.answered(*escalated_record(codec), GOT, 1_000).outgoing[-1]
    assert record_batch_bytes(row.key, row.value, row.headers) > 300


def test_what_became_a_dead_letter_leaves_no_label():
    """Its record has no decision that a row could be about."""
    box, codec = outbox(bytes_max=4_000)
    outcome = box.answered(*escalated_record(codec, shelf=5_000), GOT, 1_000)
    assert [out.topic for out in outcome.outgoing] == ["shop-dlq"]


def test_no_text_is_kept_where_the_settings_say_so():
    """`feedback.llm_answers = false`: the decision alone."""
    settings = escalated.settings("127.0.0.1:1", "http://127.0.0.1:1/v1", "shop")
    quiet = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"llm_answers": False})})
    topics = {name: TopicFound(name, 4, "delete", -1, 1_000_000) for name in quiet.kafka.names.model_dump().values()}
    _, codec = outbox()
    outcome = Outbox(quiet, codec, topics).answered(*escalated_record(codec), GOT, 1_000)
    assert [out.topic for out in outcome.outgoing] == ["shop-decisions"]


async def test_finals_and_corrections_leave_their_labels(stack, llm, prefix):  # noqa: F811
    """On real Kafka: a row for each event the LLM answered, at once or after all; none for what it refused."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    names, metrics = settings.kafka.names, Metrics()
    llm.fault("refusal", match="[refuse]")
    texts = [*escalated.texts(20), *(f"[refuse] {text}" for text in escalated.texts(4, 20))]
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, names.escalations, texts)
    later = escalated.texts(10, 100)
    await asyncio.to_thread(
        escalated.produce, stack.bootstrap_servers, names.parked, later, first_offset=100, parked=True
    )
    async with working(settings, metrics):
        await caught_up(stack, settings)
        await at_rest(stack, settings)
    rows = [json.loads(message.value()) for message in read_all(stack.bootstrap_servers, names.feedback)]
    assert Counter(row["source"]["offset"] for row in rows) == Counter([*range(20), *range(100, 110)])
    labels = {
        decision["source"]["offset"]: (decision["revision"], decision["answers"]["sentiment"]["label"])
        for decision in escalated.finals(stack.bootstrap_servers, names.decisions)
    }
    assert {row["source"]["offset"]: (row["revision"], row["label"]) for row in rows}.items() <= labels.items()
    assert counted(metrics, "shunt_feedback") == 30


def test_a_kill_neither_loses_nor_doubles_a_label(stack, llm, unique_name, tmp_path: Path):
    """Workers killed -9 one after another with calls under way: one row for each event, as there is one final."""
    llm.latency(500, 0.5)
    made = Pipeline(tmp_path, stack, llm, unique_name("labels"))
    try:
        made.start()
        for _ in range(3):
            made.produce(80 * PARTITIONS)
            made.busy(30)
            victim = made.workers[-1]
            victim.kill()
            made.start()
        llm.latency(50, 0.5)
        made.at_rest()
    finally:
        for worker in made.workers:
            worker.kill()
    made.check_finals()
    messages = read_all(made.servers, made.settings.kafka.names.feedback)
    rows = Counter(json.loads(message.value())["source"]["offset"] for message in messages)
    assert rows == Counter(range(made.produced))

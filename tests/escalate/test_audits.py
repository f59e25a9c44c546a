"""Audits on real Kafka: accepted answers that the LLM is asked about plainly, last of all, with one result each."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator

from stream_app.codec import decode_audit_result, decode_feedback
from stream_app.escalate.auditing import question
from stream_app.escalate.prompt import HINT, KNOWN, Prompter, PromptOptions
from stream_app.escalate.start import group_of
from stream_app.settings import Events
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_hand_over import process, until
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.escalate.test_parked import at_s, decisions_of
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.messages.test_schemas import closed, schema

if TYPE_CHECKING:
    from stream_app.events import Feedback

TASKS = ("sentiment", "toxicity")


def result_records(stack, settings) -> list:
    return read_all(stack.bootstrap_servers, settings.kafka.names.audit_results)


def results_of(stack, settings) -> list[dict]:
    return [json.loads(message.value()) for message in result_records(stack, settings)]


async def at_rest(stack, settings, within_s: float = 90.0) -> None:
    """Waits until the lane has committed the very end of the audits topic."""
    topic, group = settings.kafka.names.audits, group_of(settings)

    def done() -> bool:
        found = committed_and_end(stack.bootstrap_servers, topic, group)
        return any(end for _, end in found.values()) and all(each == end for each, end in found.values() if end)

    await until(done, within_s)


async def audited(stack, settings, texts, metrics=None) -> list[dict]:
    """Lets the lane work off an audit of each text; the results."""
    topic = settings.kafka.names.audits
    await asyncio.to_thread(escalated.produce_audits, stack.bootstrap_servers, topic, texts)
    async with working(settings, metrics):
        await at_rest(stack, settings)
    return results_of(stack, settings)


def per_audit(results: list[dict]) -> Counter:
    """How many results each audit has of each task."""
    return Counter((result["source"]["offset"], result["task"]) for result in results)


def rows_of(stack, settings) -> list[Feedback]:
    """What is kept of them on the feedback topic."""
    messages = read_all(stack.bootstrap_servers, settings.kafka.names.feedback)
    return [decode_feedback(message.value()) for message in messages]


def one_each(count: int) -> Counter:
    return Counter((offset, task) for offset in range(count) for task in TASKS)


async def test_each_audit_has_one_result_for_each_task(stack, llm, prefix):  # noqa: F811
    """As the schema says; agree and disagree are by the labels, and no decision is touched."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    metrics = Metrics()
    results = await audited(stack, settings, escalated.texts(40), metrics)
    assert per_audit(results) == one_each(40)
    validator = Draft202012Validator(closed(schema("audit-result")))
    for record, result in zip(result_records(stack, settings), results, strict=True):
        validator.validate(result)
        message = decode_audit_result(record.value())
        assert record.key() == dict(record.headers())["shunt-source"] == message.source.ref.encode()
        assert (result["by"], result["policy"], result["id"]) == ("llm", "demo@1", f"r-{result['source']['offset']}")
        assert result["result"] == ("agree" if result["label"] == result["small"]["label"] else "disagree")
    found = Counter((result["task"], result["result"]) for result in results)
    assert set(found) >= {("sentiment", "agree"), ("sentiment", "disagree")}
    for (task, result), count in found.items():
        labels = {"task": task, "result": result}
        assert metrics.registry.get_sample_value("shunt_audits_total", labels) == count
    kept = rows_of(stack, settings)
    assert {(row.why, row.labelled_by) for row in kept} == {("audit", "llm")}
    said = {(one["id"], one["task"]): (one["label"], one["small"]["label"], one["policy"]) for one in results}
    assert {(row.id, row.task): (row.label, row.small.label, row.policy) for row in kept} == said
    assert metrics.registry.get_sample_value("shunt_feedback_total", {"why": "audit"}) == len(kept) == 80
    assert len(llm.calls()) == 40
    assert not decisions_of(stack, settings)
    assert not read_all(stack.bootstrap_servers, settings.kafka.names.dlq)


async def test_an_audit_is_a_call_of_its_own(stack, llm, prefix):  # noqa: F811
    """The same text thirty times: thirty calls. An answer from the cache would be no sample of what the LLM says."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    results = await audited(stack, settings, ["quite nice, really"] * 30)
    assert per_audit(results) == one_each(30)
    assert len(llm.calls()) == 30


def test_the_question_is_plain():
    """All labels, no hint, nothing known, and labels alone as the answer: what the small models say must not show."""
    prompter = Prompter(PromptOptions(), TASKS)
    audit = escalated.audit(0, 0)
    request = prompter.plain().render(question(audit), escalated.event("fine"))
    assert HINT not in request.system
    assert KNOWN not in request.system
    assert "0.97" not in request.system
    assert request.allowed == audit.labels
    assert HINT in prompter.render(question(audit), escalated.event("fine")).system  # what `plain` takes away


@pytest.mark.parametrize(("kind", "reason"), [("refusal", "refused"), ("malformed_json", "invalid_answer")])
async def test_what_the_llm_will_not_answer_is_told_and_counted(stack, llm, prefix, kind, reason):  # noqa: F811
    """No answer is a result too: to leave those out would leave out the hardest."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    llm.fault(kind)
    results = await audited(stack, settings, escalated.texts(6))
    assert per_audit(results) == one_each(6)
    assert {(result["result"], result["reason"], result["label"]) for result in results} == {
        ("no_answer", reason, None)
    }
    assert {(row.why, row.label) for row in rows_of(stack, settings)} == {("audit", None)}
    assert not read_all(stack.bootstrap_servers, settings.kafka.names.review)


async def test_audits_of_an_outage_that_lasts_are_told_as_unanswered(stack, llm, prefix):  # noqa: F811
    """They do not wait for ever, nor vanish."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"audit": settings.audit.model_copy(update={"max_age_s": 3.0})})
    llm.fault("unauthorized")
    results = await audited(stack, settings, escalated.texts(30))
    assert per_audit(results) == one_each(30)
    assert {(result["result"], result["reason"], result["model"]) for result in results} == {
        ("no_answer", "expired", None)
    }


async def test_what_cannot_be_read(stack, llm, prefix):  # noqa: F811
    """Nobody's record is a dead letter; an audit that `[events]` does not read any more has no answer."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix)
    settings = settings.model_copy(update={"events": Events(text_fields=("body",))})
    names = settings.kafka.names
    await asyncio.to_thread(produce, stack.bootstrap_servers, names.audits, [b"what?"])
    results = await audited(stack, settings, escalated.texts(6))
    assert per_audit(results) == one_each(6)
    assert {result["reason"] for result in results} == {"unreadable"}
    (letter,) = read_all(stack.bootstrap_servers, names.dlq)
    assert dict(letter.headers())["shunt-cause"] == b"bad_audit"
    assert not llm.calls()


async def test_kill_9_leaves_one_result_for_each_audit(stack, llm, prefix, tmp_path):  # noqa: F811
    """Workers are killed twice in the middle of it: an audit's results and its offset are committed together."""
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=640)
    llm.latency(600, 0.5)  # so that much is in the air when the kill comes, on a slow machine too
    topic = settings.kafka.names.audits
    await asyncio.to_thread(escalated.produce_audits, stack.bootstrap_servers, topic, escalated.texts(300))
    for so_far in (60, 260):
        async with process(settings, tmp_path / "worker.log") as worker:
            await until(lambda so_far=so_far: len(results_of(stack, settings)) > so_far)
            worker.kill()
    async with working(settings):
        await at_rest(stack, settings)
    assert per_audit(results_of(stack, settings)) == one_each(300)
    asked = Counter(call["event_id"] for call in llm.calls())
    assert sum(times - 1 for times in asked.values()) >= 1  # else nothing was in the air when they died


@pytest.mark.parametrize("prefix", [1], indirect=True)
async def test_audits_do_not_delay_who_comes_now(stack, llm, prefix):  # noqa: F811
    """A backlog of audits and of parked events that takes the whole rate: escalations are answered within moments.

    Parked events, whose finals wait for a correction, go before audits.
    """
    endpoint = {"requests_per_minute": 300, "tokens_per_minute": 1e9}
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, endpoint=endpoint)
    names = settings.kafka.names
    servers = stack.bootstrap_servers
    await asyncio.to_thread(escalated.produce_audits, servers, names.audits, escalated.texts(300), partitions=1)
    async with working(settings):
        await until(lambda: len(llm.calls()) >= 5)
        parked = escalated.texts(8, 2_000)
        await asyncio.to_thread(
            escalated.produce, servers, names.parked, parked, first_offset=2_000, partitions=1, parked=True
        )
        for number in range(1_000, 1_010):
            text = escalated.texts(1, number)
            await asyncio.to_thread(
                escalated.produce, servers, names.escalations, text, first_offset=number, partitions=1
            )
            await asyncio.sleep(1.0)
        await caught_up(stack, settings)
    decisions = decisions_of(stack, settings)
    took_s = [
        at_s(one["decided_at"]) - at_s(one["source"]["timestamp"]) for one in decisions if one["kind"] == "final"
    ]
    results = results_of(stack, settings)
    print(f"{len(results) // 2} audited; finals took {min(took_s):.2f} to {max(took_s):.2f} s")
    assert len(took_s) == 10
    assert max(took_s) < 2.5
    assert escalated.corrections_per_source(decisions) == Counter(range(2_000, 2_008))
    assert len(results) >= 20

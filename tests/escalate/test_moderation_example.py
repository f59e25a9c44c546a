"""The documented example of subtasks, on the shipped models, real Kafka, real Triton and the stand-in LLM."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from stream_app.classify.start import deciding
from stream_app.cli.trace import trace
from stream_app.escalate.prompters import prompter_of
from stream_app.local.reviews import shipped_reviews
from stream_app.settings import load_settings
from tests.classify.lanes import caught_up as classified
from tests.classify.lanes import classifying
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.kafka.reading import produce

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "moderation" / "shunt.toml"
MODELS = ("sentiment_fast", "sentiment_minilm", "toxicity_fast", "department_fast")
EVENTS = 60


@pytest.fixture
def settings(stack, llm, prefix):  # noqa: F811 - the fixture
    """The example as it stands, at this run's servers and on topics of its own."""
    triton = InferenceServerClient(stack.triton_grpc)
    for model in MODELS:
        triton.load_model(model)
    here = {
        "kafka": {"bootstrap_servers": stack.bootstrap_servers, "group": prefix, "input_topic": prefix},
        "triton": {"url": stack.triton_grpc},
        "llm": {"endpoints": [{"base_url": llm.base_url, "model": "gpt-4o-mini"}], "usd_per_hour": 5},
    }
    yield load_settings(EXAMPLE, here)
    for model in MODELS:
        triton.unload_model(model)


async def test_only_the_unsure_task_is_asked(stack, llm, settings):
    """Every event has an answer to each task: the LLM's where the small model was unsure, else the small model's.

    One call is made for an event, however many of its tasks are unsure.
    """
    values = [review.value for review in shipped_reviews()[:EVENTS]]
    names = settings.kafka.names
    await asyncio.to_thread(produce, stack.bootstrap_servers, names.input, values, partitions=escalated.PARTITIONS)
    async with classifying(settings) as task, working(settings):
        await classified(settings, task, within_s=90)
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, names.decisions)
    assert len(decisions) == EVENTS
    asked = Counter[int]()
    for decision in decisions:
        answers = decision["answers"]
        assert list(answers) == ["sentiment", "toxicity", "department"]
        by_llm = [name for name, answer in answers.items() if answer["decided_by"] == "llm"]
        assert all(answers[name]["escalated_because"] is not None for name in by_llm)
        assert all(answer["escalated_because"] is None for name, answer in answers.items() if name not in by_llm)
        asked[len(by_llm)] += 1
    assert {0, 1} < set(asked), asked
    assert len(llm.admin("calls?since=0", method="GET")["calls"]) == EVENTS - asked[0]


async def test_what_is_sure_stands_in_the_prompt(stack, settings):
    """The LLM is told what the other small models are sure of, and not asked about it."""
    text = "Excellent, I love it. Best thing I have bought this year, thank you!"
    async with deciding(settings, in_force=False) as parts:
        traced = await trace(settings, parts, text)
    assert traced.escalation is not None
    request = prompter_of(settings).render(traced.escalation, traced.event)
    assert list(request.allowed) == ["department"]
    known = request.system.split("Known already")[1]
    assert "sentiment" in known
    assert "toxicity" in known

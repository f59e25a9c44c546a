"""A bug in any part of a lane ends the lane, so that the process ends: nothing dies unseen in the background.

What a lane's end means for the process (status 1, the other lane drained) is in `test_supervision`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.classify.batching import Batching
from stream_app.classify.service import ClassifyLane
from stream_app.classify.tally import Tally
from stream_app.escalate.admission import Admission
from stream_app.escalate.committing import Committing
from stream_app.escalate.handling import Handling
from stream_app.escalate.service import EscalateLane
from stream_app.escalate.starting import Starting
from stream_app.kafka.connection import Connection
from stream_app.lanes import works_of
from stream_app.telemetry import Metrics
from tests.classify.lanes import pipeline
from tests.escalate import escalated
from tests.kafka.reading import produce

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.settings import Settings

WITHIN_S = 30.0
"""Joining the group takes most of it."""


def always(_original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that has a bug."""

    def dies(*_args: object, **_more: object) -> None:
        raise ValueError("a bug")

    return dies


def in_a_callback(original: Callable[..., Any]) -> Callable[..., Any]:
    """One whose bug shows where no task would notice: in a timer, or in a callback of a task that is done."""

    def dies_there(*args: Any, **more: Any) -> Any:
        if asyncio.current_task() is None:
            raise ValueError("a bug")
        return original(*args, **more)

    return dies_there


def settings_of(stack: Any, make_topic: Any, unique_name: Any) -> Settings:
    """A pipeline with work for both lanes, whose LLM's limits make calls wait for their turn."""
    endpoint = {"base_url": stack.llm_base_url, "requests_per_minute": 600, "tokens_per_minute": 1e9}
    settings = pipeline(stack, make_topic, unique_name, llm={"endpoints": [endpoint]})
    names = settings.kafka.names
    produce(stack.bootstrap_servers, names.input, [b'{"id": "a", "text": "good"}'] * 30, partitions=3)
    escalated.produce(stack.bootstrap_servers, names.escalations, escalated.texts(30))
    return settings


async def ends_of_it(settings: Settings, lane: Any) -> None:
    """Runs the lane as the worker does; it must die of the bug, bare, without being asked to stop."""
    work = works_of(settings, lane, Metrics(), None)[lane]
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(ValueError, match="a bug"):
            await work(asyncio.Event())


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        pytest.param(Connection, "transactional_producer", always, id="assigned"),
        pytest.param(EscalateLane, "opened", always, id="opening"),
        pytest.param(EscalateLane, "arrived", always, id="fetching"),
        pytest.param(Handling, "outcome", always, id="event"),
        pytest.param(Committing, "_count", always, id="committer"),
        pytest.param(Metrics, "in_flight", always, id="ticker"),
        pytest.param(Admission, "_admit", in_a_callback, id="timer of the queue"),
        pytest.param(Starting, "fill", in_a_callback, id="end of an event"),
    ],
)
async def test_a_bug_anywhere_ends_the_slow_lane(
    stack: Any, make_topic: Any, unique_name: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, bug: Any
) -> None:
    """Callbacks of Kafka's client, tasks, timers and callbacks of tasks: none dies while the lane stays."""
    settings = await asyncio.to_thread(settings_of, stack, make_topic, unique_name)
    monkeypatch.setattr(owner, name, bug(getattr(owner, name)))
    await ends_of_it(settings, "escalate")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(Connection, "transactional_producer", id="assigned"),
        pytest.param(ClassifyLane, "opened", id="opening"),
        pytest.param(ClassifyLane, "arrived", id="fetching"),
        pytest.param(Batching, "take", id="pump"),
        pytest.param(Tally, "count_into", id="batch"),
        pytest.param(Metrics, "transaction", id="delivery"),
        pytest.param(Metrics, "in_flight", id="ticker"),
    ],
)
async def test_a_bug_anywhere_ends_the_hot_path(
    stack: Any, make_topic: Any, unique_name: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """The same for the hot path's parts."""
    settings = await asyncio.to_thread(settings_of, stack, make_topic, unique_name)
    monkeypatch.setattr(owner, name, always(getattr(owner, name)))
    await ends_of_it(settings, "classify")


@pytest.mark.parametrize("name", ["hand_over", "lost"])
@pytest.mark.parametrize("lane", [ClassifyLane, EscalateLane])
async def test_a_bug_in_a_rebalance_ends_the_lane(
    stack: Any, make_topic: Any, unique_name: Any, monkeypatch: pytest.MonkeyPatch, lane: type, name: str
) -> None:
    """Kafka's client logs and drops what a callback raises; the lane ends of it all the same."""
    settings = await asyncio.to_thread(settings_of, stack, make_topic, unique_name)
    monkeypatch.setattr(lane, name, always(getattr(lane, name)))
    opened, joined = lane.opened, asyncio.Event()

    def noted(*args: Any) -> None:
        opened(*args)
        joined.set()

    monkeypatch.setattr(lane, "opened", noted)
    role = "classify" if lane is ClassifyLane else "escalate"
    first = asyncio.create_task(ends_of_it(settings, role))
    await asyncio.wait({first, asyncio.create_task(joined.wait())}, return_when=asyncio.FIRST_COMPLETED)
    other = Connection(settings.kafka).consumer(f"{settings.kafka.group}-{role}", "another member")
    other.subscribe([settings.kafka.names.input, settings.kafka.names.escalations])
    joining = asyncio.create_task(other.start())  # returns once it has joined
    try:
        await first
    finally:
        joining.cancel()
        await asyncio.wait({joining})
        await other.stop()

"""What every test may use: one real Kafka, one real Triton and the stand-in LLM, started once per run."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from aiokafka.admin import NewTopic
from xdist.scheduler import LoadFileScheduling

from stream_app.kafka.connection import Connection
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import Kafka

ROOT = Path(__file__).parent.parent
TEST_MODELS = ROOT / "tests" / "models"
SHIPPED_MODELS = ROOT / "triton_models"

CROWDING = ("tests/faults/", "tests/escalate/test_failover.py", "tests/escalate/test_second_endpoint.py")
"""They keep both cores busy, or measure seconds that such neighbours would lengthen."""

T = TypeVar("T")


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every process that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that crowd each other out go first, for they take longest."""
    items.sort(key=lambda item: not item.location[0].startswith(CROWDING))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """A file stays in one process, and those that crowd each other out share one."""
    return Files(config, log)


class Files(LoadFileScheduling):
    """Whole files, but for the crowding ones, which are as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "crowding" if file.startswith(CROWDING) else file


def run_apart(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end in a thread and a loop of its own: fixtures must not touch the tests' loops."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def model_repositories() -> list[Path]:
    """The folders that Triton serves in tests: the tests' own models, and the shipped ones."""
    return [path for path in (TEST_MODELS, SHIPPED_MODELS) if any(path.glob("*/config.pbtxt"))]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The embedded stack. Triton has `echo` loaded; other models are loaded by name where a test needs them."""
    running = Stack(
        tmp_path_factory.mktemp("stack"),
        model_repository=model_repositories(),
        load_models=["echo", "scripted"],
        llm_options=StandInOptions(latency_median_ms=20),
    )
    run_apart(running.open())
    yield running
    run_apart(running.close())


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """A name that no other test uses, for topics, groups and transactional ids: `unique_name("reviews")`."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex[:8]}"


MakeTopic = Callable[..., str]


@pytest.fixture
def make_topic(stack: Stack, unique_name: Callable[[str], str]) -> MakeTopic:
    """Create a topic of this test's own and return its name: `make_topic("reviews", partitions=3, **configs)`.

    A configuration is given by its name with underscores: `max_message_bytes=2000`. With `name=` the topic gets
    exactly that name (for topics whose names derive from another's).
    """

    def make(stem: str = "topic", *, partitions: int = 1, name: str | None = None, **configs: object) -> str:
        topic = name or unique_name(stem)
        settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
        run_apart(_create_topic(stack.bootstrap_servers, NewTopic(topic, partitions, 1, topic_configs=settings)))
        return topic

    return make


async def _create_topic(bootstrap_servers: str, topic: NewTopic) -> None:
    connection = Connection(Kafka(bootstrap_servers=bootstrap_servers, input_topic=topic.name))
    async with connection.admin() as admin:
        response = await admin.create_topics([topic])
    # aiokafka returns refusals (a name in use, a bad setting) instead of raising them.
    refused = [error for error in response.topic_errors if error[1] != 0]
    assert not refused, refused


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    """A topic with three partitions, this test's own."""
    return make_topic("topic", partitions=3)

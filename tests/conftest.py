"""What every test may use: one real Kafka, one real Triton and the stand-in LLM, started once per run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import hypothesis
import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import InvalidReplicationFactorError

from stream_app.kafka.connection import Connection
from stream_app.local.jars import user_cache_dir
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import Kafka

ROOT = Path(__file__).parent.parent
TEST_MODELS = ROOT / "tests" / "models"
SHIPPED_MODELS = ROOT / "triton_models"

ALONE = (
    "tests/classify/test_swap.py",
    "tests/demo/test_end_to_end.py",
    "tests/escalate/test_failover.py",
    "tests/escalate/test_second_endpoint.py",
    "tests/faults/test_loop.py",
    "tests/faults/test_safeguards.py",
    "tests/faults/test_short.py",
)
"""They keep both cores busy, or measure seconds that such neighbours would lengthen: marked `alone`."""
FENCED_S = 60.0

T = TypeVar("T")

# What fast models compile is shared: with Triton's models, and between those who run tests side by side.
os.environ.setdefault("NUMBA_CACHE_DIR", str(user_cache_dir() / "numba"))

hypothesis.settings.register_profile(
    "untimed", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")  # a busy machine is no bug; what CI sets otherwise stays


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every process that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What must run without neighbours says so: `make test` runs the others side by side first."""
    for item in items:
        if item.location[0].startswith(ALONE):
            item.add_marker("alone")


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
        # aiokafka returns refusals (a name in use, a bad setting) instead of raising them.
        deadline_s = time.monotonic() + FENCED_S
        while refused := [
            error for error in cast("Any", await admin.create_topics([topic])).topic_errors if error[1]
        ]:
            # A broker that was away in the test before, or got no processor, is let in again by its next heartbeat.
            assert refused[0][1] == InvalidReplicationFactorError.errno, refused
            assert time.monotonic() < deadline_s, refused
            await asyncio.sleep(0.5)


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    """A topic with three partitions, this test's own."""
    return make_topic("topic", partitions=3)

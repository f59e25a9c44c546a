"""The worker as a user starts it: `shunt run` and `faust -A stream_app.app worker`, on real Kafka and Triton."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.kafka.topics import create, look_up, plan
from stream_app.settings import load_settings
from tests.conftest import run_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_app.local.stack import Stack

SHUNT = (sys.executable, "-m", "stream_app.cli")
FAUST = (sys.executable, "-m", "faust", "-A", "stream_app.app")
WITHIN_S = 60.0


class Pipeline:
    """A settings file in a folder of its own, its topics, and the workers started on it."""

    def __init__(self, folder: Path, stack: Stack, topic: str) -> None:
        self.folder = folder
        self.file = folder / "shunt.toml"
        self.topic = topic
        self._workers: list[subprocess.Popen[str]] = []
        self.write(stack.bootstrap_servers, stack.triton_grpc)
        self.settings = load_settings(self.file)
        self.connection = Connection(self.settings.kafka)

    def write(self, kafka: str, triton: str, *, model: str = "echo", more: str = "") -> None:
        self.file.write_text(
            f'[kafka]\nbootstrap_servers = "{kafka}"\ngroup = "{self.topic}"\ninput_topic = "{self.topic}"\n'
            f'session_timeout_ms = 6000\n[triton]\nurl = "{triton}"\n'
            f'[[tasks]]\nname = "sentiment"\ntiers = ["{model}"]\nthreshold = 0.9\n'
            '[[llm.endpoints]]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "NO_REAL_KEY"\n'
            f"[web]\nport = 0\n{more}"
        )

    def make_topics(self) -> None:
        async def make() -> None:
            await create(self.connection, plan(self.settings.kafka, None, partitions=2))

        run_apart(make())

    def produce(self, values: list[bytes | None]) -> None:
        async def send() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka.bootstrap_servers)
            await producer.start()
            for value in values:
                await producer.send(self.topic, value=value, key=b"k")
            await producer.stop()

        run_apart(send())

    def decisions(self) -> list[Any]:
        async def read() -> list[Any]:
            batches = read_topic(self.connection, self.settings.kafka.names.decisions, to_end=True)
            return [record async for batch in batches for record in batch]

        return run_apart(read())

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "SHUNT_LOG_FORMAT": "text", "NO_REAL_KEY": "none", **environment},
            stdout=subprocess.PIPE,
            stderr=(self.folder / "errors").open("w"),
            text=True,
        )
        self._workers.append(worker)
        return worker

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Exit status and standard output of a worker that ends by itself."""
        worker = self.start(*command, **environment)
        shown, _ = worker.communicate(timeout=WITHIN_S)
        return worker.returncode, shown

    def address(self) -> str:
        found = self.until(lambda: re.search(r"web server on (http://\S+)", self.errors))
        return found[1]

    def until(self, true: Callable[[], Any]) -> Any:
        deadline_s = time.monotonic() + WITHIN_S
        while not (found := true()):
            assert time.monotonic() < deadline_s, self.errors
            assert all(worker.poll() is None for worker in self._workers), self.errors
            time.sleep(0.2)
        return found

    def end(self, worker: subprocess.Popen[str]) -> int:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=WITHIN_S)
        return worker.returncode

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()


def fetched(address: str) -> dict[str, Any]:
    with urlopen(address, timeout=5) as answer:
        return json.load(answer)


@pytest.fixture
def pipeline(stack: Stack, tmp_path: Path, unique_name: Callable[[str], str]) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path, stack, unique_name("reviews"))
    yield made
    made.close()


def event(n: int) -> bytes:
    return json.dumps({"id": f"r-{n}", "text": f"kettle number {n}"}).encode()


def groups(pipeline: Pipeline) -> set[str]:
    async def listed() -> set[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.kafka.bootstrap_servers)
        await admin.start()
        try:
            return {name for name, *_ in await admin.list_consumer_groups() if pipeline.topic in name}
        finally:
            await admin.close()

    return run_apart(listed())


@pytest.mark.parametrize(
    ("command", "environment"),
    [((*SHUNT, "run", "classify"), {}), ((*FAUST, "worker", "-l", "info"), {"SHUNT_ROLE": "classify"})],
    ids=["shunt-run", "faust-worker"],
)
def test_a_worker_decides_and_drains(
    pipeline: Pipeline, command: tuple[str, ...], environment: dict[str, str]
) -> None:
    """Both ways to start it run the same lane: ready, decides, drains with 0; Faust joins no group of its own."""
    pipeline.make_topics()
    worker = pipeline.start(*command, **environment)
    pipeline.produce([event(n) for n in range(40)])
    pipeline.until(lambda: len(pipeline.decisions()) == 40)
    assert fetched(f"{pipeline.address()}/ready")["ready"]
    assert groups(pipeline) == {f"{pipeline.topic}-classify"}
    assert pipeline.end(worker) == 0, pipeline.errors
    assert sorted(p.name for p in pipeline.folder.iterdir()) == ["errors", "shunt.toml"]


def test_one_process_runs_both_lanes_and_another_shows_them(pipeline: Pipeline) -> None:
    """Without a role both lanes run; the feeds worker's page shows what became of the records, dead ones too."""
    pipeline.make_topics()
    lanes = pipeline.start(*SHUNT, "run")
    pipeline.produce([*(event(n) for n in range(30)), b"no JSON", None])
    pipeline.until(lambda: len(pipeline.decisions()) == 31)
    assert {"classify", "escalate"} <= set(fetched(f"{pipeline.address()}/health")["lanes"])
    feeds = pipeline.start(*SHUNT, "run", "feeds")
    address = pipeline.address()
    totals = {"decisions": 30, "dead": 1, "tombstones": 1}
    pipeline.until(lambda: fetched(f"{address}/api/live")["totals"] == totals)
    pipeline.until(lambda: fetched(f"{address}/api/live")["lag"] == {"classify": 0, "escalate": 0})
    assert fetched(f"{address}/api/live")["causes"] == {"not_json": 1}
    with urlopen(address, timeout=5) as page:
        assert b"<title>Shunt" in page.read()
    assert pipeline.end(feeds) == 0
    assert pipeline.end(lanes) == 0


def test_a_shadow_run_says_what_would_be_and_leaves_nothing(pipeline: Pipeline) -> None:
    """Only the input topic is there, and it alone is there afterwards; the figures cover exactly the limit."""

    async def make_input_only() -> None:
        await create(pipeline.connection, plan(pipeline.settings.kafka, None, partitions=2)[:1])

    run_apart(make_input_only())
    pipeline.produce([*(event(n) for n in range(49)), b"no JSON"])
    status, shown = pipeline.run(*SHUNT, "run", "--shadow", "--limit", "50", "--json")
    assert status == 0, pipeline.errors
    told = json.loads(shown)
    assert (told["records"], told["accepted"], told["dead_letters"]) == (50, 49, {"not_json": 1})
    assert told["share_escalated"] == 0.0
    names = pipeline.settings.kafka.names.model_dump().values()
    assert set(run_apart(look_up(pipeline.connection, names))) == {pipeline.topic}
    assert groups(pipeline) == {f"{pipeline.topic}-shadow"}


def test_a_worker_that_is_stopped_while_it_starts_leaves_at_once(pipeline: Pipeline) -> None:
    """Who notices a wrong address does not have to wait for its time-outs."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nobody = f"127.0.0.1:{silent.getsockname()[1]}"
        pipeline.write(nobody, nobody)
        worker = pipeline.start(*SHUNT, "run", "classify")
        pipeline.address()
        began_s = time.monotonic()
        assert pipeline.end(worker) == 0, pipeline.errors
        assert time.monotonic() - began_s < 5


def test_what_does_not_fit_is_one_line_and_nothing_is_consumed(pipeline: Pipeline, stack: Stack) -> None:
    """A missing topic or model ends the worker with 1 and one line that says what to change."""
    status, _ = pipeline.run(*SHUNT, "run", "classify")
    assert status == 1
    (line,) = [line for line in pipeline.errors.splitlines() if " CRITICAL " in line]
    assert "does not exist" in line
    assert "shunt topics create" in line
    pipeline.make_topics()
    pipeline.produce([event(0)])
    pipeline.write(stack.bootstrap_servers, stack.triton_grpc, model="no_such_model")
    status, _ = pipeline.run(*FAUST, "worker", SHUNT_ROLE="classify")
    assert status == 1
    (line,) = [line for line in pipeline.errors.splitlines() if " CRITICAL " in line]
    assert "no_such_model" in line
    assert "Traceback" not in pipeline.errors
    assert groups(pipeline) == set()


@pytest.mark.parametrize(
    ("broken", "role", "said"),
    [
        ("[kafka]\nbootstrap = 'x'\n", "", "unknown key 'kafka.bootstrap'"),
        (None, "", "there is no settings file"),
        ("[[tasks]]\nname='s'\ntiers=['echo']\nthreshold=0.5\n", "clasify", "SHUNT_ROLE is 'clasify'"),
    ],
)
def test_bad_settings_through_faust_are_one_line_and_status_2(
    tmp_path: Path, broken: str | None, role: str, said: str
) -> None:
    """Faust's own command shows no traceback either."""
    if broken is not None:
        (tmp_path / "shunt.toml").write_text(broken)
    done = subprocess.run(
        [*FAUST, "worker"],
        cwd=tmp_path,
        env={**os.environ, "SHUNT_ROLE": role},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_importing_the_app_needs_no_settings(tmp_path: Path) -> None:
    """A library import is no start: settings are read when Faust asks for the app."""
    done = subprocess.run(
        [sys.executable, "-c", "import stream_app.app"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_limit_belongs_to_the_shadow(tmp_path: Path) -> None:
    """A lane that runs until it is stopped has no limit: saying so beats ignoring it."""
    (tmp_path / "shunt.toml").write_text("[[tasks]]\nname='s'\ntiers=['echo']\nthreshold=0.5\n")
    worker = await asyncio.create_subprocess_exec(
        *SHUNT, "run", "classify", "--limit", "3", cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await worker.communicate()
    assert worker.returncode == 2
    assert b"--limit, --json and --policy go with --shadow" in errors


def test_an_agent_and_a_page_of_the_users_own(pipeline: Pipeline) -> None:
    """The example in the documentation works, and its agent never sees the decisions of an aborted transaction."""
    pipeline.make_topics()
    example = Path(__file__).parents[2] / "docs" / "examples"
    final = b'{"kind":"final","answers":{"sentiment":{"label":"%s"}}}'

    async def publish() -> None:
        servers = pipeline.settings.kafka.bootstrap_servers
        producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=pipeline.topic)
        await producer.start()
        for label, committed in ((b"aborted", False), (b"positive", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(pipeline.settings.kafka.names.decisions, value=final % label, partition=0)
            await (producer.commit_transaction() if committed else producer.abort_transaction())
        await producer.stop()

    run_apart(publish())
    worker = pipeline.start(
        *FAUST[:-1], "own_agent", "worker", "-l", "info", SHUNT_CONFIG=str(pipeline.file), PYTHONPATH=str(example)
    )
    address = pipeline.address()
    pipeline.until(lambda: fetched(f"{address}/labels/"))
    assert fetched(f"{address}/labels/") == {"positive": 1}
    assert fetched(f"{address}/health")["alive"]
    assert pipeline.end(worker) == 0, pipeline.errors

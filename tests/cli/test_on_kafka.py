"""The commands on real Kafka and real Triton, as processes, in the order in which a person first needs them."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_app.errors import StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import look_up, require
from stream_app.settings import Kafka
from tests.conftest import run_apart

from .command import Ran, command, environment, shunt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_app.local.stack import Stack

WAIT_S = 60


class Pipeline:
    """A folder with a shunt.toml for topics of its own, and the command line in it."""

    def __init__(self, folder: Path, stack: Stack, llm_url: str, topic: str) -> None:
        self.folder = folder
        self.topic = topic
        self.kafka = Kafka(bootstrap_servers=stack.bootstrap_servers, input_topic=topic, group=topic)
        self.write(triton=stack.triton_grpc, llm_url=llm_url)

    def write(self, *, triton: str, llm_url: str, tiers: str = '["echo"]', more: str = "") -> None:
        """The settings: one task that the echo model answers."""
        (self.folder / "shunt.toml").write_text(
            f'[kafka]\nbootstrap_servers = "{self.kafka.bootstrap_servers}"\n'
            f'input_topic = "{self.topic}"\ngroup = "{self.topic}"\n'
            f'[triton]\nurl = "{triton}"\n'
            f'[[tasks]]\nname = "sentiment"\ntiers = {tiers}\nthreshold = 0.9\n'
            f'[[llm.endpoints]]\nbase_url = "{llm_url}"\n[web]\nport = 0\n{more}'
        )

    def shunt(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Ran:
        """One command, to its end."""
        return shunt(*arguments, cwd=self.folder, stdin=stdin, **variables)

    def json_lines(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints for programs."""
        ran = self.shunt(*arguments)
        assert ran.status == 0, ran.err
        return [json.loads(line) for line in ran.out.splitlines()]


@pytest.fixture
def pipeline(tmp_path: Path, stack: Stack, llm_url: str, unique_name: Callable[[str], str]) -> Pipeline:
    """A pipeline whose topics do not exist yet."""
    return Pipeline(tmp_path, stack, llm_url, unique_name("reviews"))


def test_topics_are_made_once_and_shown(pipeline: Pipeline) -> None:
    """A dry run changes nothing, a second run changes nothing, and the decisions have the input's partitions."""
    dry = pipeline.shunt("topics", "create", "--partitions", "3", "--dry-run")
    assert dry.status == 0
    connection = Connection(pipeline.kafka)
    names = list(pipeline.kafka.names.model_dump().values())
    assert dry.out.count("would be made") == len(names)
    assert run_apart(look_up(connection, names)) == {}

    made = pipeline.shunt("topics", "create", "--partitions", "3", "--escalation-partitions", "2")
    assert made.status == 0, made.err
    assert made.out.count(" made\n") == len(names)
    assert made.out.rstrip().endswith("shunt check")
    found = run_apart(look_up(connection, names))
    assert {name: topic.partitions for name, topic in found.items()} == {
        name: 1
        if name.endswith(("-control", "-audit-results"))
        else 2
        if name.endswith(("-escalations", "-parked", "-verdicts", "-audits"))
        else 3
        for name in names
    }
    assert found[f"{pipeline.topic}-dlq"].message_bytes_max > found[pipeline.topic].message_bytes_max
    assert pipeline.shunt("topics", "create").out.count(" exists\n") == len(names)


def test_topics_that_do_not_fit_are_named(pipeline: Pipeline, stack: Stack) -> None:
    """A compacted output loses records: the worker refuses it, `check` and `topics create` say it."""

    async def make() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
        await admin.start()
        compacted = {"cleanup.policy": "compact"}
        await admin.create_topics([NewTopic(f"{pipeline.topic}-decisions", 5, 1, topic_configs=compacted)])
        await admin.close()

    run_apart(make())
    made = pipeline.shunt("topics", "create", "--partitions", "2")
    assert f"! {pipeline.topic}-decisions is compacted" in made.out
    assert "has 5 partitions, the input 2" in pipeline.shunt("topics", "create").out
    checked = pipeline.shunt("check")
    assert checked.status == 1
    assert "✗" in checked.out
    with pytest.raises(StartError, match="is compacted"):
        run_apart(require(Connection(pipeline.kafka)))


def test_check_names_what_is_missing_and_what_to_change(pipeline: Pipeline, stack: Stack, llm_url: str) -> None:
    """Each thing is asked by itself: one that fails hides no other."""
    states = {
        finding["what"]: finding for finding in map(json.loads, pipeline.shunt("check", "--json").out.splitlines())
    }
    assert states["Kafka"]["state"] == "ok"
    assert "shunt topics create" in states[pipeline.topic]["detail"]
    assert states["model echo"]["state"] == "ok"
    assert states["tasks and policy"]["state"] == "ok"
    assert states["LLM"]["state"] == "ok"

    assert pipeline.shunt("topics", "create").status == 0
    whole = pipeline.shunt("check")
    assert whole.status == 0, whole.out
    assert "✗" not in whole.out

    pipeline.write(triton=stack.triton_grpc, llm_url=llm_url, tiers='["nobody_has_this"]')
    assert "✗ model nobody_has_this" in pipeline.shunt("check").out
    pipeline.write(triton="127.0.0.1:1", llm_url="http://127.0.0.1:1/v1", more="")
    away = pipeline.shunt("check")
    assert away.status == 1
    assert "no Triton answers at 127.0.0.1:1" in away.out
    assert "http://127.0.0.1:1/v1 does not answer" in away.out
    second = '[[llm.endpoints]]\nbase_url = "http://127.0.0.1:1/v1"\n'
    pipeline.write(triton=stack.triton_grpc, llm_url=llm_url, more=second)
    several = pipeline.shunt("check")
    assert several.status == 1
    assert "✓ LLM 1" in several.out
    assert "✗ LLM 2" in several.out
    own = f'[[llm.endpoints]]\nbase_url = "{llm_url}"\nmodel = "own"\nsecond_opinion = true\n'
    own += "usd_per_million_input = 0\nusd_per_million_output = 0\n"
    pipeline.write(triton=stack.triton_grpc, llm_url=llm_url, more=own)
    twice = pipeline.shunt("check")
    assert twice.status == 0, twice.out
    assert "✓ LLM, second opinion" in twice.out
    assert "! second opinion" in twice.out
    assert "expects nothing of own beside gpt-4o-mini: it is never asked" in twice.out
    pipeline.write(triton=stack.triton_grpc, llm_url="https://llm.invalid/v1")
    assert "OPENAI_API_KEY" in pipeline.shunt("check").out


def test_init_reads_the_fields_off_the_topic_and_overwrites_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """The file names what a sample shows, and a file that is there is kept unless told otherwise."""
    assert pipeline.shunt("topics", "create").status == 0
    lines = [
        {"review_id": number, "subject": "Lamp", "said": {"body": f"A lamp, number {number}."}} for number in range(9)
    ]
    assert pipeline.shunt("produce", "-", stdin="\n".join(map(json.dumps, lines)).encode()).status == 0
    arguments = ("init", "--topic", pipeline.topic, "--bootstrap-servers", pipeline.kafka.bootstrap_servers)
    before = (tmp_path / "shunt.toml").read_text()
    refused = pipeline.shunt(*arguments)
    assert refused.status == 2
    assert "--force" in refused.err
    assert (tmp_path / "shunt.toml").read_text() == before
    written = pipeline.shunt(*arguments, "--force")
    assert written.status == 0, written.err
    text = (tmp_path / "shunt.toml").read_text()
    assert 'id_field = "review_id"' in text
    assert 'text_fields = ["subject", "said.body"]' in text
    away = shunt("--config", "other.toml", "init", "--bootstrap-servers", "127.0.0.1:1", cwd=tmp_path)
    assert away.status == 0
    assert "127.0.0.1:1" in away.err
    assert (tmp_path / "other.toml").exists()


def test_produce_sends_each_line_as_it_is(pipeline: Pipeline, tmp_path: Path) -> None:
    """Broken lines too: what they become is the pipeline's business. Empty lines are nothing."""
    missing = pipeline.shunt("produce", "-", stdin=b"{}")
    assert missing.status == 1
    assert "shunt topics create" in missing.err
    assert pipeline.shunt("topics", "create", "--partitions", "1").status == 0
    sent = [b'{"id":"a","text":"one"}', b"broken \xff\x1b[31m", b'{"id":"b",  "text":"two"}']
    with gzip.open(tmp_path / "in.jsonl.gz", "wb") as file:
        file.write(b"\n".join([sent[0], b"", sent[1]]) + b"\r\n" + sent[2])
    ran = pipeline.shunt("produce", "in.jsonl.gz")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("3 records")
    assert ran.err == ""
    shown = pipeline.shunt("consume", "input", "--to-end").out.splitlines()
    assert len(shown) == 3
    assert all(line.isprintable() for line in shown)
    assert shown[0].split()[:2] == [f"{pipeline.topic}/0/0", "a"]
    as_json = pipeline.json_lines("consume", pipeline.topic, "--limit", "2", "--json")
    assert as_json[0] == {"id": "a", "text": "one"}
    assert as_json[1]["offset"] == 1


def test_produce_keeps_its_rate(pipeline: Pipeline) -> None:
    """`--rate 10`: the eleventh record leaves after a second."""
    assert pipeline.shunt("topics", "create").status == 0
    started = time.monotonic()
    assert pipeline.shunt("produce", "-", "--rate", "10", stdin=b'{"text":"x"}\n' * 21).status == 0
    assert 2.0 <= time.monotonic() - started < 20.0


def test_a_record_the_topic_does_not_take_is_named(pipeline: Pipeline) -> None:
    """Nobody looks for the line that was too large."""
    assert pipeline.shunt("topics", "create").status == 0
    big = b'{"text":"' + b"x" * 2_000_000 + b'"}'
    ran = pipeline.shunt("produce", "-", stdin=b'{"text":"x"}\n' + big)
    assert ran.status == 1
    assert ran.err.startswith(f"shunt: line 2 was not taken by topic '{pipeline.topic}'")


@pytest.fixture
def worker(pipeline: Pipeline) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `shunt run`; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (pipeline.folder / "run.log").open("ab") as log:
            started.append(
                subprocess.Popen(command("run"), cwd=pipeline.folder, stdout=log, stderr=log, env=environment())
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_from_an_empty_cluster_to_decisions(
    pipeline: Pipeline, worker: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The first-use path: topics, run, produce, consume, status, dead letters; then the worker drains and leaves."""
    assert pipeline.shunt("topics", "create", "--partitions", "2").status == 0
    running = worker()
    good = [json.dumps({"id": f"r{number}", "text": "a fine lamp", "n": number}) for number in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join([*good, "no json \x1b[2J", '{"id": "x"}']))
    assert pipeline.shunt("produce", "in.jsonl").status == 0
    decisions = pipeline.json_lines("consume", "--limit", "20", "--json")
    assert {decision["id"] for decision in decisions} == {f"r{number}" for number in range(20)}
    assert {decision["kind"] for decision in decisions} == {"final"}
    readable = pipeline.shunt("consume", "--to-end").out
    assert readable.count("sentiment=positive 0.995 (small)") == 20

    deadline = time.monotonic() + WAIT_S
    while (told := pipeline.json_lines("status", "--json")[0])["lanes"]["classify"]["lag"]:
        assert time.monotonic() < deadline, told
    assert told["decisions"]["final"] == 20
    assert told["decisions"]["by"] == {"small": 20}
    assert told["decisions"]["escalated_share"] == 0
    assert told["dead_letters"] == {"not_json": 1, "missing_text": 1}
    assert "lag" in pipeline.shunt("status").out

    letters = pipeline.json_lines("dlq", "list", "--json")
    assert sorted(letter["cause"] for letter in letters) == ["missing_text", "not_json"]
    only = pipeline.json_lines("dlq", "list", "--json", "--cause", "not_json", "--stage", "decode", "--limit", "1")
    place = f"{only[0]['partition']}/{only[0]['offset']}"
    shown = pipeline.shunt("dlq", "show", place)
    assert shown.status == 0, shown.err
    assert all(line.isprintable() for line in shown.out.splitlines())
    assert "not_json" in shown.out
    assert pipeline.shunt("dlq", "show", "--raw", place).out == "no json \x1b[2J"
    assert pipeline.shunt("dlq", "show", "0/999").status == 1

    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S) == 0, (tmp_path / "run.log").read_text()[-2000:]


def test_consume_ends_by_ctrl_c_with_status_0(pipeline: Pipeline) -> None:
    """Following a topic has no other end, so Ctrl-C is its ordinary one."""
    assert pipeline.shunt("topics", "create").status == 0
    assert pipeline.shunt("produce", "-", stdin=b'{"id":"a","text":"x"}').status == 0
    with subprocess.Popen(
        command("consume", "input"), cwd=pipeline.folder, env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        assert b"a" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b""
        assert running.wait(WAIT_S) == 0


def test_what_reads_does_not_create(pipeline: Pipeline) -> None:
    """Looking at a topic that is not there fails in one line and does not make it."""
    for arguments in (("consume",), ("produce", "-"), ("dlq", "list"), ("status",), ("dlq", "show", "0/0")):
        ran = pipeline.shunt(*arguments, stdin=b"{}")
        assert ran.status == 1
        assert ran.err.count("\n") == 1
    assert asyncio.run(look_up(Connection(pipeline.kafka), pipeline.kafka.names.model_dump().values())) == {}

"""Workers killed and stalled while both lanes are at work: every record still has exactly one outcome.

Processes as a user starts them, on real Kafka and Triton, with the stand-in LLM. From a printed seed, workers are
killed with SIGKILL, or stopped for longer than their session and continued (zombies). The count is made by
confluent-kafka, which shares no code with the project.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import load_settings
from tests.conftest import run_apart
from tests.kafka.reading import committed_and_end, produce, read_all

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = 12_000
PARTITIONS = 4
SESSION_S = 6
STALL_S = 8
DEADLINE_S = 120
WORDS = ("good", "bad", "good", "bad", "good", "bad", "good", "bad", "good", "unsure")

CONFIG = """
[kafka]
bootstrap_servers = "{kafka}"
group = "{name}"
input_topic = "{name}"
session_timeout_ms = {session_ms}
transaction_timeout_ms = 10000
handover_s = 2.0
[triton]
url = "{triton}"
[[tasks]]
name = "sentiment"
tiers = ["scripted"]
threshold = 0.9
[llm]
usd_per_hour = 1000.0
usd_per_day = 1000.0
[[llm.endpoints]]
base_url = "{llm}"
requests_per_minute = 60000
tokens_per_minute = 60000000
[web]
port = 0
"""


class Fleet:
    """The worker processes: started, killed, stalled, and all ended at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = 0
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        role = name.split("-", maxsplit=1)[0]
        self._logs += 1
        with (self._folder / f"{name}-{self._logs}.log").open("wb") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "stream_app.cli", "run", role],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        self.workers[name].kill()
        self.workers[name].wait()
        self.start(name)

    def stall(self, name: str) -> None:
        os.kill(self.workers[name].pid, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        os.kill(self.workers[name].pid, signal.SIGCONT)

    def end(self) -> dict[str, int]:
        for worker in self.workers.values():
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        return {name: worker.wait(60) for name, worker in self.workers.items()}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A stand-in LLM without limits, a tenth of a second an answer."""
    options = StandInOptions(latency_median_ms=100)
    running = Stack(tmp_path_factory.mktemp("llm"), kafka=False, triton=False, llm_options=options)
    run_apart(running.open())
    yield running.llm_base_url
    run_apart(running.close())


@pytest.mark.timeout(300)
def test_killed_and_stalled_workers_lose_and_duplicate_nothing(stack, llm, unique_name, tmp_path):
    """0 lost, 0 duplicated, 0 altered, small finals in order per partition; lag ends at exactly zero."""
    seed = int(os.environ.get("SHUNT_FAULT_SEED", "0")) or random.randrange(1, 10**6)
    print(f"seed {seed}: repeat with SHUNT_FAULT_SEED={seed}")
    name, rng = unique_name("faults"), random.Random(seed)
    text = CONFIG.format(
        kafka=stack.bootstrap_servers, triton=stack.triton_grpc, llm=llm, name=name, session_ms=SESSION_S * 1000
    )
    (tmp_path / "shunt.toml").write_text(text)
    settings = load_settings(tmp_path / "shunt.toml")
    run_apart(create(Connection(settings.kafka), plan(settings.kafka, None, partitions=PARTITIONS)))
    values = [
        json.dumps({"id": f"r-{number}", "text": f"{WORDS[number % 10]} {number}"}).encode()
        for number in range(RECORDS)
    ]
    values[100] = values[5_000] = b"no JSON"
    fleet = Fleet(tmp_path)
    names = ["classify-1", "classify-2", "escalate-1", "escalate-2"]
    try:
        for worker in names:
            fleet.start(worker)
        inject(fleet, names, rng, lambda part: produce_part(settings, values, part))
        wait_for_rest(settings)
        statuses = fleet.end()
    finally:
        for worker in fleet.workers.values():
            worker.kill()
    check(settings, values)
    # One that was killed last may not have put its signal handlers up again when the end came.
    assert set(statuses.values()) <= {0, -signal.SIGTERM}, statuses


def produce_part(settings, values: list[bytes], part: int) -> None:
    """One of six parts of the input, so that there is work under every fault."""
    size = RECORDS // 6
    chosen = values[part * size : (part + 1) * size]
    keys = [f"k{number % 97}".encode() for number in range(size)]
    produce(settings.kafka.bootstrap_servers, settings.kafka.input_topic, chosen, partitions=PARTITIONS, keys=keys)


def inject(fleet: Fleet, names: list[str], rng: random.Random, feed) -> None:
    """Six faults, input arriving under each: kills and stalls alternate over both lanes."""
    feed(0)
    time.sleep(6)
    for part, kind in enumerate(("kill", "stall", "kill", "stall", "kill"), 1):
        victim = rng.choice(names)
        feed(part)
        time.sleep(rng.uniform(0.0, 0.4))
        print(f"{kind} {victim}")
        if kind == "kill":
            fleet.kill(victim)
            time.sleep(rng.uniform(0.5, 2.0))
        else:
            fleet.stall(victim)
            time.sleep(STALL_S)
            fleet.go_on(victim)


def wait_for_rest(settings) -> None:
    """Returns when the lag of both lanes is exactly zero."""
    names, deadline = settings.kafka.names, time.monotonic() + DEADLINE_S
    while True:
        lags = {
            lane: {
                number: end - committed
                for number, (committed, end) in committed_and_end(
                    settings.kafka.bootstrap_servers, topic, f"{settings.kafka.group}-{lane}"
                ).items()
            }
            for lane, topic in (("classify", names.input), ("escalate", names.escalations))
        }
        if all(lag == 0 for lane in lags.values() for lag in lane.values()):
            return
        assert time.monotonic() < deadline, lags
        time.sleep(0.5)


def check(settings, values: list[bytes]) -> None:
    """The independent count."""
    names, where = settings.kafka.names, settings.kafka.bootstrap_servers
    sources = {f"{m.topic()}/{m.partition()}/{m.offset()}": m for m in read_all(where, names.input)}
    assert len(sources) == len(values)
    decisions = read_all(where, names.decisions)
    letters = read_all(where, names.dlq)
    outcomes = Counter(dict(m.headers())["shunt-source"].decode() for m in [*decisions, *letters])
    assert not set(sources) - set(outcomes), "lost"
    assert not [source for source, times in outcomes.items() if times > 1], "duplicated"
    assert set(outcomes) == set(sources)
    small: dict[int, list[int]] = {}
    for message in decisions:
        decision = json.loads(message.value())
        source = sources[dict(message.headers())["shunt-source"].decode()]
        assert decision["id"] == json.loads(source.value())["id"], "altered"
        assert message.key() == source.key()
        expected_llm = "unsure" in json.loads(source.value())["text"]
        assert decision["decided_by"] == ("llm" if expected_llm else "small")
        if not expected_llm:
            small.setdefault(message.partition(), []).append(decision["source"]["offset"])
    assert all(offsets == sorted(offsets) for offsets in small.values()), "out of order"
    assert {m.value() for m in letters} == {b"no JSON"}

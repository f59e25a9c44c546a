"""The whole loop on real Kafka and Triton, under load: what is escalated teaches, the challenger comes into force."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import groupby

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.local.stack import Stack
from stream_app.training.held_out import LEARNED, read_held_out
from stream_app.training.making import TrainingSet
from stream_app.training.train import train_rows
from tests.conftest import run_apart
from tests.faults.fleet import Fleet
from tests.faults.pipeline import Pipeline
from tests.kafka.reading import each_message, produce
from tests.settings_file import write_settings
from tests.training.test_distill import BASE, NEW, OLD, texts

PARTITIONS = 3
LLM = "recorded"
HARD_SHARE = 0.5
"""Of the stream: words that version 1 has never seen."""


def stream(count, seed):
    """(text, label): half of it is what the model in force knows, half what it must ask about."""
    known, unknown = texts(OLD, count, seed), texts(NEW, count, seed + 1)
    chosen = random.Random(seed)
    return [next(unknown) if chosen.random() < HARD_SHARE else next(known) for _ in range(count)]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CALIBRATION = [{"id": f"c-{at}", "text": text, "label": label} for at, (text, label) in enumerate(stream(900, 41))]
COPIES = [(row["text"].upper(), row["label"]) for row in CALIBRATION[:60]]
"""Calibration texts that turn up in the stream: answered like any other, and they must not teach."""


class Loop:
    """A pipeline in a folder, its workers, and a feed of events whose LLM answers are recorded."""

    def __init__(self, folder, pipeline, fleet, events):
        self.folder, self.pipeline, self.fleet, self.events = folder, pipeline, fleet, events
        self.written = 0
        self._feeding = threading.Lock()

    def shunt(self, *arguments):
        """A command as a user gives it; its standard output. It must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "stream_app.cli", *arguments],
            cwd=self.folder, env=os.environ, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def feed(self, count):
        """So many events more."""
        with self._feeding:
            rows = self.events[self.written : self.written + count]
            assert len(rows) == count, "the recorded events are used up"
            values = [
                json.dumps({"id": f"r-{at}", "text": text}).encode()
                for at, (text, _) in enumerate(rows, self.written)
            ]
            produce(
                self.pipeline.bootstrap_servers, self.pipeline.name, values,
                partitions=PARTITIONS, keys=[f"k{at % 31}".encode() for at in range(count)],
            )  # fmt: skip
            self.written += count

    def finals(self):
        """Each decision by its source; fails where a source has two."""
        found = {}
        for message in each_message(self.pipeline.bootstrap_servers, self.pipeline.topic("decisions")):
            decision = json.loads(message.value())
            assert decision["kind"] == "final"
            place = decision["source"]["partition"], decision["source"]["offset"]
            assert place not in found, "decided twice"
            found[place] = decision
        return found

    def settled(self, within_s=120.0):
        """All that was written has its decision: these."""
        deadline = time.monotonic() + within_s
        while len(found := self.finals()) < self.written:
            assert time.monotonic() < deadline, (len(found), self.written)
            time.sleep(0.5)
        return found

    def under_load(self, *command):
        """A command while events keep coming."""
        stop = threading.Event()

        def run():
            while not stop.wait(0.2):
                self.feed(40)

        feeder = threading.Thread(target=run, daemon=True)
        feeder.start()
        try:
            return json.loads(self.shunt(*command, "--json").splitlines()[-1])
        finally:
            stop.set()
            feeder.join()


@pytest.fixture
def loop(stack, tmp_path, unique_name):
    """Version 1, its policy, the workers of both lanes, and an LLM that answers as recorded."""
    models = tmp_path / "models"
    train_rows(
        TrainingSet(BASE, ["base.jsonl"]), task="mood", folder=models / "mood_fast", validation={}, curve=False
    )
    triton = Stack(tmp_path / "stack", kafka=False, llm=False, model_repository=models, load_models=["mood_fast"])
    events = [*COPIES, *stream(12_000, 31)]
    lines(tmp_path / "recorded.jsonl", ({"text": text, "llm": {LLM: label}} for text, label in events))
    llm = LlmServer(
        tmp_path / "llm.log",
        StandInOptions(latency_median_ms=5, replay=tmp_path / "recorded.jsonl", replay_names=(LLM,)),
    )
    run_apart(triton.open())
    run_apart(llm.start())
    pipeline = Pipeline(stack.bootstrap_servers, triton.triton_grpc, llm.base_url, unique_name("loop"), PARTITIONS)
    pipeline.create_topics()
    write_settings(
        tmp_path,
        pipeline.name,
        bootstrap_servers=stack.bootstrap_servers,
        triton=triton.triton_grpc,
        llm_base_url=llm.base_url,
        task={"name": "mood", "tiers": ["mood_fast"], "target_error": 0.1},
        policy={"file": "policy.json"},
        kafka={"session_timeout_ms": 6_000, "transaction_timeout_ms": 10_000, "handover_s": 2.0},
        llm={"usd_per_hour": 1_000.0, "usd_per_day": 1_000.0, "hint": False, "prune": False},
        endpoint={
            "model": LLM,
            "requests_per_minute": 60_000,
            "tokens_per_minute": 60_000_000,
            "usd_per_million_input": 0.1,
            "usd_per_million_output": 0.4,
        },
        web={"port": 0},
    )
    fleet = Fleet(tmp_path)
    yield Loop(tmp_path, pipeline, fleet, events)
    fleet.abandon()
    run_apart(llm.process.stop())
    run_apart(triton.close())


def share_asked(decisions):
    """Of these decisions, the share that the LLM gave."""
    by = Counter(decision["decided_by"] for decision in decisions)
    return by["llm"] / by.total()


@pytest.mark.timeout(600)
def test_the_loop_under_load(loop):
    """Escalated, answered, learned, calibrated, shadowed, promoted: less is escalated, nothing is lost or decided
    twice. And rolled back: the version before decides again. No calibration row teaches, though some come by."""
    lines(loop.folder / "calibration.jsonl", CALIBRATION)
    lines(loop.folder / "base.jsonl", ({"id": row.id, "text": row.text, "label": row.label} for row in BASE))
    lines(loop.folder / "texts.jsonl", ({"text": text} for text, _ in stream(200, 51)))
    loop.shunt("calibrate", "calibration.jsonl", "--out", "policy.json")
    loop.fleet.add("one", "classify")
    loop.fleet.add("two", "classify")
    loop.fleet.add("slow", "escalate")
    loop.feed(600)
    before = share_asked(loop.settled().values())

    told = loop.shunt(
        "distill", "--from-topic", "--task", "mood", "--base", "base.jsonl", "--held-out", "policy.json",
        "--unlabelled", "texts.jsonl", "--out", "models",
    )  # fmt: skip
    assert "held out, by text" in told
    learned = read_held_out(loop.folder / "models" / "mood_fast" / "2" / LEARNED)
    assert not any(learned.holds_text(row["text"]) or learned.holds_id(row["id"]) for row in CALIBRATION)
    assert not any(learned.holds_text(text) for text, _ in COPIES)

    shutil.copy(loop.folder / "policy.json", loop.folder / "challenger.json")
    shutil.copy(loop.folder / "policy.held-out.jsonl", loop.folder / "challenger.held-out.jsonl")
    calibrated = ("calibration.jsonl", "--challenger", "models/mood_fast/2", "--out", "challenger.json")
    loop.shunt("calibrate", *calibrated)
    shadow = json.loads(loop.shunt("run", "--shadow", "--policy", "challenger.json", "--limit", "600", "--json"))
    assert shadow["against_live"]["coverage"] > shadow["against_live"]["live_coverage"]

    promoted = loop.under_load("promote", "challenger.json")
    assert (promoted["before"], promoted["now"], promoted["behind"]) == ("policy@1", "policy@2", [])
    loop.feed(600)
    loop.settled()
    back = loop.under_load("rollback")
    assert (back["now"], back["behind"]) == ("policy@1", [])
    loop.feed(300)

    by_policy = {}
    for place, decision in sorted(loop.settled().items()):
        by_policy.setdefault(decision["policy"], []).append((place, decision))
    after = share_asked(decision for _, decision in by_policy["policy@2"])
    print(f"escalated {before:.3f} before, {after:.3f} after; {loop.written} events")
    assert after < 2 / 3 * before
    decided = sorted((place, decision["policy"]) for place, decision in loop.finals().items())
    assert len(decided) == loop.written
    for number in range(PARTITIONS):
        turns = [policy for policy, _ in groupby(policy for (partition, _), policy in decided if partition == number)]
        assert turns == ["policy@1", "policy@2", "policy@1"]

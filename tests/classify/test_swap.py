"""A policy and its model are swapped under load: no event is lost or decided twice, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from stream_app.local.stack import Stack
from stream_app.routing.policy import dump_policy
from tests.classify.policies import scripted_policy
from tests.conftest import TEST_MODELS, run_apart
from tests.faults.fleet import Fleet
from tests.faults.pipeline import Pipeline
from tests.kafka.reading import committed_and_end, each_message, produce
from tests.settings_file import write_settings

PARTITIONS = 4
SHA_OF_2 = "2" * 64


@pytest.fixture
def triton(tmp_path):
    """A Triton of this test's own, since versions come and go: version 1 is loaded, the folder of 2 is there."""
    repository = tmp_path / "models"
    shutil.copytree(TEST_MODELS / "scripted", repository / "scripted")
    stack = Stack(tmp_path / "stack", kafka=False, llm=False, model_repository=repository, load_models=["scripted"])
    run_apart(stack.open())
    shutil.copytree(repository / "scripted" / "1", repository / "scripted" / "2")
    yield stack
    run_apart(stack.close())


@pytest.fixture
def place(stack, triton, tmp_path, unique_name):
    """Topics, a settings file with the policy in force, and a challenger's: version 2 of the model, a lower cut."""
    pipeline = Pipeline(
        stack.bootstrap_servers, triton.triton_grpc, "http://127.0.0.1:9/v1", unique_name("swap"), PARTITIONS
    )
    pipeline.create_topics()
    settings = write_settings(
        tmp_path,
        pipeline.name,
        bootstrap_servers=stack.bootstrap_servers,
        triton=triton.triton_grpc,
        task={"target_error": 0.05},
        policy={"file": "policy.json"},
        kafka={"session_timeout_ms": 6_000, "transaction_timeout_ms": 10_000, "handover_s": 2.0},
        classify={"batch_records_max": 500},
        web={"port": 0},
    )
    (tmp_path / "policy.json").write_bytes(dump_policy(scripted_policy(number=1)))
    better = scripted_policy(number=2, model_version="2", threshold=0.7, coverage=0.9, sha256=SHA_OF_2)
    (tmp_path / "challenger.json").write_bytes(dump_policy(better))
    return Place(tmp_path, pipeline, settings)


class Place:
    """Where a test works: the folder of settings and policies, and the topics."""

    def __init__(self, folder, pipeline, settings):
        self.folder, self.pipeline, self.settings = folder, pipeline, settings
        self.written = 0

    def shunt(self, *arguments):
        """A command as a user gives it; stdout, stderr and status."""
        return subprocess.run(
            [sys.executable, "-m", "stream_app.cli", *arguments],
            cwd=self.folder,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *arguments):
        """A command that is left to run."""
        return subprocess.Popen(
            [sys.executable, "-m", "stream_app.cli", *arguments], cwd=self.folder, env=os.environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def feed(self, events):
        """Events of which some are sure, some sure by the challenger alone, some sure by neither."""
        values = [
            json.dumps({"id": f"r-{number}", "text": f"it is p={(0.95, 0.8, 0.6)[number % 3]}"}).encode()
            for number in range(self.written, self.written + events)
        ]
        keys = [f"k{number % 97}".encode() for number in range(self.written, self.written + events)]
        produce(self.pipeline.bootstrap_servers, self.pipeline.name, values, partitions=PARTITIONS, keys=keys)
        self.written += events

    def committed(self):
        offsets = committed_and_end(
            self.pipeline.bootstrap_servers, self.pipeline.name, f"{self.pipeline.name}-classify"
        )
        return sum(max(0, committed) for committed, _ in offsets.values())

    def wait_for(self, records, within_s=60.0):
        deadline = time.monotonic() + within_s
        while self.committed() < records:
            assert time.monotonic() < deadline, self.committed()
            time.sleep(0.1)

    def policies(self):
        """Of all that left: by partition, in the order of its offsets, the policy and the model that decided."""
        by_source = {}
        for message in each_message(self.pipeline.bootstrap_servers, self.pipeline.topic("decisions")):
            decision = json.loads(message.value())
            answer, source = decision["answers"]["sentiment"], decision["source"]
            assert answer["policy"] == decision["policy"]
            key = (source["partition"], source["offset"])
            assert key not in by_source, "decided twice"
            by_source[key] = (answer["policy"], answer["model"], answer["threshold"])
        for message in each_message(self.pipeline.bootstrap_servers, self.pipeline.topic("escalations")):
            escalation = json.loads(dict(message.headers())["shunt-escalation"])
            small, source = escalation["asks"][0]["small"], escalation["source"]
            key = (source["partition"], source["offset"])
            assert key not in by_source, "decided twice"
            by_source[key] = (escalation["policy"], small["model"], small["threshold"])
        return by_source


def feeding(place, stop, pause_s=0.05, events=300):
    """Feeds on until it is told to stop, from a thread."""

    def run():
        while not stop.is_set():
            place.feed(events)
            time.sleep(pause_s)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


OLD, NEW = ("scripted@1", "scripted:1", 0.9), ("scripted@2", "scripted:2", 0.7)


def in_order(decided):
    """Every partition: by the old policy, then by the new one."""
    for number in range(PARTITIONS):
        line = [by for (partition, _), by in sorted(decided.items()) if partition == number]
        assert line == sorted(line), f"partition {number} went back to the old policy"


def test_a_swap_under_load_with_a_kill_in_its_middle(place):
    """Two workers under load; one is killed while the swap waits for it: one outcome for each event, and the order of
    policies is that of the events. The old version is let go, and a worker that starts later decides by the new one."""
    fleet, stop = Fleet(place.folder), threading.Event()
    feeder = feeding(place, stop)
    try:
        fleet.add("one", "classify")
        fleet.add("two", "classify")
        place.wait_for(2_000)
        promoting = place.start("promote", "challenger.json", "--json")
        time.sleep(1.5)
        fleet.kill("two")
        told, _ = promoting.communicate(timeout=120)
        assert promoting.returncode == 0, told
        report = json.loads(told.strip().splitlines()[-1])
        assert (report["before"], report["now"], report["behind"]) == ("scripted@1", "scripted@2", [])
        assert report["let_go"] == ["scripted:1"]
        place.wait_for(place.written)
        fleet.kill("one")
        place.wait_for(place.written + 1_000)
        stop.set()
        feeder.join()
        place.wait_for(place.written)
    finally:
        stop.set()
        fleet.abandon()
    decided = place.policies()
    assert len(decided) == place.written
    assert set(decided.values()) == {OLD, NEW}
    in_order(decided)

"""A policy and its model are swapped under load: no event is lost or decided twice, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby

import pytest
from confluent_kafka import KafkaException

from stream_app.classify.deciding import Decider
from stream_app.classify.in_force import Policing
from stream_app.classify.start import classify_lane
from stream_app.local.stack import Stack
from stream_app.routing.control import Control
from stream_app.routing.policy import dump_policy
from stream_app.telemetry import Metrics
from tests.classify.lanes import caught_up, pipeline
from tests.classify.policies import scripted_policy
from tests.conftest import TEST_MODELS, run_apart
from tests.faults.fleet import Fleet
from tests.faults.pipeline import Pipeline
from tests.kafka.reading import committed_and_end, each_message, produce, read_all
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


def sureness(event_id):
    """Sure by either policy, by the challenger alone, by neither."""
    return (0.95, 0.8, 0.6)[int(event_id[2:]) % 3]


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
        """So many events more."""
        values = [
            json.dumps({"id": f"r-{number}", "text": f"it is p={sureness(f'r-{number}')}"}).encode()
            for number in range(self.written, self.written + events)
        ]
        keys = [f"k{number % 97}".encode() for number in range(self.written, self.written + events)]
        produce(self.pipeline.bootstrap_servers, self.pipeline.name, values, partitions=PARTITIONS, keys=keys)
        self.written += events

    def each_committed(self):
        """Of each partition, how many records are decided; nothing for a topic that was just made."""
        group = f"{self.pipeline.name}-classify"
        try:
            offsets = committed_and_end(self.pipeline.bootstrap_servers, self.pipeline.name, group)
        except KafkaException:
            return []
        return [max(0, committed) for committed, _ in offsets.values()]

    def committed(self):
        return sum(self.each_committed())

    def wait_for_everyone(self, records, within_s=120.0):
        """Until so many are decided, and some of each partition: none must first see the policy that comes next."""
        self.wait_for(records, within_s)
        deadline = time.monotonic() + within_s
        while not all(self.each_committed()):
            assert time.monotonic() < deadline, self.each_committed()
            time.sleep(0.1)

    def wait_for(self, records, within_s=120.0):
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
            assert sureness(decision["id"]) >= answer["threshold"], "accepted by one policy, signed by another"
            by_source[key] = (answer["policy"], answer["model"], answer["threshold"])
        for message in each_message(self.pipeline.bootstrap_servers, self.pipeline.topic("escalations")):
            escalation = json.loads(dict(message.headers())["shunt-escalation"])
            small, source = escalation["asks"][0]["small"], escalation["source"]
            key = (source["partition"], source["offset"])
            assert key not in by_source, "decided twice"
            assert sureness(json.loads(message.value())["id"]) < small["threshold"], "as above, escalated"
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


@contextmanager
def under_load(place):
    """Workers to be started and struck while events keep coming; in the end every event has its decision."""
    fleet, stop = Fleet(place.folder), threading.Event()
    feeder = feeding(place, stop)
    try:
        yield fleet
        stop.set()
        feeder.join()
        place.wait_for(place.written)
    finally:
        stop.set()
        fleet.abandon()


OLD, NEW = ("scripted@1", "scripted:1", 0.9), ("scripted@2", "scripted:2", 0.7)


def in_order(decided, *turns):
    """Every partition: all by the first of `turns`, then all by the second, and so on."""
    for number in range(PARTITIONS):
        line = [by for (partition, _), by in sorted(decided.items()) if partition == number]
        assert [by for by, _ in groupby(line)] == list(turns), number


def test_a_swap_under_load_with_a_kill_in_its_middle(place):
    """Two workers under load; one is killed while the swap waits for it, and the other later: one outcome for each
    event, and in each partition first all by the old policy, then all by the new. The old version is let go."""
    with under_load(place) as fleet:
        fleet.add("one", "classify")
        fleet.add("two", "classify")
        place.wait_for_everyone(2_000)
        promoting = place.start("promote", "challenger.json", "--json")
        time.sleep(1.5)
        fleet.kill("two")
        told, _ = promoting.communicate(timeout=120)
        assert promoting.returncode == 0, told
        report = json.loads(told.strip().splitlines()[-1])
        assert (report["before"], report["now"], report["behind"]) == ("scripted@1", "scripted@2", [])
        assert report["let_go"] == ["scripted:1"]
        fleet.kill("one")  # a worker that starts now decides by the control topic, and not by its policy file
        place.wait_for(place.written + 1_000)
    decided = place.policies()
    assert len(decided) == place.written
    in_order(decided, OLD, NEW)


def test_a_promote_that_is_killed_and_a_worker_that_sleeps_through_a_swap(place):
    """The swap is killed while it waits for a worker that stands still: nothing has changed, and it may be run again.
    The sleeper is passed over; its model is gone when it wakes, and it decides by the policy in force. Then back."""
    with under_load(place) as fleet:
        fleet.add("one", "classify")
        fleet.add("two", "classify")
        place.wait_for_everyone(2_000)
        fleet.freeze("two")
        first = place.start("promote", "challenger.json")
        time.sleep(2.5)
        first.kill()
        first.communicate()
        again = place.shunt("promote", "challenger.json", "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["let_go"] == ["scripted:1"]
        fleet.thaw("two")
        place.wait_for(place.written)
        fleet.leave("one", 30)
        place.wait_for(place.written + 1_000)  # by the one that slept, alone
        back = place.shunt("rollback", "--json")
        assert back.returncode == 0, back.stderr
        assert json.loads(back.stdout)["now"] == "scripted@1"
        place.wait_for(place.written + 500)
    decided = place.policies()
    assert len(decided) == place.written
    in_order(decided, OLD, NEW, OLD)


def test_what_is_not_better_or_cannot_be_served_changes_nothing(place):
    """Not better: refused, with the reason, unless it is forced, which is recorded. No such version: refused."""
    worse = scripted_policy(number=3, model_version="2", coverage=0.7, sha256=SHA_OF_2)
    (place.folder / "worse.json").write_bytes(dump_policy(worse))
    refused = place.shunt("promote", "worse.json")
    assert refused.returncode == 2
    assert "certified coverage 70.0%, in force 80.0%" in refused.stderr
    missing = scripted_policy(number=4, model_version="3", coverage=0.9)
    (place.folder / "missing.json").write_bytes(dump_policy(missing))
    refused = place.shunt("promote", "missing.json")
    assert refused.returncode == 1
    assert "Triton does not serve scripted, version 3" in refused.stderr
    assert place.shunt("rollback").returncode == 2
    forced = place.shunt("promote", "worse.json", "--force", "--keep-old", "--json")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout)["let_go"] == []
    control = Control()
    for message in each_message(place.pipeline.bootstrap_servers, place.pipeline.topic("control")):
        control.fold(message.key(), message.value())
    assert control.candidate is None
    assert control.in_force.policy == worse
    assert control.in_force.forced == ("sentiment: certified coverage 70.0%, in force 80.0%",)
    assert "sentiment: scripted@3" in place.shunt("check").stdout
    assert place.shunt("try", "p=0.95").returncode == 0
    status = place.shunt("status")
    assert "policy        scripted@3, by promote at" in status.stdout
    assert "after scripted@1; forced: sentiment: certified coverage" in status.stdout


class HeldBack(Decider):
    """A decider whose answers are there, and are told only when the test says so."""

    def __init__(self, decider):
        super().__init__(decider.routers, decider._scorer)
        self.decided, self.told = asyncio.Event(), asyncio.Event()

    async def decide(self, texts):
        verdicts = await super().decide(texts)
        self.decided.set()
        await self.told.wait()
        return verdicts


async def test_a_batch_under_way_is_signed_by_the_policy_that_decided_it(stack, make_topic, unique_name):
    """Another policy comes into force between a batch's scores and its records: they name the one before."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    names = settings.kafka.names
    values = [
        json.dumps({"id": f"r-{number}", "text": f"p={sureness(f'r-{number}')}"}).encode() for number in range(300)
    ]
    produce(stack.bootstrap_servers, names.input, values)
    async with classify_lane(settings, Metrics()) as lane:
        sound, stop = lane._batch_work.policing, asyncio.Event()
        held = HeldBack(sound.decider)
        lane._batch_work.policing = Policing(held, sound.outbox, None)
        later = settings.model_copy(update={"tasks": (settings.tasks[0].model_copy(update={"threshold": 0.7}),)})
        async with classify_lane(later, Metrics()) as other:
            task = asyncio.create_task(lane.run(stop))
            await asyncio.wait_for(held.decided.wait(), 20)
            lane.put_in_force(other._batch_work.policing)
            held.told.set()
            await caught_up(settings, task)
            stop.set()
            await task
    finals = [json.loads(message.value()) for message in read_all(stack.bootstrap_servers, names.decisions)]
    for final in finals:
        assert sureness(final["id"]) >= final["answers"]["sentiment"]["threshold"]
    thresholds = {final["answers"]["sentiment"]["threshold"] for final in finals if sureness(final["id"]) > 0.9}
    assert 0.9 in thresholds
    asked = 0
    for message in read_all(stack.bootstrap_servers, names.escalations):
        small = json.loads(dict(message.headers())["shunt-escalation"])["asks"][0]["small"]
        asked += sureness(json.loads(message.value())["id"]) == 0.8
        assert sureness(json.loads(message.value())["id"]) < small["threshold"]
    assert asked
    assert len(finals) + len(read_all(stack.bootstrap_servers, names.escalations)) == 300


async def test_what_waits_for_a_model_that_is_gone_is_decided_by_the_policy_in_force(stack, make_topic, unique_name):
    """A batch pinned to a version that Triton does not serve waits; once another policy is in force, no more."""
    settings = pipeline(stack, make_topic, unique_name)
    values = [json.dumps({"id": f"r-{number}", "text": "good"}).encode() for number in range(300)]
    produce(stack.bootstrap_servers, settings.kafka.input_topic, values, partitions=3)
    async with classify_lane(settings, Metrics()) as lane:
        sound = lane._batch_work.policing
        (router,) = sound.decider.routers
        (tier,) = router.tiers
        gone = replace(router, tiers=(replace(tier, models=(replace(tier.models[0], version="9"),)),))
        waiting = Policing(Decider((gone,), sound.decider._scorer), sound.outbox, "gone@1")
        lane._batch_work.policing = waiting
        stop = asyncio.Event()
        task = asyncio.create_task(lane.run(stop))
        while waiting._idle.is_set():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert read_all(stack.bootstrap_servers, settings.kafka.names.decisions) == []
        lane.put_in_force(sound)
        await caught_up(settings, task)
        await asyncio.wait_for(waiting.unused(), 5)
        stop.set()
        await task
    assert len(read_all(stack.bootstrap_servers, settings.kafka.names.decisions)) == 300


def test_a_challenger_in_the_shadow_is_compared_with_the_live_decisions(place):
    """Its models are served beside those in use; what it would accept, and with which labels, is held against the
    live finals, whoever comes first. The live lane notices nothing."""
    fleet = Fleet(place.folder)
    try:
        fleet.add("one", "classify")
        place.feed(600)
        place.wait_for(600)
        shadow = place.shunt("run", "--shadow", "--policy", "challenger.json", "--limit", "600", "--json")
        assert shadow.returncode == 0, shadow.stderr
        told = json.loads(shadow.stdout)
        place.feed(60)
        place.wait_for(660)
    finally:
        fleet.abandon()
    assert told["challenger"] == "scripted@2"
    assert (told["accepted"], told["escalated"]) == (400, 200)
    # The LLM lane does not run here: only what the small model was sure of has a live final.
    assert told["against_live"] == {
        "matched": 200,
        "coverage": 1.0,
        "live_coverage": 1.0,
        "agreement": 1.0,
        "answered_and_accepted": 0,
        "agreement_where_answered": None,
        "unmatched": 400,
    }
    assert set(place.policies().values()) == {OLD}

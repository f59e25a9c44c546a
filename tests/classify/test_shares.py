"""A share that is held in the stream: each partition's controller goes on where it stood, whatever happens."""

from __future__ import annotations

import json
import random
import time
from itertools import count

import numpy as np

from stream_app.classify.holding import levels_in
from stream_app.codec import decode_escalation
from stream_app.kafka import finished
from stream_app.kafka.owned import Committed
from stream_app.routing.policy import dump_policy
from stream_app.routing.share import HeldShare, Ranks
from tests.classify.lanes import caught_up, classifying, pipeline
from tests.classify.policies import scripted_policy
from tests.faults.fleet import Fleet
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.settings_file import write_settings

SHARE = 0.2
HELD = HeldShare(SHARE, Ranks(np.array([0.5, 1.0]), np.array([0.0, 1.0])), floor=0.6)
PARTITIONS = 3


def events(numbers, rng, low=0.5):
    """Texts whose confidence is anywhere from `low` to 1, with a label at random."""
    for number in numbers:
        sure = rng.uniform(low, 1.0)
        positive = sure if rng.random() < 0.5 else 1 - sure
        yield json.dumps({"id": f"r-{number}", "text": f"it is p={positive:.4f}"}).encode()


def outcomes(bootstrap_servers, names):
    """Partition -> offset -> (confidence, accepted, the answer), of every record."""
    found = {number: {} for number in range(PARTITIONS)}
    for message in read_all(bootstrap_servers, names.decisions):
        decision = json.loads(message.value())
        answer, source = decision["answers"]["sentiment"], decision["source"]
        assert source["offset"] not in found[source["partition"]], "decided twice"
        found[source["partition"]][source["offset"]] = (answer["confidence"], True, answer)
    for message in read_all(bootstrap_servers, names.escalations):
        escalation = decode_escalation(message.headers()).escalation
        small, source = escalation.asks[0].small, escalation.source
        assert source.offset not in found[source.partition], "decided twice"
        found[source.partition][source.offset] = (small.confidence, False, small)
    return found


def held_throughout(found, expected):
    """Asserts that one controller a partition, never interrupted, would have decided the very same."""
    for number, by_offset in found.items():
        assert len(by_offset) == expected[number]
        controller = HELD.controller(None)
        for offset in sorted(by_offset):
            confidence, accepted, answer = by_offset[offset]
            level = controller.level
            rank = float(HELD.ranks.rank_of(np.float32(confidence)))
            if abs(rank - level) > 1e-5:  # what is told of a confidence has six digits
                assert controller.escalates(rank) is not accepted, (number, offset, rank, level)
            else:
                controller.level += controller.step * (SHARE - (not accepted))
            if accepted:
                assert abs(answer["threshold"] - (0.5 + max(level, 0.0) / 2)) < 1e-5 or level <= 0
                if abs(confidence - HELD.floor) > 1e-5:
                    assert answer["certified"] is (confidence > HELD.floor)
                    assert answer.get("uncertified_reason") == (None if confidence > HELD.floor else "manual")


async def test_the_share_is_held_and_every_answer_names_its_cut(stack, make_topic, unique_name, tmp_path):
    """A fifth is escalated though the traffic becomes less sure; each answer names the cut it was held against."""
    (tmp_path / "policy.json").write_bytes(dump_policy(scripted_policy(share=SHARE)))
    tasks = [{"name": "sentiment", "tiers": ["scripted"], "escalate_max": SHARE}]
    policy = {"file": str(tmp_path / "policy.json")}
    settings = pipeline(stack, make_topic, unique_name, tasks=tasks, policy=policy)
    rng = random.Random(1)
    values = [*events(range(3_000), rng), *events(range(3_000, 6_000), rng, low=0.3)]
    produce(stack.bootstrap_servers, settings.kafka.input_topic, values, partitions=PARTITIONS)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    found = outcomes(stack.bootstrap_servers, settings.kafka.names)
    held_throughout(found, [2_000] * PARTITIONS)
    escalated = sum(not accepted for of in found.values() for _, accepted, _ in of.values())
    assert abs(escalated / 6_000 - SHARE) <= 0.01


def test_it_survives_kills_and_rebalances(stack, make_topic, unique_name, tmp_path):
    """kill -9 and a worker that comes and goes: each partition is decided as by one controller that never stopped."""
    settings = pipeline(stack, make_topic, unique_name)
    names = settings.kafka.names
    (tmp_path / "policy.json").write_bytes(dump_policy(scripted_policy(share=SHARE)))
    write_settings(
        tmp_path,
        names.input,
        bootstrap_servers=stack.bootstrap_servers,
        triton=stack.triton_grpc,
        task={"escalate_max": SHARE},
        policy={"file": "policy.json"},
        kafka={"session_timeout_ms": 6_000},
        classify={"batch_records_max": 64},  # many runs, so that a kill falls between two of a partition
        web={"port": 0},
    )
    rng, fleet, numbers = random.Random(2), Fleet(tmp_path), count()
    written = 0

    def feed(events_count):
        nonlocal written
        values = list(events([next(numbers) for _ in range(events_count)], rng, low=rng.choice([0.3, 0.5, 0.7])))
        produce(stack.bootstrap_servers, names.input, values, partitions=PARTITIONS)
        written += events_count

    try:
        fleet.add("one", "classify")
        feed(3_000)
        wait_for(stack, settings, 300)
        fleet.kill("one")
        feed(3_000)
        fleet.add("two", "classify")
        wait_for(stack, settings, 4_500)
        fleet.kill("two")
        feed(3_000)
        fleet.leave("one", 30)
        wait_for(stack, settings, written)
    finally:
        fleet.abandon()
    held_throughout(outcomes(stack.bootstrap_servers, names), [written // PARTITIONS] * PARTITIONS)


def wait_for(stack, settings, records, within_s=60.0):
    """Returns when the group has committed so many records, over all partitions."""
    deadline = time.monotonic() + within_s
    group = f"{settings.kafka.group}-classify"
    while True:
        offsets = committed_and_end(stack.bootstrap_servers, settings.kafka.input_topic, group)
        if sum(max(0, committed) for committed, _ in offsets.values()) >= records:
            return
        assert time.monotonic() < deadline, offsets
        time.sleep(0.05)


def test_what_stands_beside_the_offset_is_believed_only_if_it_belongs_to_it(caplog):
    """Metadata of another offset, garbled, or of a level that no controller comes to: the share begins anew."""
    told = finished.encode(7, frozenset(), '{"sentiment":0.25,"mood":7.0}')
    assert levels_in(Committed(7, told), 0) == {"sentiment": 0.25}
    assert levels_in(Committed(8, told), 0) == {}
    assert levels_in(Committed(7, told[:-3]), 0) == {}
    assert levels_in(Committed(7, ""), 0) == {}
    assert levels_in(Committed(7, finished.encode(7, frozenset(), "lease")), 0) == {}
    assert caplog.text.count("begin anew") == 3

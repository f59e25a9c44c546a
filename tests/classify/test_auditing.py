"""What the hot path leaves for audits: the drawn accepted answers, beside their decisions, and nothing else."""

from __future__ import annotations

import asyncio
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.classify.auditing import audited_rows
from stream_app.codec import Codec
from stream_app.events import Event, Source
from stream_app.routing.audit_draw import AuditDraw
from tests.classify.lanes import caught_up, classifying, pipeline
from tests.kafka.reading import produce, read_all


@st.composite
def batches(draw):
    """Runs of partitions with gaps between offsets, some records no events: counts, places, events."""
    counts, places, events = [], [], []
    for partition in range(draw(st.integers(0, 4))):
        offset, count = draw(st.integers(0, 10**6)), draw(st.integers(0, 30))
        for place in range(sum(counts), sum(counts) + count):
            offset += draw(st.sampled_from([1, 1, 1, 2, 5, 10**7]))
            if draw(st.booleans()):
                places.append(place)
                events.append(Event("e", "t", b"{}", Source("reviews", partition, offset, 0), None))
        counts.append(count)
    return counts, places, events


@given(batches(), st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_the_rows_are_those_whose_records_are_drawn(batch, share):
    """However the batch is cut into runs, whatever gaps and unreadable records lie between."""
    counts, places, events = batch
    draw = AuditDraw("p@1", share)
    expected = [
        row
        for row, event in enumerate(events)
        if draw.drawn("reviews", event.source.partition, np.array([event.source.offset]))[0]
    ]
    assert audited_rows(draw, counts, places, events) == expected


TASKS = [
    {"name": "sentiment", "tiers": ["scripted"], "threshold": 0.9},
    {"name": "second", "tiers": ["scripted"], "threshold": 0.7},
]


def drawn_of(settings, messages) -> dict[tuple[int, int], bool]:
    """Each decided or escalated record's place, and whether it is drawn."""
    draw = AuditDraw(None, settings.audit.share)
    found = {}
    for partition, offset in messages:
        found[partition, offset] = bool(draw.drawn(settings.kafka.input_topic, partition, np.array([offset]))[0])
    return found


async def test_drawn_answers_are_audited_and_decided_as_if_they_were_not(stack, make_topic, unique_name):
    """Every drawn event with an accepted task has one audit of just those tasks; the decisions are the same without.

    Also where the other task is escalated: else what is audited would be no uniform sample of the accepted answers.
    """
    words = ["good", "bad", "unsure", "p=0.8"]  # the last one is sure enough for the second task alone
    values = [json.dumps({"id": f"r-{n}", "text": f"it is {words[n % 4]}"}).encode() for n in range(1_200)]
    decided = {}
    for share in (0.25, 0.0):
        settings = pipeline(stack, make_topic, unique_name, tasks=TASKS, audit={"share": share})
        names = settings.kafka.names
        await asyncio.to_thread(
            produce,
            stack.bootstrap_servers,
            names.input,
            values,
            partitions=3,
            keys=[b"k%d" % n for n in range(1_200)],
        )
        async with classifying(settings) as task:
            await caught_up(settings, task)
        finals = [json.loads(message.value()) for message in read_all(stack.bootstrap_servers, names.decisions)]
        decided[share] = {decision["id"]: decision["answers"] for decision in finals}
        audits = read_all(stack.bootstrap_servers, names.audits)
        escalations = read_all(stack.bootstrap_servers, names.escalations)
        assert len(finals) + len(escalations) == 1_200
        if share == 0.0:
            assert audits == []
            continue
        found = {}
        codec = Codec(settings.events, settings.kafka.group)
        for message in audits:
            audit, headers, event = codec.decode_audit(message.key(), message.value(), message.headers())
            place = (audit.source.partition, audit.source.offset)
            assert place not in found
            found[place] = (set(audit.answers), event.id)
            assert message.value() == values[int(event.id[2:])]
            assert headers == ()
            for name, answer in audit.answers.items():
                assert set(audit.labels[name]) == {"negative", "positive"}
                assert (answer.decided_by, answer.escalated_because) == ("small", None)
        accepted = {(d["source"]["partition"], d["source"]["offset"]): {"sentiment", "second"} for d in finals}
        for message in escalations:
            escalation = json.loads(dict(message.headers())["shunt-escalation"])
            accepted[escalation["source"]["partition"], escalation["source"]["offset"]] = set(escalation["sure"])
        wanted = {place for place, is_drawn in drawn_of(settings, accepted).items() if is_drawn and accepted[place]}
        assert set(found) == wanted
        assert all(found[place][0] == accepted[place] for place in found)
        assert {len(tasks) for tasks, _ in found.values()} == {1, 2}
        assert len(found) > 100
    assert decided[0.25] == decided[0.0]

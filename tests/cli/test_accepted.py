"""`shunt sample --for audit`: which accepted answers people are asked about."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from aiokafka.structs import ConsumerRecord

from stream_app.cli.accepted import Accepted, AcceptedDraw
from stream_app.codec import Codec
from stream_app.events import Answer, Decision, Event, Kind, Source
from stream_app.settings import Events
from stream_app.training.held_out import HeldOut

ANSWER = Answer("good", 0.95, {"good": 0.95, "bad": 0.05}, 0.9, "small", "echo:1", True, policy="p@1")
ASKED = replace(ANSWER, confidence=None, decided_by="llm", model="gpt", certified=None, escalated_because="unsure")


def record(number: int, value: bytes | None, key: bytes | None = None) -> ConsumerRecord:
    return ConsumerRecord("decisions", 0, number, 0, 0, key or b"%d" % number, value, None, 0, 0, ())


def decided(
    number: int, answers: dict[str, Answer], kind: Kind = Kind.FINAL, topic: str = "reviews"
) -> ConsumerRecord:
    """A decision on the record of that number, which stands at that number."""
    event = Event(f"r-{number}", "x", b"{}", Source(topic, 0, number, 1_000), b"%d" % number)
    revision = int(kind is not Kind.FINAL)
    decision = Decision(event, kind, revision, "small", answers, "p@1", None, 5, replaces=0 if revision else None)
    return record(number, Codec(Events(), "g").encode_decision(decision)[0])


def drawn(records, count: int = 100, seed: int = 7, passed_over: HeldOut | None = None) -> list[Accepted]:
    draw = AcceptedDraw("p@1", "reviews", ["sentiment", "topic"], passed_over or HeldOut(), count, seed)
    for one in records:
        draw.take(one)
    return draw.drawn()


def test_only_what_the_policy_in_force_accepted_is_asked_about() -> None:
    """Not what was escalated, nor by another policy, nor a correction, nor another input's; of each event its
    accepted tasks alone.
    """
    found = drawn(
        [
            decided(0, {"sentiment": ANSWER, "topic": ASKED}),
            decided(1, {"sentiment": ASKED}),
            decided(2, {"sentiment": replace(ANSWER, policy="p@2")}),
            decided(3, {"sentiment": ANSWER}, Kind.CORRECTION),
            decided(4, {"sentiment": ANSWER}, topic="others"),
            decided(5, {"mood": ANSWER}),
            record(6, b"somebody else's"),
            decided(7, {"sentiment": ANSWER}),
        ],
        passed_over=HeldOut(frozenset({("r-7", None)})),
    )
    assert [(one.event.id, one.tasks) for one in found] == [("r-0", ("sentiment",))]


def test_what_was_erased_is_not_shown_to_anybody() -> None:
    """A tombstone takes out what its key had before, and nothing that came after it."""
    found = drawn([decided(0, {"sentiment": ANSWER}), record(1, None, b"0"), decided(2, {"sentiment": ANSWER})])
    assert [one.event.id for one in found] == ["r-2"]


def test_each_accepted_answer_has_the_same_chance_however_often_its_text_comes() -> None:
    """Over 1,000 seeds each of ten records is drawn three times in ten: the promise is about events, not texts."""
    records = [decided(number, {"sentiment": ANSWER}) for number in range(10)]
    found = Counter(one.event.id for seed in range(1_000) for one in drawn(records, 3, seed))
    assert sum(found.values()) == 3_000
    # 300 expected each, standard deviation 14.5: five of them.
    assert all(abs(count - 300) < 73 for count in found.values()), found

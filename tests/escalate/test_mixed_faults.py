"""A bad day: waits, refusals, hostile texts and answers of no use, all mixed, on real Kafka.

How often an event may be asked is worked out from the stand-in's own log, call by call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from stream_app.local.llm.rule import choose_label, read_text
from tests.escalate import escalated
from tests.escalate.hostile import HOSTILE
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.kafka.reading import read_all

EVENTS = 1_000
LABELS = ["negative", "positive"]
RETRY_AFTER_S = 0.15
REFUSED = ("refusal", "content_filter", "content_refused", "content_refused_azure")
INVALID = ("off_schema_label", "malformed_json", "truncated", "empty")
LOST = ("close", "close_midway")
SHARES: list[tuple[str, float, int | None]] = [
    ("rate_limited", 0.10, 1),
    ("rate_limited_silent", 0.05, 1),
    *((kind, 0.05, None) for kind in REFUSED),
    *((kind, 0.05, times) for kind, times in zip(INVALID, (1, None, 1, None), strict=True)),
    ("server_error", 0.02, 1),
    *((kind, 0.02, 1) for kind in LOST),
]
"""Kind, share of the events, how often such an event fails. Besides, every twentieth call is told to wait."""


def mixed_texts() -> list[str]:
    """Every fifth is hostile; no two are the same, for those would share a call."""
    return [
        f"(order {number}) {HOSTILE[number // 5 % len(HOSTILE)]}" if number % 5 == 0 else text
        for number, text in enumerate(escalated.texts(EVENTS))
    ]


def is_text(text: str) -> bool:
    """False for half a surrogate pair: JSON can escape it, and it is no text in any encoding."""
    return text.encode(errors="replace").decode() == text


def why_again(call: dict[str, Any]) -> str | None:
    """For which reason an event may be asked again after this call; None: it may not."""
    if call["status"] == 429 or call["status"] >= 500 or call["fault"] in LOST:
        return "failed"
    return "invalid" if call["fault"] in INVALID else None


def breaches(calls: list[dict[str, Any]]) -> list[str]:
    """What is wrong with an event's calls, in their order: too many, too early, or one too few."""
    whys = [why_again(call) for call in calls]
    found = [f"asked again after {call['fault'] or 'an answer'}" for call in calls[:-1] if not why_again(call)]
    if whys.count("invalid") > 2 or (whys.count("invalid") == 2 and whys[-1] != "invalid"):
        found.append("asked again after a second invalid answer")
    if whys[-1] == "failed" or (whys[-1] == "invalid" and whys.count("invalid") == 1):
        found.append(f"not asked again after {calls[-1]['fault']}")
    found += [
        "asked before the wait was over"
        for told, then in pairwise(calls)
        if told["fault"] == "rate_limited" and then["at_monotonic_s"] < told["ended_monotonic_s"] + RETRY_AFTER_S
    ]
    return found


def outcome(calls: list[dict[str, Any]]) -> str | None:
    """What the decision must give as the reason of its degradation, by the last call."""
    last = calls[-1]["fault"]
    return "refused" if last in REFUSED else "invalid_answer" if last in INVALID else None


def test_the_count_of_calls_finds_each_breach():
    """The check itself: what the rules allow passes it, and one call more or less does not."""
    kinds = {None: 200, "rate_limited": 429, "server_error": 500, "close": 0, "content_refused": 400}

    def wrong(*faults: str | None, pause_s: float = 1.0) -> int:
        return len(
            breaches(
                [
                    {
                        "fault": fault,
                        "status": kinds.get(fault, 200),
                        "at_monotonic_s": number * pause_s,
                        "ended_monotonic_s": number * pause_s,
                    }
                    for number, fault in enumerate(faults)
                ]
            )
        )

    for allowed in (
        [None],
        ["refusal"],
        ["rate_limited", "server_error", "close", "rate_limited", None],
        ["empty", None],
        ["rate_limited", "empty", "rate_limited", "truncated"],
        ["empty", "content_refused"],
    ):
        assert not wrong(*allowed), allowed
    for breach in (
        [None, None],
        ["refusal", None],
        ["content_refused", "content_refused"],
        ["empty", "empty", "empty"],
        ["empty", "empty", "rate_limited", None],
        ["empty"],
        ["rate_limited"],
    ):
        assert wrong(*breach), breach
    assert wrong("rate_limited", None, pause_s=RETRY_AFTER_S / 2)


@pytest.mark.timeout(300)
async def test_on_a_bad_day_every_event_has_its_outcome_and_none_is_asked_too_often(stack, llm, prefix):  # noqa: F811
    """Of 1,000 events a fifth is hostile, and each fifth meets waits, refusals and answers of no use.

    Exactly one outcome each; one re-ask after an invalid answer, retries only after 429, 5xx and a lost connection
    and not before the wait is over, none after a refusal; and no text changes the label or the set of labels.
    """
    settings = escalated.settings(stack.bootstrap_servers, llm.base_url, prefix, deadline_s=200, max_in_flight=100)
    for kind, share, times in SHARES:
        llm.fault(kind, share=share, times=times, retry_after_s=RETRY_AFTER_S)
    llm.fault("rate_limited", probability=0.05, retry_after_s=RETRY_AFTER_S)
    texts = mixed_texts()
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", texts)
    async with working(settings):
        await caught_up(stack, settings, within_s=240)

    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    letters = read_all(stack.bootstrap_servers, f"{prefix}-dlq")
    dead = Counter(int((letter.key() or b"").removeprefix(b"k")) for letter in letters)
    assert escalated.finals_per_source(decisions) + dead == Counter(range(EVENTS))
    assert set(dead) == {offset for offset, text in enumerate(texts) if not is_text(text)}
    asked: dict[str, list[dict[str, Any]]] = {}
    for call in llm.calls():
        asked.setdefault(call["event_id"], []).append(call)
    assert not {event_id: wrong for event_id, calls in asked.items() if (wrong := breaches(calls))}
    for decision in decisions:
        offset, answer = decision["source"]["offset"], decision["answers"]["sentiment"]
        reason = outcome(asked[f"r-{offset}"])
        assert decision["degraded_reason"] == reason, offset
        label = choose_label(LABELS, read_text(texts[offset])) if reason is None else "positive"
        assert (answer["label"], answer["decided_by"]) == (label, "small" if reason else "llm"), texts[offset]
    reviewed = read_all(stack.bootstrap_servers, f"{prefix}-review")
    copies = Counter(dict(copy.headers())["shunt-review-reason"] for copy in reviewed)
    reasons = Counter(decision["degraded_reason"] for decision in decisions)
    assert copies == {reason.encode(): count for reason, count in reasons.items() if reason}
    faults = Counter(call["fault"] for calls in asked.values() for call in calls)
    print(dict(reasons), dict(faults))
    assert set(faults) == {None, *(kind for kind, _, _ in SHARES)}

"""The figures of the live page, from what was folded in."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.web.live import DECISIONS_SHOWN, NAMES_MAX, LiveView
from stream_app.web.seconds import HOUR_S
from tests.web.folding import NOW_MS, dead_letter, decision


def view() -> LiveView:
    return LiveView("reviews", usd_per_hour=5.0, llm_model="gpt-4o-mini")


def test_an_empty_view_says_that_it_does_not_know() -> None:
    """Before anything was read, what is unknown is null and never a made-up zero."""
    told = view().snapshot(NOW_MS)
    assert told["share_escalated"] is None
    assert told["latency_ms"]["small"] == {"p50": None, "p99": None}
    assert told["lag"] == {"classify": None, "escalate": None}
    assert told["spend"]["llm_only_usd"] is None
    assert told["rates"]["input"] is None
    orjson.dumps(told)


def test_rates_count_the_last_whole_seconds() -> None:
    """The second that is still running does not pull the rate down."""
    live = view()
    for second in range(1, 6):
        for offset in range(20):
            live.decided(decision(NOW_MS - second * 1000 + 10, offset=offset))
    live.decided(decision(NOW_MS + 10))
    assert live.snapshot(NOW_MS + 20)["rates"]["small"] == 20.0


def test_each_of_several_labels_is_counted() -> None:
    """A list counts once for each of its labels, an empty one as none; it is shown in words."""
    live = view()
    for offset, label in enumerate([("spam", "threat"), ("spam",), ()]):
        live.decided(decision(NOW_MS - 2_000, offset=offset, label=label))
    told = live.snapshot(NOW_MS)
    assert told["labels"] == {"sentiment": {"none": 1, "spam": 2, "threat": 1}}
    assert [one["answers"]["sentiment"]["label"] for one in told["decisions"]] == ["none", "spam", "spam, threat"]


def test_the_share_counts_escalations_against_small_finals() -> None:
    """An escalated event counts when it is sent, not when the LLM has answered."""
    live = view()
    for offset in range(9):
        live.decided(decision(NOW_MS - 2_000, offset=offset))
    live.escalated(NOW_MS - 2_000)
    live.decided(decision(NOW_MS - 1_500, decided_by="llm", cost_usd=0.001))
    assert live.snapshot(NOW_MS)["share_escalated"] == pytest.approx(0.1)


def test_spend_is_compared_with_asking_the_llm_about_everything() -> None:
    """Ten finals, two asked at 1 cent each: 2 cents, against 10 cents, 80 % saved."""
    live = view()
    for offset in range(8):
        live.decided(decision(NOW_MS - 2_000, offset=offset))
    for offset in (8, 9):
        live.decided(decision(NOW_MS - 2_000, offset=offset, decided_by="llm", cost_usd=0.01))
    spend = live.snapshot(NOW_MS)["spend"]
    assert spend["hour_usd"] == pytest.approx(0.02)
    assert spend["llm_only_usd"] == pytest.approx(0.10)
    assert spend["saved"] == pytest.approx(0.8)


def test_a_provisional_is_shown_but_counts_nowhere() -> None:
    """An event has one final: a provisional before it must not make it two."""
    live = view()
    live.decided(decision(NOW_MS - 2_000, kind="provisional", cost_usd=0.01))
    told = live.snapshot(NOW_MS)
    assert (told["totals"]["decisions"], told["spend"]["hour_usd"]) == (0, 0.0)
    assert told["decisions"][0]["kind"] == "provisional"


def test_routes_and_their_latencies_are_told_apart() -> None:
    """A degraded final took the LLM's way, though the small model decided it."""
    live = view()
    live.decided(decision(NOW_MS - 3_000, took_ms=5))
    live.decided(decision(NOW_MS - 2_000, decided_by="llm", took_ms=900))
    live.decided(decision(NOW_MS - 1_000, degraded="deadline", took_ms=60_000))
    told = live.snapshot(NOW_MS)
    assert {told["hour"][route] for route in ("small", "llm", "degraded")} == {1}
    assert told["latency_ms"]["small"]["p50"] == 5
    assert told["latency_ms"]["llm"]["p50"] == pytest.approx((900 + 60_000) / 2)
    assert [shown["route"] for shown in told["decisions"]] == ["degraded", "llm", "small"]
    assert told["decisions"][0]["reason"] == "deadline"


def test_old_latencies_do_not_linger() -> None:
    """A bad start an hour ago says nothing of now."""
    live = view()
    live.decided(decision(NOW_MS - 1_000_000, took_ms=9_000))
    assert live.snapshot(NOW_MS)["latency_ms"]["small"]["p50"] is None


def test_dead_letters_are_shown_with_their_cause_and_counted_by_it() -> None:
    """A person sees what was wrong, and what is wrong most often."""
    live = view()
    live.dead(dead_letter(1), NOW_MS)
    live.dead(dead_letter(2, cause="missing_text"), NOW_MS)
    live.dead(dead_letter(3), NOW_MS)
    told = live.snapshot(NOW_MS)
    assert told["causes"] == {"not_json": 2, "missing_text": 1}
    assert told["dead"][0]["source"] == "reviews/1/3"


@pytest.mark.parametrize("payload", [b'{"product": "kettle"}', b'{"title": "kettle", "stars": 3}'])
def test_what_an_event_is_about_comes_from_its_payload(payload: bytes) -> None:
    """The text is not in a decision; a product or a title is the next best thing to show."""
    live = view()
    live.decided(decision(payload=payload))
    assert live.snapshot(NOW_MS)["decisions"][0]["about"] == "kettle"


@pytest.mark.parametrize(
    "payload", [b"{}", b'{"product": 3}', b'{"product": "\\ud800"}', b"[]", b'{"a":' + b"[" * 5_000, b'{"title"']
)
def test_a_strange_payload_is_shown_as_nothing(payload: bytes) -> None:
    """What a user put into a payload cannot stop the page."""
    live = view()
    live.decided(decision(payload=payload))
    assert live.snapshot(NOW_MS)["decisions"][0]["about"] is None


def test_memory_is_bounded_whatever_the_stream_brings() -> None:
    """Endless different labels, causes and ids leave a snapshot of bounded size."""
    live = view()
    for n in range(5 * NAMES_MAX):
        live.decided(decision(NOW_MS - 1_000, offset=n, event_id="x" * 100_000, label=f"label-{n}"))
        live.dead(dead_letter(n, cause=f"cause-{n}", message="y" * 100_000), NOW_MS)
    told = live.snapshot(NOW_MS)
    assert len(told["decisions"]) == DECISIONS_SHOWN
    assert sum(len(labels) for labels in told["labels"].values()) == NAMES_MAX
    assert len(json.dumps(told)) < 100_000


@given(st.lists(st.integers(NOW_MS - 3 * HOUR_S * 1000, NOW_MS - 1_000), max_size=100))
def test_the_hour_holds_what_the_last_hour_held_in_any_order(times_ms: list[int]) -> None:
    """Records come in no order over partitions: the hour's count depends on their times alone."""
    live = view()
    for n, at_ms in enumerate(times_ms):
        live.decided(decision(at_ms, offset=n))
    first_second = NOW_MS // 1000 - HOUR_S
    expected = sum(first_second <= at_ms // 1000 < NOW_MS // 1000 for at_ms in times_ms)
    assert live.snapshot(NOW_MS)["hour"]["small"] == expected

"""Faults by share and latencies are a matter of the seed and the event: the same in every run, in any order. Pure."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.llm import chance
from stream_app.local.llm.chance import Times, chances
from stream_app.local.llm.faults import Fault, Faults
from stream_app.local.llm.latency import Latency

MIX = {"rate_limited": 0.08, "refusal": 0.06, "off_schema_label": 0.06}
EVENTS = [f"reviews/{number}" for number in range(20_000)]


def mixed(seed: int = 0, **more: object) -> Faults:
    faults = Faults(seed)
    for kind, share in MIX.items():
        faults.add(Fault.from_json({"kind": kind, "share": share, **more}))
    return faults


def kinds(faults: Faults, events: list[str]) -> dict[str, str | None]:
    found = {event: faults.next_for("", event) for event in events}
    return {event: fault and fault.kind for event, fault in found.items()}


def test_several_faults_have_their_shares_at_once():
    """Each kind hits its share of the events, no event is hit by two, and the rest goes well."""
    hit = Counter(kinds(mixed(), EVENTS).values())
    for kind, share in MIX.items():
        assert hit[kind] / len(EVENTS) == pytest.approx(share, abs=0.01)
    assert hit[None] / len(EVENTS) == pytest.approx(0.8, abs=0.01)


def test_the_order_of_the_calls_does_not_matter_and_the_seed_does():
    """The same events fail in the same way however their calls come; another seed picks others."""
    assert kinds(mixed(), EVENTS) == kinds(mixed(), EVENTS[::-1])
    assert kinds(mixed(seed=1), EVENTS) != kinds(mixed(), EVENTS)


def test_a_repeat_is_answered_or_fails_again_as_it_is_set():
    """An event fails once unless told otherwise; so many times, or always."""
    for times, fails in ((1, [True, False, False]), (2, [True, True, False]), (None, [True, True, True])):
        faults = mixed(times=times)
        rounds = [kinds(faults, EVENTS[:2_000]) for _ in range(3)]
        failing = {event for event, kind in rounds[0].items() if kind}
        assert len(failing) > 300
        for number, told in enumerate(rounds):
            assert {event for event, kind in told.items() if kind} == (failing if fails[number] else set())
        assert all(earlier[event] in (later[event], None) or not later[event]
                   for earlier, later in pairwise(rounds) for event in failing)  # fmt: skip


def test_shares_are_at_most_everything():
    """What cannot be is refused: shares beyond all events, or a share with what counts calls."""
    faults = mixed()
    with pytest.raises(ValueError, match="together"):
        faults.add(Fault.from_json({"kind": "empty", "share": 0.9}))
    for wrong in ({"share": 0.1, "count": 3}, {"share": 0.1, "probability": 0.5}, {"times": 2}, {"other": 1}):
        with pytest.raises(ValueError):
            Fault.from_json({"kind": "empty", **wrong})


def test_a_share_and_a_count_go_together():
    """A fault by count hits whoever is not in a share."""
    faults = mixed()
    faults.add(Fault.from_json({"kind": "empty", "count": 5}))
    assert Counter(kinds(faults, EVENTS).values())["empty"] == 5


def test_latencies_follow_their_distribution():
    """Lognormal about the median; a sigma of 0 is constant; a share of the calls is slow."""
    drawn = [chances(7, event) for event in EVENTS]
    plain = [Latency(300, 0.5).draw_s(one) for one in drawn]
    assert median(plain) == pytest.approx(0.3, rel=0.02)
    assert quantiles(plain, n=20)[-1] == pytest.approx(0.3 * 2.276, rel=0.04)  # exp(0.5 * 1.645)
    assert {Latency(300).draw_s(one) for one in drawn} == {0.3}
    tailed = [Latency(300, 0.5, slow_share=0.02, slow_ms=30_000).draw_s(one) for one in drawn]
    assert sum(took_s > 5 for took_s in tailed) / len(drawn) == pytest.approx(0.02, abs=0.004)
    assert Latency(0, 0.5).draw_s(drawn[0]) == 0


@given(st.integers(), st.text(), st.integers(0, 10))
def test_chances_repeat_and_stay_inside(seed, name, nth):
    """Drawn twice it is the same, and never 0 or 1; any text will do for a name."""
    drawn = chances(seed, name, nth)
    assert drawn == chances(seed, name, nth)
    assert all(0 < one < 1 for one in drawn)
    assert drawn != chances(seed, name, nth + 1)


def test_what_is_remembered_of_events_is_bounded(monkeypatch):
    """The events heard of first are forgotten first."""
    monkeypatch.setattr(chance, "EVENTS_MAX", 3)
    times = Times()
    assert [times.next(event) for event in "abcabcd"] == [0, 0, 0, 1, 1, 1, 0]
    assert [times.of(event) for event in "abcd"] == [0, 2, 2, 1]

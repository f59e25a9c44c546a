"""Drift: a stream like the sample rarely drifts however long it runs; one that changed is told soon."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.routing.drift import WINDOW_EVENTS, AboveWatch, DriftWatch, ShareWatch, Window
from stream_app.routing.policy import Traffic, dump_policy, load_policy
from tests.classify.policies import scripted_policy

ROWS = 1_000
ALPHA = 0.01


def traffic(draw: np.random.Generator, rows: int = ROWS, **changes) -> Traffic:
    """A sample of the stream below."""
    window = windows(draw, rows, **changes)
    return Traffic(
        rows=rows,
        labels=dict(zip(("negative", "positive"), window.labels, strict=True)),
        confidence_edges=(0.6, 0.7, 0.8, 0.9),
        confidence=window.confidence,
        escalated=window.escalated,
        out_of_domain=window.out_of_domain,
    )


def windows(draw, events: int, *, positive=0.4, confidence=(0.2,) * 5, escalated=0.3, foreign=0.01) -> Window:
    """So many events of a stream with these shares."""
    return Window(
        events,
        tuple(draw.multinomial(events, (1 - positive, positive)).tolist()),
        tuple(draw.multinomial(events, confidence).tolist()),
        int(draw.binomial(events, escalated)),
        int(draw.binomial(events, foreign)),
    )


def watch(draw, tolerance: float = 0.0, rows: int = ROWS) -> DriftWatch:
    task = msgspec.structs.replace(scripted_policy().tasks["sentiment"], traffic=traffic(draw, rows))
    return DriftWatch(task, tolerance)


def test_a_stream_like_its_sample_rarely_drifts():
    """Without any tolerance, over 100 samples and 200,000 events after each: at most 5 % drift in anything, ever."""
    draw, drifted = np.random.default_rng(1), 0
    for _ in range(100):
        one = watch(draw)
        for _ in range(400):
            one.observe(windows(draw, WINDOW_EVENTS))
        drifted += bool(one.drifted)
    assert drifted <= 5


CHANGES = {
    "prevalence": {"positive": 0.6},
    "confidence": {"confidence": (0.35, 0.2, 0.2, 0.2, 0.05)},
    "escalated": {"escalated": 0.5},
    "domain": {"foreign": 0.2},
}


@pytest.mark.parametrize("before", [0, 400], ids=["from-the-first", "after-200,000"])
@pytest.mark.parametrize(("kind", "change"), CHANGES.items())
def test_what_changed_is_told_soon_and_nothing_else(kind, change, before):
    """Within 10,000 events, also after a long time without a change."""
    draw = np.random.default_rng(2)
    one = watch(draw, tolerance=0.05)
    for _ in range(before):
        one.observe(windows(draw, WINDOW_EVENTS))
    assert one.drifted == {}
    news = [one.observe(windows(draw, WINDOW_EVENTS, **change)) for _ in range(20)]
    assert set(one.drifted) == {kind}
    assert [one for some in news for one in some] == [kind], "it is news once"
    assert one.evidence()[kind] >= 1


def test_what_is_no_matter_is_no_drift():
    """A share that moved by less than the tolerance: nothing, for ever; without it, that would be one."""
    draw = np.random.default_rng(3)
    lax, strict = watch(draw, 0.05, rows=20_000), watch(draw, rows=20_000)
    for _ in range(400):
        window = windows(draw, 5_000, positive=0.45)
        lax.observe(window)
        strict.observe(window)
    assert lax.drifted == {}
    assert set(strict.drifted) == {"prevalence"}


def test_a_share_that_is_held_does_not_drift():
    """The controller moves the cut to keep it: what the sample escalated says nothing."""
    task = scripted_policy().tasks["sentiment"]
    held = msgspec.structs.replace(traffic(np.random.default_rng(4)), escalated=None)
    one = DriftWatch(msgspec.structs.replace(task, traffic=held), 0.0)
    assert {share.kind for share in one.shares} == {"prevalence", "confidence", "domain"}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=30), st.floats(0.05, 0.95))
def test_wealth_is_fair_or_worse_under_the_bound(past, bound):
    """After any past, a window of 12 events at the bound leaves no more wealth to be expected than there was."""
    after = 0.0
    for counted in range(13):
        one = AboveWatch(bound, ALPHA)
        for part, events in past:
            one.observe(min(part, events), events)
        before = one.wealth
        one.observe(counted, 12)
        after += math.comb(12, counted) * bound**counted * (1 - bound) ** (12 - counted) * one.wealth
    assert after <= before * (1 + 1e-6)


@given(st.integers(0, 500), st.floats(0, 0.2))
def test_a_share_stays_within_what_the_sample_can_have_been(counted, tolerance):
    """The interval holds the sample's own share; a side that nothing can pass is not watched."""
    task = scripted_policy().tasks["sentiment"]
    made = Traffic(
        rows=500,
        labels={"negative": 500 - counted, "positive": counted},
        confidence_edges=(),
        confidence=(500,),
        escalated=None,
        out_of_domain=0,
    )
    shares = DriftWatch(msgspec.structs.replace(task, traffic=made), tolerance).shares
    (positive,) = [share for share in shares if share.name == "positive"]
    assert positive.low <= counted / 500 <= positive.high
    assert (positive.below is None) == (positive.low <= 0)
    assert (positive.above is None) == (positive.high >= 1)
    assert ShareWatch("domain", "", 0.0, 1.0, ALPHA).observe(3, 5) is False


def test_a_policy_whose_traffic_does_not_add_up_is_refused():
    """Each row has one label and one confidence."""
    policy = scripted_policy()
    good = traffic(np.random.default_rng(5))
    for bad in (
        msgspec.structs.replace(good, rows=ROWS + 1),
        msgspec.structs.replace(good, confidence=good.confidence[1:]),
        msgspec.structs.replace(good, labels={"other": ROWS}),
    ):
        task = msgspec.structs.replace(policy.tasks["sentiment"], traffic=bad)
        raw = dump_policy(msgspec.structs.replace(policy, tasks={"sentiment": task}))
        with pytest.raises(SettingsError, match="its traffic"):
            load_policy(raw)

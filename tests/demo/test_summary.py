"""The demo's balance is a pure fold: every record sent is accounted for, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.prices import Price
from stream_app.events import Usage
from stream_app.local.demo.outcomes import Dead, Decided, Passed, Reply
from stream_app.local.demo.summary import Quantiles, as_json, summarise
from stream_app.local.reviews import Sample

PRICE = Price(usd_per_million_input=0.15, usd_per_million_output=0.60)


def sample(offset, gold=None):
    """A sent review whose record stands at `offset`."""
    return Sample(value=b"{}", id=f"r-{offset}", text="x" * 83, gold=(("sentiment", gold),) if gold else ())


def reply(label="positive", small="positive", by="small", because=None):
    """An answer of the sentiment task; `small` is what the small model preferred."""
    other = "negative" if small == "positive" else "positive"
    return Reply(
        task="sentiment",
        label=label,
        confidence=0.9 if by == "small" else None,
        probabilities={small: 0.9, other: 0.1},
        threshold=0.8,
        decided_by=by,
        model="sentiment_fast:1",
        certified=True,
        escalated_because=because,
        votes=None,
    )


def small(offset, label="positive", latency_ms=5.0):
    """An accepted final."""
    return Decided(
        source=f"reviews/0/{offset}",
        id=f"r-{offset}",
        kind="final",
        revision=0,
        decided_by="small",
        policy="reviews@1",
        certified=True,
        degraded_reason=None,
        replies=(reply(label, label),),
        call=None,
        latency_ms=latency_ms,
    )


def llm(offset, label, small_label, cost_usd=0.001, cached=False):
    """A final the LLM gave."""
    return replace(
        small(offset, latency_ms=400.0),
        decided_by="llm",
        replies=(reply(label, small_label, "llm", "unsure"),),
        call=Usage("stand-in", "1", 100, 5, cost_usd, 350.0, cached=cached, request_id=None),
    )


def degraded(offset, label="positive"):
    """An escalated final that the small answer closed."""
    return replace(small(offset), degraded_reason="deadline", replies=(reply(label, label, "small", "unsure"),))


def letter(offset, cause="not_json"):
    """A dead letter."""
    return Dead(f"reviews/0/{offset}", "decode", cause, "no JSON", "nope")


def test_a_small_balance_by_hand():
    """One of each outcome: every figure as counted by hand."""
    samples = [
        sample(0, "positive"),
        sample(1, "negative"),
        sample(2, "negative"),
        Sample(value=b"nope", story="broken"),
        Sample(value=None, key=b"r-9"),
    ]
    outcomes = [
        small(0, "positive"),
        llm(1, "negative", "positive"),
        degraded(2, "positive"),
        letter(3),
        Passed("reviews/0/4"),
    ]
    found = summarise(samples, outcomes, rule_based=False, price=PRICE)
    assert (found.sent, found.decisions, found.accepted, found.escalated, found.by_llm) == (4, 3, 1, 2, 1)
    assert found.degraded == {"deadline": 1}
    assert found.dead_letters == {"not_json": 1}
    assert found.tombstones == 1
    assert (found.missing, found.extra) == (0, 0)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.small_accuracy == pytest.approx(1 / 3)
    assert found.cost_usd == 0.001
    assert found.latency_small_ms == Quantiles(5.0, 5.0)
    assert found.latency_llm_ms == Quantiles(400.0, 400.0)
    assert found.llm_only_usd == pytest.approx(3 * (100 * 0.15 + 5 * 0.60) / 1e6)
    assert found.llm_only_bare_usd == pytest.approx(3 * (100 * 0.15 + 5 * 0.60) / 1e6)
    assert found.share_escalated == pytest.approx(2 / 3)


def test_a_rule_based_stand_in_is_not_judged():
    """With a stand-in that follows a rule, only what the small models decided counts as accuracy."""
    samples = [sample(0, "positive"), sample(1, "negative")]
    outcomes = [small(0, "positive"), llm(1, "positive", "positive")]
    assert summarise(samples, outcomes, rule_based=True, price=None).accuracy == 1.0
    assert summarise(samples, outcomes, rule_based=False, price=None).accuracy == 0.5


def test_without_labels_there_is_no_accuracy():
    """No label, no figure: None, not zero."""
    found = summarise([sample(0)], [small(0)], rule_based=False, price=None)
    assert found.accuracy is None
    assert found.small_accuracy is None
    assert found.llm_only_usd is None
    assert found.llm_only_bare_usd is None
    assert found.share_saved is None


def test_lost_and_duplicated_are_seen():
    """A record without an outcome is missing; a second final, or a dead letter beside a final, is extra."""
    outcomes = [small(0), small(0, "negative"), letter(0), small(1)]
    found = summarise([sample(n, "positive") for n in range(4)], outcomes, rule_based=False, price=None)
    assert found.missing == 2
    assert found.extra == 2
    assert found.decisions == 2
    assert found.accuracy == 1.0


def test_provisional_and_corrections_close_nothing():
    """Only finals, dead letters and tombstones close a record."""
    outcomes = [replace(small(0), kind="provisional"), replace(small(1), kind="correction"), small(1)]
    found = summarise([sample(0), sample(1)], outcomes, rule_based=False, price=None)
    assert (found.decisions, found.missing, found.extra) == (1, 1, 0)


def test_a_cached_answer_is_no_call():
    """Answers out of the cache are told apart from calls."""
    outcomes = [llm(0, "positive", "positive"), llm(1, "positive", "positive", cost_usd=0.0, cached=True)]
    found = summarise([sample(0), sample(1)], outcomes, rule_based=False, price=PRICE)
    assert (found.llm_calls, found.cached) == (1, 1)


def test_a_recorded_prompt_length_counts_for_the_estimate():
    """Where the file knows the real prompt's length, the estimate of bare prompts uses it."""
    found = summarise([replace(sample(0), prompt_chars=4000)], [], rule_based=False, price=PRICE)
    assert found.llm_only_usd is None
    assert found.llm_only_bare_usd == pytest.approx((1000 * 0.15 + 5 * 0.60) / 1e6)


def test_latencies_are_nearest_rank():
    """Of a hundred values the 50th and the 99th, in order."""
    outcomes = [small(n, latency_ms=float(n + 1)) for n in range(100)]
    found = summarise([sample(n) for n in range(100)], outcomes, rule_based=False, price=None)
    assert found.latency_small_ms == Quantiles(50.0, 99.0)


OUTCOMES = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from(["small", "llm", "degraded", "dead", "provisional"])),
    max_size=60,
)


@given(outcomes=OUTCOMES, sent=st.integers(21, 40))
def test_everything_adds_up(outcomes, sent):
    """Whatever comes out: outcomes and missing make up what was sent, and routes make up the finals."""
    makers = {
        "small": small,
        "llm": lambda n: llm(n, "negative", "positive"),
        "degraded": degraded,
        "dead": letter,
        "provisional": lambda n: replace(small(n), kind="provisional"),
    }
    found = summarise(
        [sample(n, "positive") for n in range(sent)],
        [makers[kind](offset) for offset, kind in outcomes],
        rule_based=False,
        price=PRICE,
    )
    closing = [one for one in outcomes if one[1] != "provisional"]
    assert found.decisions + found.dlq + found.missing == found.sent == sent
    assert found.decisions + found.dlq + found.extra == len(closing)
    assert found.accepted + found.escalated == found.decisions
    assert found.by_llm + sum(found.degraded.values()) == found.escalated
    assert 0 <= (found.small_accuracy or 0) <= 1


def test_the_json_object_has_the_agreed_keys():
    """Exactly the keys other programs rely on."""
    found = summarise([sample(0, "positive")], [small(0)], rule_based=True, price=PRICE)
    told = as_json(found, llm_stand_in=True, seconds=2.0, addresses={"bootstrap_servers": "b", "web": "http://w"})
    assert list(told) == [
        "events",
        "decisions",
        "accepted",
        "escalated",
        "degraded",
        "dlq",
        "llm_calls",
        "llm_stand_in",
        "cost_usd",
        "accuracy",
        "small_accuracy",
        "events_per_s",
        "latency_ms",
        "bootstrap_servers",
        "web",
    ]
    assert told["latency_ms"]["llm"] == {"p50": None, "p99": None}
    assert told["events_per_s"] == 0.5


def test_a_correction_costs_but_is_no_decision_more():
    """The LLM's late answer has its own bill; the record has its final already."""
    late = replace(llm(0, "negative", "positive"), kind="correction", revision=1)
    found = summarise([sample(0, "positive")], [degraded(0), late], rule_based=False, price=PRICE)
    assert (found.decisions, found.degraded, found.by_llm, found.extra) == (1, {"deadline": 1}, 0, 0)
    assert (found.llm_calls, found.cost_usd) == (1, 0.001)

"""What past decisions tell of another cut: held against what that cut really does, and honest about the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from stream_app.events import Usage
from stream_app.training.past import PastDecisions, PastEvent
from stream_app.training.what_if import what_if
from tests.web.folding import NOW_MS, decision

if TYPE_CHECKING:
    from stream_app.codec import AnswerMessage

TIERS = ("fast", ("fast", "slow"))


def usage(cost_usd: float) -> Usage:
    return Usage("gpt-4o-mini", "p", 200, 10, cost_usd, 700.0, cached=False, request_id=None)


def event(confidence: float, **more) -> PastEvent:
    """One task's past event, accepted at a cut of 0.8 or escalated and answered by the LLM, for a cent."""
    asked = confidence < 0.8
    plain = PastEvent(
        label="positive",
        confidence=confidence,
        doubt=1 - confidence,
        cut=0.8,
        tier=0,
        policy="p@1",
        because="unsure" if asked else None,
        others_asked=False,
        usages=(usage(0.01),) if asked else (),
        llm="positive" if asked else None,
        audit=None,
        human=None,
    )
    return replace(plain, **more)


def test_counted_by_hand():
    """Six events: what a lower and a higher cut would have accepted, asked and paid, and what is known of errors."""
    events = [
        event(0.95),
        event(0.9, audit="negative"),
        event(0.85, human="negative", audit="positive"),
        event(0.7, llm="negative", usages=(usage(0.03),)),
        event(0.6),
        event(0.99, because="out_of_domain", llm="positive", usages=(usage(0.02),)),
    ]
    now, lower, higher = what_if(events, [0.65, 0.9], 1)
    assert (now.coverage.low, now.coverage.high, now.asked.low) == (0.5, 0.5, 0.5)
    assert now.cost_usd.low == pytest.approx(0.06)
    assert now.cost_share.low == pytest.approx(0.5)
    assert (now.error.accepted, now.error.known, now.error.by_people, now.error.by_audit) == (3, 2, 1, 1)
    assert (now.error.wrong, now.error.between.low, now.error.between.high) == (2, pytest.approx(2 / 3), 1.0)
    assert now.error.expected == pytest.approx((2 + 0.05) / 3)
    assert lower.coverage.low == pytest.approx(4 / 6)
    assert lower.cost_usd.low == pytest.approx(0.03), "the LLM was paid for 0.6 and for the foreign one"
    assert (lower.error.by_llm, lower.error.wrong) == (1, 3)
    assert higher.coverage.low == pytest.approx(2 / 6), "out of domain stays escalated at any cut"
    assert higher.cost_usd.low == pytest.approx(0.06 + 0.02), "one more is asked, at the mean of the paid calls"
    assert higher.error.audited == pytest.approx(1.0), "the one audited event above the cut disagreed"


def test_another_task_keeps_the_call():
    """An event whose other task is unsure is asked anyway: nothing is saved by a lower cut of this one."""
    (_, lower) = what_if([event(0.7, others_asked=True), event(0.7)], [0.5], 1)
    assert (lower.coverage.low, lower.asked.low, lower.cost_usd.low) == (1.0, 0.5, 0.01)


def test_degraded_events_cost_what_they_did_and_their_error_is_open():
    """Escalated, and nobody answered: nothing is known of the small answer that stood."""
    (now, lower) = what_if([event(0.7, llm=None, usages=()), event(0.9, audit="positive"), event(0.6)], [0.65], 1)
    assert now.cost_usd.low == pytest.approx(0.01)
    assert (lower.error.known, lower.error.accepted) == (1, 2)
    assert (lower.error.between.low, lower.error.between.high) == (0.0, 0.5)
    assert lower.error.audited_between.high >= 0.5, (
        "an audit of accepted events says nothing of one that was escalated"
    )


def test_without_events_or_calls():
    """Nothing to say is an error, and no price is no price of nought."""
    with pytest.raises(ValueError, match="no past event"):
        what_if([], [0.5], 1)
    (now,) = what_if([event(0.9)], [], 1)
    assert (now.cost_usd, now.cost_share, now.error.audited) == (None, None, None)


def world(rows: int, seed: int):
    """Two tiers' labels and confidences, honest ones, and the truth, which the LLM says."""
    chance = np.random.default_rng(seed)
    seen, more = chance.normal(scale=1.5, size=rows), chance.normal(scale=1.5, size=rows)
    truth = chance.random(rows) < 1 / (1 + np.exp(-(seen + more)))
    first, second = 1 / (1 + np.exp(-0.7 * seen)), 1 / (1 + np.exp(-(seen + more)))
    return truth, [(np.maximum(one, 1 - one), one > 0.5) for one in (first, second)]


def decided(tiers, cut: float):
    """What a pipeline with these tiers does at a cut: the tier that answers, whether it accepts, and what it says."""
    place = np.full(len(tiers[0][0]), len(tiers) - 1)
    for tier in reversed(range(len(tiers) - 1)):
        place[tiers[tier][0] >= cut] = tier
    rows = np.arange(len(place))
    confidence = np.stack([one for one, _ in tiers])[place, rows]
    label = np.stack([one for _, one in tiers])[place, rows]
    return place, confidence, label, confidence >= cut


def past_of(truth, tiers, cut: float, audit_share: float, seed: int) -> list[PastEvent]:
    """What the decisions of such a pipeline hold."""
    names = np.array(["negative", "positive"])
    place, confidence, label, accepted = decided(tiers, cut)
    audited = np.random.default_rng(seed).random(len(truth)) < audit_share
    return [
        event(
            float(confidence[n]),
            label=str(names[int(label[n])]),
            cut=cut,
            tier=int(place[n]),
            because=None if accepted[n] else "unsure",
            usages=() if accepted[n] else (usage(0.01),),
            llm=None if accepted[n] else str(names[int(truth[n])]),
            audit=str(names[int(truth[n])]) if accepted[n] and audited[n] else None,
        )
        for n in range(len(truth))
    ]


@pytest.mark.parametrize("new", [0.6, 0.75, 0.9, 0.97])
def test_one_tier_s_coverage_and_cost_are_those_of_the_other_cut(new):
    """With one tier nothing of the routing is unknown: it is exactly what the pipeline does at that cut."""
    truth, tiers = world(4000, 1)
    (_, found) = what_if(past_of(truth, tiers[:1], 0.8, 0.05, 1), [new], 1)
    _, _, label, accepted = decided(tiers[:1], new)
    assert found.coverage.low == found.coverage.high == pytest.approx(accepted.mean())
    assert found.cost_usd.low == pytest.approx(0.01 * (~accepted).sum())
    error = (label != truth)[accepted].mean()
    assert found.error.between.low <= error <= found.error.between.high


@pytest.mark.parametrize("new", [0.6, 0.75, 0.85, 0.95])
def test_two_tiers_bounds_hold_what_the_other_cut_really_does(new):
    """What the other tier would have said is not published: the ranges are wide enough for it, and say something."""
    truth, tiers = world(4000, 2)
    (_, found) = what_if(past_of(truth, tiers, 0.8, 0.05, 2), [new], 2)
    _, _, _, accepted = decided(tiers, new)
    assert found.coverage.low <= accepted.mean() <= found.coverage.high
    assert found.cost_usd.low <= 0.01 * (~accepted).sum() + 1e-9
    assert 0.01 * (~accepted).sum() <= found.cost_usd.high + 1e-9
    assert found.coverage.high - found.coverage.low < 0.45
    assert found.coverage.low > 0


def test_the_audits_interval_holds_the_error_as_often_as_it_says():
    """Over 120 streams with a twentieth audited: the interval at another cut holds the true error in 95 %, give or
    take 5; what confidence expects comes near too, since it is honest here."""
    held, expected = 0, []
    for seed in range(120):
        truth, tiers = world(1500, 100 + seed)
        (_, found) = what_if(past_of(truth, tiers[:1], 0.75, 0.05, seed), [0.65], 1)
        _, _, label, accepted = decided(tiers[:1], 0.65)
        error = (label != truth)[accepted].mean()
        held += found.error.audited_between.low <= error <= found.error.audited_between.high
        expected.append(found.error.expected - error)
    assert held / 120 == pytest.approx(0.95, abs=0.05)
    assert abs(float(np.mean(expected))) < 0.02


def small(offset: int, confidence: float, model: str = "fast:1"):
    """A small final with that confidence."""
    made = decision(offset=offset)
    answer = msgspec.structs.replace(
        made.answers["sentiment"],
        confidence=confidence,
        probabilities={"negative": round(1 - confidence, 6), "positive": confidence},
        model=model,
    )
    return msgspec.structs.replace(made, answers={"sentiment": answer})


def by_llm(made, label: str, **more):
    """That event, as the LLM lane answers it."""
    answer: AnswerMessage = msgspec.structs.replace(
        made.answers["sentiment"],
        label=label, confidence=None, decided_by="llm", model="gpt", escalated_because="unsure",
        votes={made.answers["sentiment"].model: "positive", "gpt": label},
    )  # fmt: skip
    return msgspec.structs.replace(made, decided_by="llm", answers={"sentiment": answer}, usage=usage(0.01), **more)


def test_the_small_answer_is_the_one_that_was_decided():
    """Where errors cost differently that is not the likeliest label: what the decision says is held against cuts."""
    made = small(1, 0.8)
    dear = msgspec.structs.replace(made.answers["sentiment"], label="negative", confidence=0.2)
    answered = by_llm(small(2, 0.7), "positive").answers["sentiment"]
    votes = {"fast:1": "negative", "gpt": "positive"}
    past = PastDecisions()
    past.add(msgspec.structs.replace(made, answers={"sentiment": dear}))
    asked = msgspec.structs.replace(answered, votes=votes)
    past.add(msgspec.structs.replace(small(2, 0.7), decided_by="llm", answers={"sentiment": asked}))
    found = {(one.label, one.confidence, one.wrong) for one in past.events("sentiment", TIERS, {})}
    assert found == {("negative", 0.2, None), ("negative", 0.3, True)}


def test_decisions_are_folded_by_record():
    """Finals, late answers and people's verdicts come to one event each; provisional ones and old ones to none."""
    past = PastDecisions(since_ms=NOW_MS)
    plain, unsure, late = small(1, 0.97), small(2, 0.6, "fast:1+slow:3"), small(3, 0.55)
    past.add(plain)
    past.add(msgspec.structs.replace(unsure, kind="provisional", pending=("sentiment",)))
    past.add(by_llm(unsure, "negative", revision=1))
    degraded_answer = msgspec.structs.replace(late.answers["sentiment"], escalated_because="unsure", certified=False)
    past.add(
        msgspec.structs.replace(late, degraded=True, degraded_reason="budget", answers={"sentiment": degraded_answer})
    )
    past.add(by_llm(late, "positive", kind="correction", revision=1, replaces=0))
    verdict = msgspec.structs.replace(
        plain.answers["sentiment"], label="negative", confidence=None, decided_by="human", model="person"
    )
    past.add(
        msgspec.structs.replace(
            plain, kind="correction", decided_by="human", revision=1, replaces=0, answers={"sentiment": verdict}
        )
    )
    old = small(4, 0.9)
    past.add(msgspec.structs.replace(old, decided_at="2020-01-01T00:00:00.000Z"))
    events = {one.confidence: one for one in past.events("sentiment", TIERS, {("reviews/0/3", "llm"): "negative"})}
    assert {*events} == {0.97, 0.6, 0.55}
    assert (events[0.97].human, events[0.97].because, events[0.97].wrong) == ("negative", None, True)
    assert (events[0.6].llm, events[0.6].tier, events[0.6].label, len(events[0.6].usages)) == (
        "negative",
        1,
        "positive",
        1,
    )
    assert (events[0.55].llm, events[0.55].because, events[0.55].tier) == ("positive", "unsure", 0)
    assert (events[0.55].audit, events[0.55].wrong) == ("negative", False), "the lane's own answer comes first"
    assert len(past.events("sentiment", TIERS, {}, limit=2)) == 2
    assert past.events("other", TIERS, {}) == []
    assert past.events("sentiment", ("another",), {})[0].tier is None

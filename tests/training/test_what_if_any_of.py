"""What past decisions tell of another cut where any label may be right: as the router would have it, set by set."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.classify.columns import column, grades_of
from stream_app.codec import decode_decision
from stream_app.codec.decisions import encode_decision
from stream_app.codec.finals import FinalEncoder
from stream_app.escalate.answer import Valid
from stream_app.escalate.by_people import overruled
from stream_app.escalate.decide import answered, degraded
from stream_app.escalate.question import GotAnswer, NoAnswer
from stream_app.events import Answer, Ask, Decision, Escalation, Event, Source, Usage, Verdict
from stream_app.routing.any_of import AnyOfTier
from stream_app.routing.decide import Knots, Route, TaskRouter
from stream_app.routing.label_sets import labels_in
from stream_app.routing.models import Scores, ServedModel
from stream_app.training.past import PastDecisions
from stream_app.training.what_if import what_if

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.codec import DecisionMessage
    from stream_app.events import Said
    from stream_app.routing.decide import Routed
    from stream_app.training.past import AuditKey, PastEvent

LABELS = ("insult", "spam", "threat")
FAST, SLOW = (ServedModel(name, "1", LABELS, "a" * 64, 64, "any_of") for name in ("fast", "slow"))
PAID = Usage("big", "p", 200, 10, 0.01, 700.0, cached=False, request_id=None)
NOW_MS = 1_800_000_000_000
LAST_DIGIT = 1.5e-6
"""Of what is published: that far from a cut nobody can tell on which side a probability was."""


def scores(table) -> Scores:
    rows = np.asarray(table, np.float32).reshape(-1, len(LABELS))
    return Scores(rows, np.ones(len(rows), np.float32))


def router_of(*tiers: AnyOfTier, **more) -> TaskRouter:
    return TaskRouter("trouble", LABELS, (), tiers, True, None, "p@1", kind="any_of", **more)


def routed_by(router: TaskRouter, *tables) -> Routed:
    """Where the router sends the rows; `tables` are the models' probabilities, in the order they are asked."""
    routing, given = router.begin(["x"] * len(tables[0])), iter(tables)
    while routing.need is not None:
        table = np.asarray(next(given), np.float32)[routing.need.rows]
        routing.give([scores(table)])
    return routing.routed


def event_of(row: int) -> Event:
    return Event(f"r-{row}", "x", b"{}", Source("reviews", 0, row, NOW_MS), None)


def published(router: TaskRouter, routed: Routed, llm: Sequence[Said | None]) -> list[DecisionMessage]:
    """The finals of those rows, as bytes that were read again: what is escalated is answered with the row of `llm`,
    and degraded where that is None.
    """
    taken = np.flatnonzero(routed.accepted)
    columns = column(router, tuple(grades_of(router)), routed, None, taken)
    encoder = FinalEncoder("p@1", lambda _: None, b"/shunt/x")
    values = [value for value, _ in encoder.encode([event_of(int(row)) for row in taken], [columns], NOW_MS)]
    for row in np.flatnonzero(~routed.accepted).tolist():
        tier = router.tiers[routed.tier[row]]
        shares = [round(float(share), 6) for share in routed.probabilities[row]]
        because = "out_of_domain" if routed.route[row] == Route.OUT_OF_DOMAIN else "unsure"
        small = Answer(
            router.said(int(routed.label[row])), round(float(routed.confidence[row]), 6),
            dict(zip(LABELS, shares, strict=True)), tier.threshold_of(0), "small", tier.ref, False, "p@1", because,
        )  # fmt: skip
        ask, event = Ask("trouble", LABELS, small, because), event_of(row)
        escalation = Escalation(event.source, ("trouble",), (ask,), {}, "p@1", 0, 0, NOW_MS)
        label = llm[row]
        if label is None:
            made = degraded(event, escalation, NoAnswer("outage", "down", None), NOW_MS, lambda _: None)
        else:
            got = GotAnswer(Valid({"trouble": label}), PAID)
            made = answered(event, escalation, got, NOW_MS, lambda _: None)
        values.append(encode_decision(made, b"/shunt/x")[0])
    return [decode_decision(value) for value in values]


def events_of(
    decisions: Sequence[DecisionMessage], *tiers: str, audits: dict[AuditKey, Said] | None = None
) -> list[PastEvent]:
    past = PastDecisions()
    for one in decisions:
        past.add(one)
    return past.events("trouble", tiers or ("fast",), audits or {})


def by_row(decisions: Sequence[DecisionMessage]) -> list[tuple[int, PastEvent]]:
    return [(one.source.offset, events_of([one])[0]) for one in decisions]


def nudged(value: float) -> st.SearchStrategy[float]:
    """Probabilities about one that matters, some of them just beside it."""
    return st.integers(-3, 3).map(lambda steps: min(1.0, max(0.0, value + steps * 2e-7)))


SHARES = st.floats(0, 1, width=32) | st.sampled_from([0.5, 0.9, 0.1, 0.7]).flatmap(nudged)
CUTS = st.floats(0.5, 1, width=32) | st.sampled_from([0.5, 0.7, 0.9, 0.93333334, 1.0])
KNOTS = Knots(np.array([0.5, 0.8, 1.0], np.float32), np.array([0.5, 0.93333334, 0.93333334], np.float32))


@given(
    st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=6),
    CUTS,
    st.lists(CUTS, min_size=1, max_size=3),
    st.sampled_from([(), (KNOTS, None, KNOTS)]),
    st.none() | st.tuples(CUTS, CUTS, CUTS | st.just(math.inf)),
    st.sampled_from([(), None]),
)
def test_another_cut_accepts_what_the_router_would(rows, cut, others, knots, own, llm):
    """Whatever the cuts in force were, by label or not, what was published tells for any other cut which rows the
    router takes at it, and with which labels; only in the last digit that is published they may differ, and what
    the router takes is taken where its confidence was published.
    """
    tier = AnyOfTier((FAST,), (1.0,), cut, None, own or (), label_knots=knots)
    router = router_of(tier)
    routed = routed_by(router, rows)
    _, sets, sureness = tier.judge([scores(rows)])
    past = by_row(published(router, routed, [llm] * len(rows)))
    for other in others:
        there = replace(tier, threshold=other, label_thresholds=())
        accepted = there.accepts(*there.judge([scores(rows)]))
        for row, event in past:
            assert event.label == labels_in(int(sets[row]), LABELS), "also where a half was rounded to"
            now, then = what_if([event], [other], 1)
            assert now.coverage.low == routed.accepted[row]
            if abs(float(sureness[row]) - other) > LAST_DIGIT:
                assert then.coverage.low == then.coverage.high == accepted[row]
            elif event.llm is None and accepted[row]:
                assert then.coverage.low == 1


def test_a_confidence_that_is_the_cut_reaches_it():
    """Maps make many rows equally sure, and a cut is often just that: seven digits of it are not too many."""
    cut = 0.9333333  # published as .933333
    tier = AnyOfTier((FAST,), (1.0,), cut)
    routed = routed_by(router_of(tier), [[cut, 0.01, 0.99]] * 3)
    assert routed.accepted.all()
    events = events_of(published(router_of(tier), routed, [()] * 3))
    assert [one.coverage.low for one in what_if(events, [cut, 0.933334], 1)] == [1, 1, 0]


def test_sets_are_compared_whole():
    """Right only where all labels are, in any order; that nothing applies is an answer of the LLM, of an audit and of
    a person, and counts before what comes after it.
    """
    router = router_of(AnyOfTier((FAST,), (1.0,), 0.9))
    table = [
        [0.8, 0.99, 0.01],  # insult and spam: unsure
        [0.8, 0.01, 0.01],  # insult: unsure, the LLM says none
        [0.01, 0.02, 0.2],  # none: unsure, the LLM too says none
        [0.99, 0.01, 0.99],  # insult and threat, and a person says the same
        [0.95, 0.01, 0.01],  # insult, and a person says none where the audit says insult
        [0.01, 0.02, 0.03],  # none, and so says the audit
        [0.97, 0.98, 0.01],  # insult and spam, the audit says insult alone
        [0.01, 0.02, 0.04],  # none; nobody looked
    ]
    llm: list[Said] = [("spam", "insult"), (), (), (), (), (), (), ()]
    finals = published(router, routed_by(router, table), llm)
    at = {one.source.offset: one for one in finals}
    audits: dict[AuditKey, Said] = {
        ("reviews/0/4", "llm"): ("insult",),
        ("reviews/0/5", "llm"): (),
        ("reviews/0/6", "human"): ("insult",),
    }
    said: dict[int, Said] = {3: ("threat", "insult"), 4: ()}
    verdicts = [corrected(at[row], label) for row, label in said.items()]
    events = events_of([*finals, *verdicts], audits=audits)
    now, lower, higher = what_if(events, [0.75, 0.96], 1)
    assert (now.error.accepted, now.error.known) == (5, 4)
    assert (now.error.by_people, now.error.by_llm, now.error.by_audit) == (3, 0, 1)
    assert now.error.wrong == 2, "the person's none against insult, and one label too many"
    assert (now.coverage.low, now.asked.low, now.cost_usd.low) == (5 / 8, 3 / 8, pytest.approx(0.03))
    assert (lower.error.accepted, lower.error.by_llm, lower.error.wrong) == (8, 3, 3)
    assert lower.cost_usd.low == 0
    assert (higher.error.accepted, higher.coverage.low) == (4, 4 / 8)
    assert higher.error.wrong == 1
    wrong = {one.label: one.wrong for one in events if one.llm is not None}
    assert wrong == {("insult", "spam"): False, ("insult",): True, (): False}


def corrected(final: DecisionMessage, label: Said) -> DecisionMessage:
    """A person's word on that final, as it is published."""
    verdict = Verdict(final.source.ref, "trouble", label, 0, final.source.offset, 0, NOW_MS)
    made = overruled(final, verdict, NOW_MS, lambda _: None, None, None)
    assert isinstance(made, Decision)
    return decode_decision(encode_decision(made, b"/shunt/x")[0])


def test_out_of_domain_is_escalated_at_any_cut():
    """However sure the model was of every label."""
    router = router_of(AnyOfTier((FAST,), (1.0,), 0.9), known_share_min=0.5)
    routing = router.begin(["x", "y"])
    table = np.array([[0.99, 0.01, 0.01]] * 2, np.float32)
    routing.give([Scores(table, np.array([1.0, 0.2], np.float32))])
    events = events_of(published(router, routing.routed, [(), ()]))
    assert [one.coverage.low for one in what_if(events, [0.5], 1)] == [0.5, 0.5]


def world(rows: int, seed: int):
    """Two models' honest looks at labels that do not depend on each other, and the truth."""
    chance = np.random.default_rng(seed)
    seen, more = (chance.normal(scale=2.0, size=(rows, len(LABELS))) for _ in range(2))
    truth = chance.random(seen.shape) < 1 / (1 + np.exp(-(seen + more) * 2))
    first = truth_given(seen, chance)
    return truth, first, 1 / (1 + np.exp(-(seen + more) * 2))


def truth_given(seen, chance):
    """The chance of a label by the first look alone: the second is drawn many times."""
    unseen = chance.normal(scale=2.0, size=400)
    return (1 / (1 + np.exp(-(seen[..., None] + unseen) * 2))).mean(axis=-1)


def sets_said(truth) -> list[Said]:
    return [tuple(label for label, there in zip(LABELS, row, strict=True) if there) for row in truth.tolist()]


@pytest.mark.parametrize("own", [(), (0.6, 0.85, 0.8)])
@pytest.mark.parametrize("new", [0.55, 0.7, 0.85, 0.93])
def test_two_tiers_bounds_hold_what_the_other_cut_really_does(new, own):
    """Which label an earlier tier was unsure of is not published: at or above every label's cut it is the same
    event, below it the ranges are wide enough.
    """
    truth, first, both = world(1_500, 3)
    tiers = [AnyOfTier((model,), (1.0,), 0.8, None, own) for model in (FAST, SLOW)]
    router = router_of(*tiers)
    finals = published(router, routed_by(router, first, both), sets_said(truth))
    (_, found) = what_if(events_of(finals, "fast", "slow"), [new], 2)
    there = router_of(*(replace(tier, threshold=new, label_thresholds=()) for tier in tiers))
    really = routed_by(there, first, both)
    assert found.coverage.low - 1e-9 <= really.accepted.mean() <= found.coverage.high + 1e-9
    assert found.coverage.low > 0
    assert found.coverage.high - found.coverage.low < 0.5


def test_a_label_that_is_never_accepted_bounds_nothing():
    """Its earlier tier may have been sure of it all and passed it on: at no cut is it known to do so again."""
    tiers = [AnyOfTier((model,), (1.0,), 0.8, None, (0.8, 0.8, math.inf)) for model in (FAST, SLOW)]
    router = router_of(*tiers)
    finals = published(router, routed_by(router, [[0.99, 0.01, 0.01]], [[0.9, 0.1, 0.1]]), [()])
    (_, found) = what_if(events_of(finals, "fast", "slow"), [0.95], 2)
    there = router_of(*(replace(tier, threshold=0.95, label_thresholds=()) for tier in tiers))
    assert routed_by(there, [[0.99, 0.01, 0.01]], [[0.9, 0.1, 0.1]]).accepted.all()
    assert (found.coverage.low, found.coverage.high) == (0, 1)


def test_what_confidence_expects_is_of_whole_sets():
    """Each label may be wrong: the error expected is that of any of them, and comes near where it is honest."""
    truth, _, both = world(4_000, 5)
    router = router_of(AnyOfTier((FAST,), (1.0,), 0.7))
    routed = routed_by(router, both)
    (now,) = what_if(events_of(published(router, routed, sets_said(truth))), [], 1)
    said = [router.said(int(one)) for one in routed.label]
    wrong = np.array([one != right for one, right in zip(said, sets_said(truth), strict=True)])[routed.accepted]
    least = (1 - routed.confidence[routed.accepted]).mean()
    assert now.error.known == 0
    assert now.error.expected == pytest.approx(wrong.mean(), abs=0.015)
    assert now.error.expected > least + 0.02, "what it is least sure of is not all that may be wrong"

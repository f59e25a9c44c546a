"""The figures of a calibration's report: cases counted by hand, and what holds for any rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stream_app.routing.policy import Promised
from stream_app.routing.promises import ErrorAtMost, MissedAtMost, WrongAtPrevalence
from stream_app.settings import LabelCost
from stream_app.training.beside_llm import beside_llm
from stream_app.training.by_label import by_label
from stream_app.training.calibrate import calibrate_task
from stream_app.training.cut import Judged
from stream_app.training.evaluate import helped
from stream_app.training.kept import kept, measured_share
from stream_app.training.recorded import RecordedRow
from stream_app.training.report.family import decided, family, offsets_of
from stream_app.training.report.front import Seen, front
from stream_app.training.report.page import page
from stream_app.training.report.reliability import reliability
from stream_app.training.report.slices import Judgements, slices
from stream_app.training.report.task_report import panels, task_report
from stream_app.training.report.tradeoff import Answered, tradeoff
from stream_app.training.shares import share
from stream_app.training.verdict import Verdict
from tests.training.test_calibrate import BY_GAIN, SERVED, TASK, TERMS, joined, made_up, with_llms
from tests.training.test_promised import MODERATION
from tests.training.test_promised import SERVED as MODERATION_SERVED
from tests.training.test_promised import TERMS as MODERATION_TERMS
from tests.training.test_promised import made_up as moderated

TRUE, FALSE = True, False


@given(st.integers(1, 400).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_a_share_has_wilson_s_interval(counted):
    """The one that scipy has, and never beyond 0 and 1."""
    hits, rows = counted
    theirs = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    ours = share(hits, rows)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-6), pytest.approx(theirs.high, abs=1e-6))
    assert 0 <= ours.low <= ours.share <= ours.high <= 1


def test_no_rows_have_no_share():
    """Nothing seen is not nought: anything may be true."""
    assert (share(0, 0).share, share(0, 0).low, share(0, 0).high) == (None, 0.0, 1.0)


TRUTH = np.array([0, 0, 0, 1, 1, 1])
SMALL = np.array([0, 0, 1, 1, 1, 0])
ACCEPTED = np.array([TRUE, FALSE, TRUE, TRUE, FALSE, FALSE])
GIVEN = np.array([1, 0, 0, 0, -1, 1])
FINAL = np.array([0, 0, 1, 1, 1, 1])
"""The LLM's where it was asked and answered: it gave no label to row 4."""


def test_labels_counted_by_hand():
    """Six rows of two labels: found, missed and sent on, before and with the LLM."""
    no, yes = by_label(("no", "yes"), TRUTH, SMALL, ACCEPTED, FINAL)
    assert (no.rows, no.prevalence) == (3, 0.5)
    assert (no.precision.share, no.recall.share) == (1.0, pytest.approx(2 / 3))
    assert (no.small_precision.share, no.small_recall.share) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (no.missed.hits, no.missed.rows) == (1, 3)
    assert (no.accepted_precision.share, no.escalated.share) == (1.0, pytest.approx(1 / 3))
    assert (yes.accepted_precision.hits, yes.accepted_precision.rows) == (1, 2)
    assert (yes.missed.hits, yes.escalated.hits) == (0, 2)


def test_the_llm_alone_and_with_its_gaps_filled():
    """A refusal is wrong for the LLM alone; filled by the small model the baseline is as good as one can run it."""
    found = beside_llm(TRUTH, SMALL, FINAL, GIVEN)
    assert found.unanswered == 1
    assert found.llm_filled_accuracy == pytest.approx(4 / 6)
    assert found.to_llm.difference == pytest.approx(5 / 6 - 3 / 6)
    assert found.to_llm_filled.difference == pytest.approx(5 / 6 - 4 / 6)
    assert found.to_small.difference == pytest.approx(5 / 6 - 4 / 6)


def test_a_promise_is_measured_as_it_is_made():
    """Wrong among all, among a label, carried to a prevalence by Bayes' rule, and missed: from one table."""
    counts = np.array([[80, 4, 16], [3, 90, 7]])
    assert measured_share(ErrorAtMost(0.1), counts).share == pytest.approx(7 / 177)
    assert measured_share(ErrorAtMost(0.1, (1,)), counts).share == pytest.approx(4 / 94)
    assert measured_share(MissedAtMost(0.1, 1), counts).share == pytest.approx(3 / 100)
    carried = measured_share(WrongAtPrevalence(0.4, 1, 0.05, {0: 1.0}), counts)
    assert carried.share == pytest.approx(0.95 * 0.04 / (0.05 * 0.9 + 0.95 * 0.04))
    assert carried.low < carried.share < carried.high
    assert measured_share(WrongAtPrevalence(0.4, 1, 0.05, {0: 1.0}), counts * 0).share is None


def test_the_interval_of_a_carried_share_holds_the_truth():
    """Of 400 samples from rates .04 and .9, the 95 % interval holds what is true at 5 % prevalence in 95 %, give or
    take 4."""
    chance = np.random.default_rng(3)
    true = 0.95 * 0.04 / (0.05 * 0.9 + 0.95 * 0.04)
    held = 0
    for alarms, hits in zip(chance.binomial(300, 0.04, 400), chance.binomial(300, 0.9, 400), strict=True):
        found = measured_share(
            WrongAtPrevalence(0.4, 1, 0.05, {0: 1.0}), np.array([[300 - alarms, alarms, 0], [0, hits, 300 - hits]])
        )
        held += found.low <= true <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.04)


def test_what_was_promised_and_whether_it_held():
    """Each line of the certificate against a table of other rows; one that breaks says so, and whether by chance."""
    file, scores = moderated(2000, 1)
    made = calibrate_task(MODERATION, [file], MODERATION_SERVED, scores, MODERATION_TERMS).task
    good = kept(made, np.array([[900, 1, 99], [5, 800, 195]]))
    assert [(one.what, one.label, one.held) for one in good] == [("wrong", "toxic", True), ("missed", "toxic", True)]
    assert good[0].prevalence == 0.05
    bad = kept(made, np.array([[700, 200, 100], [160, 700, 140]]))
    assert [(one.held, one.told) for one in bad] == [(False, True), (False, False)], "16 % of 1,000 could be 15 %"
    assert isinstance(made.certificate.labels[0], Promised)


def test_a_tradeoff_counted_by_hand():
    """Cost in tokens, the policy's point, the LLM alone, the expectation at random and the best that could be had."""
    obeyed = np.where(GIVEN < 0, SMALL, GIVEN)
    texts = Answered(TRUTH, GIVEN, obeyed, np.array([100.0, 100, 200, 100, 100, 400]), np.ones(6))
    judged = Judged(SMALL, np.array([0.9, 0.6, 0.95, 0.8, 0.7, 0.55], np.float32))
    found = tradeoff(
        ("big",),
        texts,
        (SMALL, ACCEPTED),
        (SMALL, judged.confidence >= 0.9),
        [judged],
        np.ones(6, np.bool_),
        np.array([[np.inf, np.inf], [0.75, 0.75], [0.0, 0.0]], np.float32),
    )
    assert (found.policy.cost_share, found.policy.escalated_share) == (0.6, 0.5)
    assert found.policy.accuracy.hits == 5
    assert (found.small.cost_share, found.small.accuracy.hits) == (0.0, 4)
    assert (found.llm_alone.accuracy.hits, found.llm_filled.accuracy.hits) == (3, 4)
    assert found.by_hand.accuracy.hits == 4
    assert found.random == (0.5, pytest.approx(0.5 * 4 / 6 + 0.5 * 4 / 6))
    # The LLM alone is right about rows 2 (200 tokens) and 5 (400).
    assert found.oracle == ((0.0, pytest.approx(4 / 6)), (0.2, pytest.approx(5 / 6)), (0.6, pytest.approx(1.0)))
    assert [point.escalated_share for point in found.curve] == [1.0, 0.5, 0.0]
    assert found.curve[1].accuracy.hits == found.policy.accuracy.hits


def calibrated(rows=4000, seed=1, **more):
    files, scores = joined(made_up(rows, seed, sharpness=2.0, **more))
    return calibrate_task(TASK, files, SERVED, scores, TERMS), files, scores


def test_the_policy_lies_on_the_curve_of_its_cuts():
    """The cuts beside the policy's are its own, moved together: at the certified cut they accept what it accepts."""
    made, _, _ = calibrated()
    evidence, test = made.evidence, made.evidence.parts.test
    tiers = [tier.rows(test) for tier in evidence.judged()]
    small, accepted = decided(evidence.cut.by_label, tiers, evidence.inside[test])
    assert (accepted == made.routed.accepted).all()
    assert (small == made.routed.label)[accepted].all()
    grid = family(evidence.judged(), test, offsets_of(evidence))
    apart = np.diff(np.log(grid[1:-1] / (1 - grid[1:-1])), axis=1)
    assert np.ptp(apart) < 1e-3, "the labels' cuts keep their distance"
    coverage = [decided(cuts, tiers, evidence.inside[test])[1].mean() for cuts in grid]
    assert coverage == sorted(coverage)
    assert (coverage[0], coverage[-1]) == (0.0, evidence.inside[test].mean())


def test_no_plan_of_the_front_is_beaten_and_what_is_left_out_is():
    """In cost, accuracy and work at once, on the rows that searched; more models are not better than fewer alike."""
    made, _, _ = calibrated(1500)
    rows = made.evidence.chose
    judged = [tier.rows(rows) for tier in made.evidence.judged()]
    truth = made.evidence.truth[rows]
    given = np.where(np.random.default_rng(5).random(len(rows)) < 0.93, truth, 1 - truth)
    texts = Answered(truth, given, given, np.ones(len(rows)), np.ones(len(rows)))
    seen = Seen(judged, np.ones(len(rows), np.bool_), texts)
    # Searched and measured on the same rows, so that what was found there can be looked at.
    found = front(made.evidence.tiers, seen, seen, np.zeros(2), {"fast": 0.2, "slow": 8.0})
    assert found.plans == (("fast",), ("fast + slow",), ("fast", "fast + slow"))
    points = [(one.point.cost_share, -(one.point.accuracy.share or 0), one.cpu_ms) for one in found.points]
    for one in points:
        assert not any(all(a <= b for a, b in zip(other, one, strict=True)) and other != one for other in points)
    everything = [pair for curve in found.curves for pair in curve]
    for one in (one for one in found.points if one.leads):
        assert not any(
            cost <= one.point.cost_share and right > (one.point.accuracy.share or 0) for cost, right in everything
        )
    alone = next(one for one in found.points if one.plan == 1)
    assert (alone.reach, alone.cpu_ms) == ((1.0,), 8.2)
    chained = [one for one in found.points if one.plan == 2]
    assert all(one.cpu_ms == pytest.approx(0.2 + 8 * one.reach[1]) for one in chained), "fast is asked once a text"
    unknown = front(made.evidence.tiers, seen, seen, np.zeros(2), {})
    assert {one.cpu_ms for one in unknown.points} == {None}


def test_bins_of_confidence():
    """Equal shares of the rows, least sure first; a model that is right as often as it says has no error."""
    chance = np.random.default_rng(2)
    confidence = chance.uniform(0.5, 1, 20_000).astype(np.float32)
    found = reliability(confidence, chance.random(20_000) < confidence)
    assert len(found.bins) == 12
    assert max(one.right.rows for one in found.bins) - min(one.right.rows for one in found.bins) <= 1
    assert all(one.right.low - 0.02 <= one.confidence <= one.right.high + 0.02 for one in found.bins)
    assert found.expected_calibration_error < 0.02
    assert reliability(confidence, np.zeros(20_000, np.bool_)).expected_calibration_error == pytest.approx(
        0.75, abs=0.01
    )
    assert len(reliability(confidence[:3], np.ones(3, np.bool_)).bins) == 1


def test_rows_are_cut_by_what_they_say_of_themselves():
    """Domain, style, source, file and length, where they cut at all; two kinds that cut alike are one."""
    rows = [
        RecordedRow(
            id=str(n), text="x" * (50 if n < 4 else 500), label="no", domain="a" if n < 4 else None, source="s"
        )
        for n in range(6)
    ]
    right = np.array([TRUE, TRUE, FALSE, TRUE, TRUE, FALSE])
    accepted = np.array([TRUE, FALSE, TRUE, TRUE, TRUE, TRUE])
    judged = Judgements(right, accepted, np.ones(6, np.bool_), np.array([TRUE] * 5 + [FALSE]), ~right, right)
    found = slices(rows, ["f1"] * 4 + ["f2"] * 2, judged)
    assert [(one.by, one.name, one.rows) for one in found] == [
        ("domain", "a", 4), ("domain", "(none)", 2), ("file", "f1", 4), ("file", "f2", 2),
        ("length", "under 100", 4), ("length", "300 to 999", 2),
    ]  # fmt: skip
    assert (found[0].accepted_wrong.hits, found[0].accepted_wrong.rows) == (1, 3)
    assert (found[1].together.rows, found[1].together.hits) == (1, 1), "of those that the LLM has answered"


def test_the_naive_rule_goes_further_than_what_can_be_promised():
    """Over 20 samples it accepts more each time, and breaks the target on fresh rows far more often than delta."""
    naive_broke, certified_broke = 0, 0
    for seed in range(20):
        made, _, _ = calibrated(1600, seed + 40)
        report = task_report("sentiment", "p@1", made, ())
        (steps,) = report.promises
        assert steps.naive is not None
        assert steps.chosen is None or steps.naive >= steps.chosen
        fresh, by = made_up(20_000, 900 + seed, sharpness=2.0)
        truth = np.array([row.label == "positive" for row in fresh.rows], np.intp)
        tiers = [Judged(*tier.judge([by[model.name] for model in tier.models])[1:]) for tier in made.evidence.tiers]

        def error(step, made=made, tiers=tiers, truth=truth):
            small, accepted = decided(made.evidence.cuts[step], tiers, np.ones(len(truth), np.bool_))
            return (small != truth)[accepted].mean()

        naive_broke += error(steps.naive) > 0.05
        certified_broke += steps.chosen is not None and error(steps.chosen) > 0.05
    assert certified_broke <= 3
    assert naive_broke > certified_broke + 2


def test_every_figure_is_of_the_test_rows():
    """Counted again over the test rows alone: coverage, errors, the LLM's part, cost; only the bound is of others."""
    made, _, _ = calibrated(llm_accuracy=0.96)
    report = task_report("sentiment", "p@1", made, panels(made, ["big"]))
    test = made.evidence.parts.test
    truth = np.array([row.label == "positive" for row in made.test], np.intp)
    accepted, right = made.routed.accepted, made.routed.label == truth
    assert (report.coverage.hits, report.coverage.rows) == (int(accepted.sum()), len(test))
    assert (report.accepted_wrong.hits, report.accepted_wrong.rows) == (
        int((~right & accepted).sum()),
        accepted.sum(),
    )
    said = np.array([row.answer_of("big") == row.label for row in made.test])
    (one,) = report.tradeoffs
    assert one.policy.accuracy.hits == int(np.where(accepted, right, said).sum())
    assert one.llm_alone.accuracy.hits == int(said.sum())
    assert one.policy.cost_share == pytest.approx((~accepted).mean()), "prompts are of one length here"
    assert sum(label.rows for label in report.labels) == len(test)
    (steps,) = report.promises
    assert steps.steps[steps.chosen].coverage == pytest.approx(accepted.mean())
    assert steps.steps[steps.chosen].measured.share == pytest.approx(report.accepted_wrong.share)
    assert steps.steps[steps.chosen].bound == pytest.approx(made.task.certificate.error_bound, abs=1e-6)
    assert report.verdict is Verdict.HELPS


def test_a_calibration_without_a_certificate_has_a_report_too():
    """Nothing promised, no LLM recorded: the verdict says what is missing, and what can be shown is shown."""
    files, scores = joined(made_up(2000, 4, spread=0.2))
    made = calibrate_task(TASK, files, SERVED, scores, TERMS)
    report = task_report("sentiment", "p@1", made, ())
    assert report.verdict is Verdict.NOT_GOOD_ENOUGH
    assert (report.kept, report.tradeoffs, report.front, report.coverage.hits) == ((), (), None, 0)
    assert {*report.cuts.values()} == {None}
    assert report.promises[0].chosen is None
    unknown = task_report("sentiment", "p@1", calibrated()[0], ())
    assert unknown.verdict is Verdict.NOT_KNOWN


def test_what_is_too_thin_is_named_with_the_rows_that_would_do():
    """An error known only roughly, and a difference that could be chance."""
    made, _, _ = calibrated(700, 3, llm_accuracy=0.86)
    report = task_report("sentiment", "p@1", made, panels(made, ()))
    about = {one.about: one for one in report.thin}
    assert about["accepted test rows"].needed > about["accepted test rows"].rows
    assert any(one.about == "with big" and one.needed > one.rows for one in report.thin)


def test_second_opinions_and_votes_count_as_an_evaluation_counts_them():
    """The policy's point is what `helped` says of the same rows: votes weighed, the second's calls paid for."""
    file, scores = made_up(8000, 21)
    draw = np.random.default_rng(21)
    other = {"positive": "negative", "negative": "positive"}
    said = [[row.label if draw.random() < 0.85 else other[row.label] for row in file.rows] for _ in range(2)]
    made = calibrate_task(TASK, [with_llms(file, *said)], SERVED, scores, replace(TERMS, llms=("big", "other")))
    assert panels(made, ("big", "other")) == (("big", "other"),)
    assert panels(made, ("big",)) == (("big",), ("other",))
    for prices in ({}, {"other": 0.2}):
        theirs = helped(made, ("big", "other"), prices)
        report = task_report("sentiment", "p@1", made, panels(made, ("big", "other")), prices)
        (ours,) = report.tradeoffs
        assert (ours.llm, ours.second) == ("big", "other")
        assert ours.policy.accuracy.share == pytest.approx(theirs.accuracy)
        assert ours.policy.cost_share == pytest.approx(theirs.cost_share)
        assert ours.policy.cost_share > ours.policy.escalated_share
        assert ours.llm_alone.accuracy.share == pytest.approx(theirs.llm_accuracy)
        assert sum(one.recall.hits for one in report.labels) == ours.policy.accuracy.hits


@pytest.mark.parametrize(("accuracy", "found"), [(0.5, Verdict.NOT_NEEDED), (0.95, Verdict.HELPS)])
def test_where_gain_alone_decides_the_verdict_is_by_what_wrong_answers_cost(accuracy, found):
    """A task with costs and no target is not "not good enough" for want of a certificate."""
    file, scores = made_up(6000, 24, llm_accuracy=accuracy)
    task = BY_GAIN.model_copy(update={"costs": {"positive": LabelCost(missed=9.0, false_alarm=1.0)}})
    made = calibrate_task(task, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    report = task_report("sentiment", "p@1", made, panels(made, ("big",)))
    assert (report.verdict, report.by_gain, report.promises, report.kept) == (found, True, (), ())
    truth = np.array([row.label == "positive" for row in made.test])
    said = made.routed.label == 1
    by_hand = (9.0 * (truth & ~said) + 1.0 * (~truth & said)).mean()
    assert report.losses.small == pytest.approx(by_hand)
    assert (report.losses.together < report.losses.small) == (found is Verdict.HELPS)
    assert "What wrong answers cost" in page("costs", "now", [report])

"""The report of tasks of which any label may be right: whole texts counted by hand, and what each label does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from stream_app.cli.calibration_report import write_report
from stream_app.routing.any_of import as_two
from stream_app.routing.calibration import calibration_errors
from stream_app.routing.decide import Route, Routed
from stream_app.routing.label_sets import sets_of
from stream_app.routing.policy import Policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.training.calibrate import Calibrated, calibrate_task
from stream_app.training.evaluate import helped
from stream_app.training.report.family import decided
from stream_app.training.report.page import page
from stream_app.training.report.task_report import TaskReport, panels, task_report
from stream_app.training.report.yes_or_no import label_sets
from stream_app.training.scoring import route_scored
from stream_app.training.verdict import Verdict
from tests.training.test_any_of_policy import LABELS, MODEL, PREVALENCE, TASK, TERMS, sample
from tests.training.test_report_figures import calibrated as one_of
from tests.training.test_report_page import text_of

if TYPE_CHECKING:
    from stream_app.routing.models import Scores

OTHER = "</script><script>document.title='owned'</script>"
"""An LLM that is always right, and refuses one text in thirty; its name is an attack on the page."""


def calibrated(terms=TERMS, *, nonsense: bool = False) -> tuple[Calibrated, Scores]:
    """3,000 texts of several lengths with two LLMs' answers, and scores: their own, or (`nonsense`) others'."""
    file, scores = sample(3_000, 7)
    scores = scores.rows(np.arange(3_000)[:: -1 if nonsense else 1])
    rows = tuple(
        replace(
            row,
            text=row.text + " and more" * (place % 5 * 12),
            domain=("shop", "mail")[place % 2],
            llm=(*row.llm, (OTHER, None if place % 30 == 0 else row.yes)),
        )
        for place, row in enumerate(file.rows)
    )
    made = calibrate_task(TASK, [replace(file, rows=rows)], {MODEL.name: MODEL}, {MODEL.name: scores}, terms)
    return made, scores


@pytest.fixture(scope="module")
def made() -> Calibrated:
    return calibrated()[0]


@pytest.fixture(scope="module")
def report(made: Calibrated) -> TaskReport:
    return task_report("trouble", "p@2", made, panels(made, TERMS.llms))


def test_a_text_is_right_with_all_its_labels(made, report):
    """Counted from the rows' own lists: coverage, errors, both LLMs' parts, cost, and the policy's own figures."""
    said = [row.says(int(label), LABELS) for row, label in zip(made.test, made.routed.label, strict=True)]
    right = np.array([set(one) == set(row.yes) for one, row in zip(said, made.test, strict=True)])
    accepted = made.routed.accepted
    assert (report.coverage.hits, report.coverage.rows) == (int(accepted.sum()), len(made.test))
    assert (report.accepted_wrong.hits, report.accepted_wrong.rows) == (
        int((~right & accepted).sum()),
        accepted.sum(),
    )
    assert report.small.hits == right.sum()
    (kept,) = report.kept
    assert kept.measured.hits == report.accepted_wrong.hits
    tokens = np.array([row.prompt_tokens for row in made.test])
    assert [(one.llm, one.second) for one in report.tradeoffs] == [("big", None), (OTHER, None)]
    for one in report.tradeoffs:
        answers = [row.answer_of(one.llm) for row in made.test]
        theirs = np.array([answer == row.yes for answer, row in zip(answers, made.test, strict=True)])
        silent = np.array([answer is None for answer in answers])
        # A refusal leaves the small model's list standing.
        filled = np.where(silent, right, theirs)
        assert one.llm_alone.accuracy.hits == theirs.sum()
        assert one.policy.accuracy.hits == np.where(accepted, right, filled).sum()
        assert one.policy.cost_share == pytest.approx(tokens[~accepted].sum() / tokens.sum())
        assert one.oracle[-1][1] == pytest.approx((right | theirs).mean())
        assert (one.beside.unanswered, one.llm_filled is None) == (silent.sum(), not silent.any())
    assert report.tradeoffs[0].policy.accuracy.share == pytest.approx(helped(made, ("big",), {}).accuracy)
    assert report.verdict is Verdict.HELPS
    assert sum(one.rows for one in report.slices if one.by == "domain") == len(made.test)
    shop = next(one for one in report.slices if one.name == "shop")
    assert shop.small.hits == right[[row.domain == "shop" for row in made.test]].sum()
    assert report.calibrated.bins[-1].right.share > report.calibrated.bins[0].right.share


def test_the_policy_lies_on_its_cuts_and_on_the_certificate(made, report):
    """At the certified cut what was tried accepts what the policy accepts, with the certificate's bound."""
    evidence, test = made.evidence, made.evidence.parts.test
    answers, accepted = decided(
        evidence.cut.by_label, [tier.rows(test) for tier in evidence.judged()], evidence.inside[test]
    )
    assert (accepted == made.routed.accepted).all()
    assert ((answers == evidence.truth[test]) == (made.routed.label == evidence.gold[test]))[accepted].all()
    (steps,) = report.promises
    here = steps.steps[steps.chosen]
    assert (here.coverage, here.measured.hits) == (pytest.approx(accepted.mean()), report.accepted_wrong.hits)
    assert here.bound == pytest.approx(made.task.certificate.error_bound, abs=1e-6)
    assert {*report.cuts.values()} == {made.task.tiers[0].threshold}


def test_a_cut_by_hand_is_that_of_a_worker_without_a_policy():
    """0.9 on the model's own probabilities, of every label: counted from what such a worker would route."""
    made, scores = calibrated()
    (router,) = task_routers(
        [Task(name="trouble", kind="any_of", tiers=("trouble_fast",), threshold=0.9)], {"trouble_fast": MODEL}, None
    )
    test = made.evidence.parts.test
    routed = route_scored(router, [row.text for row in made.test], {"trouble_fast": scores.rows(test)})
    by_hand = task_report("trouble", "p@2", made, panels(made, ())).tradeoffs[1].by_hand
    assert by_hand.escalated_share == pytest.approx((~routed.accepted).mean())
    assert by_hand.escalated_share != pytest.approx((~made.routed.accepted).mean())


def test_what_each_label_does_to_a_text(made, report):
    """Each label's yes or no, counted: wrong among the accepted, least sure of the unsure, and calibrated or not."""
    accepted, shares = made.routed.accepted, made.routed.probabilities
    unsure = np.flatnonzero(~accepted)
    assert len(unsure) > 20
    assert (report.sets.none.hits, report.sets.several.hits) == (
        sum(not row.yes for row in made.test),
        sum(len(row.yes) > 1 for row in made.test),
    )
    for place, (label, one, outcome) in enumerate(zip(LABELS, report.sets.each, report.labels, strict=True)):
        true = np.array([label in row.yes for row in made.test])
        yes = shares[:, place] >= 0.5
        assert (one.label, one.accepted_wrong.hits) == (label, ((yes != true) & accepted).sum())
        assert (outcome.rows, outcome.small_recall.hits) == (true.sum(), (yes & true).sum())
        assert outcome.small_precision.rows == yes.sum()
        assert outcome.prevalence == pytest.approx(PREVALENCE[place], abs=0.05)
        surest = [min(abs(shares[row] - 0.5)) for row in unsure]
        assert one.least_sure.hits == sum(
            abs(shares[row, place] - 0.5) == pytest.approx(least) for row, least in zip(unsure, surest, strict=True)
        )
        plain = calibrated_scores(made)[:, [place]]
        for found, probabilities in ((one.calibrated, shares[:, [place]]), (one.at_their_word, plain)):
            errors = calibration_errors(as_two(probabilities), true.astype(np.intp))
            assert found == pytest.approx(errors.expected_calibration_error, abs=1e-6)
    assert sum(one.least_sure.hits for one in report.sets.each) == len(unsure)


def calibrated_scores(made):
    """What the model itself said of the test rows."""
    return made.evidence.scores[MODEL.name].probabilities[made.evidence.parts.test]


def test_labels_of_whole_texts_counted_by_hand():
    """Four texts and two labels: accepted right, accepted with the second wrong, unsure of the first, and foreign."""
    shares = np.array([[0.9, 0.1], [0.95, 0.8], [0.55, 0.9], [0.6, 0.5]], np.float32)
    said = sets_of(shares >= 0.5)
    truth = sets_of(np.array([[True, False], [True, False], [True, True], [False, False]]))
    route = np.array([Route.ACCEPTED, Route.ACCEPTED, Route.UNSURE, Route.OUT_OF_DOMAIN], np.int8)
    found = label_sets(("a", "b"), truth, Routed(said, shares.max(1), shares, np.zeros(4, np.int8), route), shares)
    assert (found.none.hits, found.several.hits) == (1, 1)
    assert [(one.label, one.accepted_wrong.hits, one.accepted_wrong.rows) for one in found.each] == [
        ("a", 0, 2), ("b", 1, 2),
    ]  # fmt: skip
    assert [(one.least_sure.hits, one.least_sure.rows) for one in found.each] == [(1, 1), (0, 1)]
    # Of `a`: .9, .95 and .55 right, .6 wrong; the bins hold .9 with no other, .95 with no other, .55 with .6 apart.
    assert found.each[0].calibrated == pytest.approx((0.1 + 0.05 + 0.45 + 0.6) / 4)
    assert found.each[0].calibrated == found.each[0].at_their_word


def test_each_llm_is_by_itself():
    """Two that were named are not asked together; one that answers another question alone is not shown unasked."""
    made, _ = calibrated(terms=replace(TERMS, llms=(OTHER, "big")))
    assert panels(made, (OTHER, "big")) == ((OTHER,), ("big",))
    rows = [replace(row, llm=(*row.llm, ("mood", "positive"))) for row in made.test]
    elsewhere = replace(made, test=rows)
    assert panels(elsewhere, ("big",)) == (("big",), (OTHER,))
    assert panels(elsewhere, ("mood",)) == (("mood",), (OTHER,), ("big",))


def test_nothing_certified_and_no_llm_is_told_so():
    """A model that knows nothing of these texts: no cut, no cost, and what can be shown is shown."""
    made, _ = calibrated(replace(TERMS, llms=()), nonsense=True)
    report = task_report("trouble", "p@1", made, ())
    assert (report.verdict, report.kept, report.tradeoffs, report.front) == (Verdict.NOT_GOOD_ENOUGH, (), (), None)
    assert {*report.cuts.values()} == {None}
    assert report.promises[0].chosen is None
    assert {one.accepted_wrong.share for one in report.sets.each} == {None}
    shown = text_of(page("p", "now", [report]))
    assert "Nothing: no cut keeps what was asked for" in shown
    assert "small models alone" in shown


def test_one_page_has_tasks_of_both_kinds(made, tmp_path, capsys):
    """Written beside the policy of both; each section speaks of its own kind, and hostile names stay text."""
    other, _, _ = one_of(1_500)
    policy = Policy(name="p", version=2, made_at="now", tasks={"trouble": made.task, "sentiment": other.task})
    write_report(tmp_path / "p.report.html", policy, {"trouble": made, "sentiment": other}, TERMS)
    assert capsys.readouterr().out == f"Its report is {tmp_path / 'p.report.html'}\n"
    told = (tmp_path / "p.report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', told)
    assert len(ids) == len(set(ids))
    assert told.count("<script") == 1, "the attack is text"
    assert not re.search(r"\bid=\"owned|nan|None\b", text_of(told))
    any_of, one = (text_of(part) for part in re.findall(r"<article.*?</article>", told, re.DOTALL))
    for words in (
        "a text is right where every label is",
        "Of what is accepted, at most 10.0 % has any label wrong",
        "of every label the likelier of yes and no has a calibrated probability of at least",
        "texts with every label right",
        "confidence of the least sure label",
        "What each label does to a text",
        "accepted without it",
    ):
        assert words in any_of.replace("\N{NARROW NO-BREAK SPACE}", " "), words
        assert words not in one.replace("\N{NARROW NO-BREAK SPACE}", " "), words
    for words in ("is wrong", "expected calibration error over 15 bins", "accepted as something else", "(error 0."):
        assert (words in one, words in any_of.replace("its yes or no, over", "")) == (True, False), words
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', told)[1])
    assert [(each["task"], each["sets"] is None) for each in figures] == [("trouble", False), ("sentiment", True)]

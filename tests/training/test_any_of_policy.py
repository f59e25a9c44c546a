"""Policies of tasks of which any label may be right: what is certified holds, and means whole texts."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from stream_app.errors import SettingsError
from stream_app.routing.any_of import AnyOfTier
from stream_app.routing.decide import Route
from stream_app.routing.label_sets import marks_of, sets_of
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Policy, dump_policy, load_policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.training.asked import Asked
from stream_app.training.calibrate import calibrate_task
from stream_app.training.detailed import detailed
from stream_app.training.evaluate import evaluation, helped, outcomes
from stream_app.training.fitted import Terms
from stream_app.training.recorded import RecordedFile, RecordedRow, label_indexes, read_recorded, with_all_known
from stream_app.training.rows import holds_marks, read_marked
from stream_app.training.scoring import route_scored
from stream_app.training.voting import Recordings
from tests.cli.command import shunt
from tests.messages.test_schemas import SCHEMAS

LABELS = ("insult", "spam", "threat")
MODEL = ServedModel("trouble_fast", "1", LABELS, "a" * 64, 64, "any_of")
TASK = Task(name="trouble", kind="any_of", tiers=("trouble_fast",), target_error=0.1)
TERMS = Terms(0.05, "2026-11-20T09:00:00Z", llms=("big",))
PREVALENCE = (0.3, 0.1, 0.05)


def sample(count: int, seed: int) -> tuple[RecordedFile, Scores]:
    """Texts that have each label by itself, and an overconfident model's scores of them. `big` errs in a ninth."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, len(LABELS))) < PREVALENCE
    # Log-odds of a noisy look at each label, twice as large as they should be.
    odds = 2.0 * (np.where(truth, 3.0, -3.0) + rng.normal(0, 2.0, truth.shape) + np.log(PREVALENCE))
    table = (1 / (1 + np.exp(-odds))).astype(np.float32)
    rows = []
    for row in range(count):
        yes = tuple(label for label, there in zip(LABELS, truth[row], strict=True) if there)
        said = ("spam",) if row % 9 == 0 else yes
        rows.append(RecordedRow(f"r{seed}-{row}", f"text {seed} {row}", "x", yes=yes, llm=(("big", said),)))
    return RecordedFile("rows.jsonl", "0" * 64, tuple(rows)), Scores(table, np.ones(count, np.float32))


def policy_of(count: int, seed: int):
    file, scores = sample(count, seed)
    made = calibrate_task(TASK, [file], {"trouble_fast": MODEL}, {"trouble_fast": scores}, TERMS)
    return made, Policy(name="p", version=1, made_at=TERMS.made_at, tasks={"trouble": made.task})


def decided(policy: Policy, count: int, seed: int):
    """Other texts of the same kind, through the policy as a worker compiles it."""
    file, scores = sample(count, seed)
    (router,) = task_routers([TASK], {"trouble_fast": MODEL}, load_policy(dump_policy(policy)))
    routed = route_scored(router, [row.text for row in file.rows], {"trouble_fast": scores})
    return router, file.rows, routed, np.array(label_indexes(file.rows, LABELS), np.intp)


def test_the_promise_is_of_whole_texts():
    """In at most 5 % of samples, and a little for chance, more than the target of the accepted texts have any label
    wrong; and the promise is not kept by accepting nothing.
    """
    broken, coverage, runs = 0, [], 40
    for seed in range(runs):
        _, policy = policy_of(1_200, seed)
        _, _, routed, truth = decided(policy, 20_000, 1_000)
        accepted = routed.accepted
        coverage.append(float(accepted.mean()))
        if accepted.any():
            broken += float((routed.label != truth)[accepted].mean()) > TASK.target_error
    assert broken <= 0.05 * runs + 2 * (runs * 0.05 * 0.95) ** 0.5
    assert np.mean(coverage) > 0.5


def test_a_policy_says_what_it_did():
    """Its figures count texts: wrong where any label is, prevalence by label, and the LLM's disagreement as sets."""
    made, policy = policy_of(3_000, 7)
    task = made.task
    assert task.kind == "any_of"
    accepted, right = (
        made.routed.accepted,
        np.array(
            [row.says(int(label), LABELS) == row.yes for row, label in zip(made.test, made.routed.label, strict=True)]
        ),
    )
    assert task.measured.coverage == pytest.approx(accepted.mean(), abs=1e-6)
    assert task.measured.accepted_error == pytest.approx((~right[accepted]).mean(), abs=1e-6)
    assert task.measured.small_accuracy == pytest.approx(right.mean(), abs=1e-6)
    for label, share in zip(LABELS, PREVALENCE, strict=True):
        assert task.sample.label_prevalence[label] == pytest.approx(share, abs=0.03)
    certificate = task.certificate
    assert certificate is not None
    assert certificate.error_bound <= 0.1
    assert certificate.labels == ()
    assert task.llm_disagreement is not None
    assert 0.05 < task.llm_disagreement.disagreed / task.llm_disagreement.accepted < 0.2
    assert task.traffic is not None
    assert task.traffic.rows == sum(task.traffic.confidence)
    assert load_policy(dump_policy(policy)) == policy


def test_overconfidence_is_calibrated_away():
    """The model's log-odds are twice too large: the tier's weight halves them, for all labels at once."""
    made, _ = policy_of(3_000, 3)
    assert made.task.tiers[0].members[0].weight == pytest.approx(0.5, abs=0.15)
    assert made.task.measured.expected_calibration_error < 0.03


def test_the_worker_decides_as_calibration_did():
    """The test rows go the same ways through the policy file as they did when it was made, to the last digit."""
    made, policy = policy_of(2_000, 5)
    file, scores = sample(2_000, 5)
    (router,) = task_routers([TASK], {"trouble_fast": MODEL}, load_policy(dump_policy(policy)))
    assert isinstance(router.tiers[0], AnyOfTier)
    routed = route_scored(router, [row.text for row in file.rows], {"trouble_fast": scores})
    places = {row.id: at for at, row in enumerate(file.rows)}
    chosen = np.array([places[row.id] for row in made.test])
    assert (routed.label[chosen] == made.routed.label).all()
    assert (routed.route[chosen] == made.routed.route).all()
    assert (routed.probabilities[chosen] == made.routed.probabilities).all()


def test_an_evaluation_counts_texts_and_labels():
    """Accuracy is of texts with all labels right, and each label has its own precision and recall."""
    made, policy = policy_of(2_000, 5)
    router, rows, routed, truth = decided(policy, 1_500, 6)
    asked = Asked.of(Recordings.of(("big",), rows, LABELS, {}), made.task.votes, rows, routed)
    found = evaluation(
        "trouble", rows, routed, truth, tiers=1, certificate=made.task.certificate, asked=asked, payoff=None
    )
    right = routed.label == truth
    assert found.small_accuracy == pytest.approx(right.mean())
    assert found.accepted_error == pytest.approx((~right[routed.accepted]).mean())
    assert found.llm is not None
    said = np.array([row.yes == dict(row.llm)["big"] for row in rows])
    assert found.llm.llm_accuracy == pytest.approx(said.mean())
    assert found.llm.accuracy == pytest.approx(np.where(routed.accepted, right, said).mean())
    more = detailed(made.task, routed, truth, asked)
    spam, marks = more.labels[1], marks_of(truth, 3)[:, 1]
    small = marks_of(routed.label, 3)[:, 1]
    assert (spam.label, spam.rows) == ("spam", int(marks.sum()))
    assert spam.small_precision.share == pytest.approx(marks[small].mean())
    assert spam.small_recall.share == pytest.approx(small[marks].mean())
    assert more.promises[0].measured.share == pytest.approx(found.accepted_error)
    lines = outcomes(rows, LABELS, routed, asked)
    for row, line, route in zip(rows, lines, routed.route.tolist(), strict=True):
        assert line["label"] == row.yes
        assert line["route"] == Route(route).name.lower()
        assert line["answer"] == (line["small"] if route == Route.ACCEPTED else dict(row.llm)["big"])
    assert router.said(int(truth[0])) == rows[0].yes
    assert helped(made, ("big",), {}) is not None


def test_too_few_rows_and_one_answer_for_all_are_refused():
    """As for tasks with one right label: with the number that is needed, or what is wrong with the model."""
    with pytest.raises(SettingsError, match=r"too few to certify an error of 10\.00%"):
        policy_of(100, 1)
    file, scores = sample(2_000, 1)
    constant = Scores(np.full_like(scores.probabilities, 0.01), scores.known_share)
    with pytest.raises(SettingsError, match="every text with the same labels"):
        calibrate_task(TASK, [file], {"trouble_fast": MODEL}, {"trouble_fast": constant}, TERMS)


@pytest.mark.parametrize(
    ("fields", "yes", "known"),
    [
        ({"labels": {"insult": True, "spam": False, "threat": 0}}, ("insult",), frozenset(LABELS)),
        ({"labels": {"insult": 1, "spam": None, "threat": False}}, ("insult",), frozenset({"insult", "threat"})),
        ({"labels": {"trouble": ["spam", "insult"], "other": "x"}}, ("spam", "insult"), None),
        ({"labels": {"trouble": {"spam": False}, "other": "x"}}, (), frozenset({"spam"})),
        ({"gold": {"trouble": []}}, (), None),
        ({"label": ["threat"]}, ("threat",), None),
        ({"labels": ["threat"]}, ("threat",), None),
    ],
)
def test_rows_say_which_labels_apply(tmp_path, fields, yes, known):
    """By a list, or by a map of each; alone in the file or by task. A label that nobody looked for is not a no."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", **fields, "llm": {"big": ["spam"], "mute": None}}) + "\n")
    (row,) = read_recorded(path, "trouble", any_of=True).rows
    assert (row.yes, row.known, row.truth) == (yes, known, yes)
    assert row.answer_of("big") == ("spam",)
    assert row.answer_of("mute") is None
    assert bool(with_all_known([row], LABELS)) == (known is None or known >= set(LABELS))


@pytest.mark.parametrize("fields", [{"label": "spam"}, {"labels": {"trouble": "spam"}}, {"label": [1]}, {}])
def test_rows_that_do_not_say_so_are_refused(tmp_path, fields):
    """One label, or what is no label, is told by file and line."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", **fields}) + "\n")
    with pytest.raises(SettingsError, match=r"rows.jsonl:1 needs the text fields `text` and `labels`: a list"):
        read_recorded(path, "trouble", any_of=True)


def test_a_foreign_label_is_told():
    """A row labelled with what the models do not know is refused, and a recorded answer with it is none."""
    row = RecordedRow("r", "a", "x", yes=("rude",), llm=(("big", ("rude",)), ("one", "spam")))
    with pytest.raises(SettingsError, match="the task's models give insult, spam, threat"):
        label_indexes([row], LABELS)
    assert Recordings.of(("big",), [row], LABELS, {}).answers[0].tolist() == [-1]
    assert row.code_of("spam", LABELS) is None
    assert row.code_of(("threat", "insult"), LABELS) == int(sets_of(np.array([[True, False, True]]))[0])
    assert msgspec.to_builtins(row.yes) == ("rude",)


def test_distillation_refuses_lists_of_labels(tmp_path):
    """It teaches one right label, and says what to do with such rows instead."""
    sample_row = SCHEMAS / "samples/feedback/good-any-of.json"
    (tmp_path / "feedback.jsonl").write_text(json.dumps(json.loads(sample_row.read_bytes())) + "\n")
    (tmp_path / "base.jsonl").write_text(json.dumps({"text": "a", "label": "b"}) + "\n")
    asked = ["distill", "feedback.jsonl", "--task", "trouble", "--base", "base.jsonl", "--held-out", "base.jsonl"]
    ran = shunt(*asked, "--out", "models", cwd=tmp_path)
    assert ran.status == 2
    assert "trouble is of kind any_of" in ran.err
    assert "shunt train FILE --kind any_of" in ran.err


def test_feedback_rows_train_as_they_are(tmp_path):
    """What the lanes keep of such a task is read as marked rows: each label known."""
    sample_row = SCHEMAS / "samples/feedback/good-any-of.json"
    path = tmp_path / "feedback.jsonl"
    path.write_text(json.dumps(json.loads(sample_row.read_bytes())) + "\n")
    assert holds_marks(path)
    (row,) = read_marked(path)
    assert row.marks == {"insult": True, "spam": False, "threat": True}
    (recorded,) = read_recorded(path, "trouble", any_of=True).rows
    assert recorded.yes == ("insult", "threat")


def test_what_is_of_one_label_is_refused(tmp_path):
    """`--live` says in one line that it is of tasks with one right label."""
    settings = '[[tasks]]\nname = "trouble"\nkind = "any_of"\ntiers = ["trouble_fast"]\ntarget_error = 0.05\n'
    (tmp_path / "shunt.toml").write_text(settings)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a", "labels": {"trouble": []}}) + "\n")
    policy = str(SCHEMAS / "samples/policy/good-any-of.json")
    ran = shunt("evaluate", "rows.jsonl", "--policy", policy, "--live", cwd=tmp_path, OPENAI_API_KEY="x")
    assert ran.status == 2, ran
    assert "any_of" in ran.err

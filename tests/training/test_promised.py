"""Promises for labels: made from the settings, kept by the policy, refused where the sample cannot carry them."""

from dataclasses import replace

import numpy as np
import pytest

from stream_app.errors import SettingsError
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Policy, dump_policy, load_policy
from stream_app.routing.promises import ErrorAtMost, MissedAtMost, WrongAtPrevalence
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.training.calibrate import calibrate_task
from stream_app.training.fitted import Terms
from stream_app.training.promised import promises_of
from stream_app.training.recorded import RecordedFile, RecordedRow
from stream_app.training.scoring import route_scored
from stream_app.training.verdict import verdict

LABELS = ("harmless", "toxic")
SERVED = {"fast": ServedModel("fast", "1", LABELS, "a" * 64, 256)}
TERMS = Terms(delta=0.05, made_at="2026-11-21T09:00:00Z")


def task(**promised):
    """A moderation task."""
    return Task(name="moderation", tiers=("fast",), **promised)


def made_up(rows, seed, *, toxic=0.5, apart=4.0):
    """A balanced file, or nearly, and scores: two normal clouds, `apart` standard deviations from each other."""
    draw = np.random.default_rng(seed)
    truth = draw.random(rows) < toxic
    seen = draw.normal(size=rows) + apart * (truth - 0.5)
    odds = np.log(toxic / (1 - toxic)) + apart * seen
    positive = (1 / (1 + np.exp(-odds))).astype(np.float32)
    recorded = tuple(
        RecordedRow(id=str(place), text=f"comment {place} of {seed}", label=LABELS[int(one)])
        for place, one in enumerate(truth)
    )
    scores = Scores(np.stack([1 - positive, positive], axis=1), np.ones(rows, np.float32))
    return RecordedFile("rows.jsonl", "0" * 64, recorded), {"fast": scores}


MODERATION = task(precision_min={"toxic": 0.6}, miss_max={"toxic": 0.15}, prevalence={"toxic": 0.05})


def rates(made, seed=77):
    """What the policy does in a large fresh population: precision at 5 %, and the share of toxic ones missed."""
    file, scores = made_up(200_000, seed)
    policy = Policy(name="p", version=1, made_at=TERMS.made_at, tasks={"moderation": made})
    (router,) = task_routers([MODERATION], SERVED, load_policy(dump_policy(policy)))
    routed = route_scored(router, [row.text for row in file.rows], scores)
    toxic = np.array([row.label == "toxic" for row in file.rows])
    hit, alarm = (
        (routed.accepted & (routed.label == 1))[toxic].mean(),
        (routed.accepted & (routed.label == 1))[~toxic].mean(),
    )
    missed = (routed.accepted & (routed.label == 0))[toxic].mean()
    return 0.05 * hit / (0.05 * hit + 0.95 * alarm), missed, routed.accepted.mean()


def test_what_is_promised_of_a_rare_label_holds_at_its_prevalence():
    """From a balanced sample to traffic with 5 % toxic: precision and misses as promised, and most is decided."""
    files, scores = made_up(2000, 1)
    made = calibrate_task(MODERATION, [files], SERVED, scores, TERMS).task
    precision, missed, accepted = rates(made)
    assert precision >= 0.6
    assert missed <= 0.15
    assert accepted > 0.7
    assert [(one.what, one.label) for one in made.certificate.labels] == [("wrong", "toxic"), ("missed", "toxic")]
    assert made.certificate.error_max is None
    assert all(one.bound <= one.share_max for one in made.certificate.labels)
    assert made.tiers[0].label_thresholds["toxic"] > made.tiers[0].label_thresholds["harmless"]


def test_a_label_that_cannot_keep_its_promise_is_never_accepted():
    """Precision of 0.97 at 1 % needs an all but faultless model: that label is closed, the other goes on."""
    files, scores = made_up(6000, 2, apart=2.0)
    hard = task(precision_min={"toxic": 0.9, "harmless": 0.9}, prevalence={"toxic": 0.02})
    made = calibrate_task(hard, [files], SERVED, scores, TERMS).task
    assert made.tiers[0].label_thresholds["toxic"] is None
    assert made.tiers[0].label_thresholds["harmless"] is not None
    assert [one.label for one in made.certificate.labels] == ["harmless"]
    (router,) = task_routers([hard], SERVED, Policy(name="p", version=1, made_at="", tasks={"moderation": made}))
    assert router.tiers[0].threshold_of(1) is None
    routed = route_scored(router, [row.text for row in files.rows], scores)
    assert set(routed.label[routed.accepted].tolist()) == {0}


def test_a_sample_that_can_show_nothing_is_refused_with_the_number_needed():
    """0.9 at 1 % takes thousands of harmless rows; with a tenth more than are asked for it is shown."""
    hard = task(precision_min={"toxic": 0.9}, prevalence={"toxic": 0.01})
    file, scores = made_up(1000, 3)
    with pytest.raises(SettingsError, match="1,000 labelled rows cannot show") as refused:
        calibrate_task(hard, [file], SERVED, scores, TERMS)
    needed = int(refused.value.one_line().split("label about ")[1].split(" ")[0].replace(",", ""))
    assert needed > 10_000
    file, scores = made_up(needed * 11 // 10, 3, apart=9.0)
    assert calibrate_task(hard, [file], SERVED, scores, TERMS).task.certificate is not None


def test_a_constant_classifier_is_refused():
    """Always harmless is right in 98 % of a rare-label sample, and no classifier."""
    file, scores = made_up(3000, 4, toxic=0.02)
    same = {"fast": Scores(np.tile(np.float32([0.98, 0.02]), (3000, 1)), scores["fast"].known_share)}
    for asked in (task(target_error=0.05), task(miss_max={"toxic": 0.5})):
        with pytest.raises(SettingsError, match="every text with the same label"):
            calibrate_task(asked, [file], SERVED, same, TERMS)


def test_a_model_not_good_enough_says_so():
    """Two clouds that all but coincide: nothing can be promised, and everything is escalated."""
    file, scores = made_up(3000, 5, apart=0.3)
    asked = task(precision_min={"toxic": 0.6, "harmless": 0.9})
    made = calibrate_task(asked, [file], SERVED, scores, TERMS).task
    assert made.certificate is None
    assert made.measured.coverage == 0
    assert "no cut keeps all that is promised" in verdict("moderation", made, None)


def test_promises_come_from_the_settings():
    """The error target first, then each label's; the other labels' part of the traffic is stated or the sample's."""
    truth = np.array([0] * 60 + [1] * 30 + [2] * 10)
    asked = task(
        target_error=0.05, precision_min={"b": 0.8, "a": 0.9}, miss_max={"c": 0.1}, prevalence={"b": 0.1, "c": 0.18}
    )
    made = promises_of(asked, ("a", "b", "c"), truth)
    assert made[0] == ErrorAtMost(0.05)
    assert isinstance(made[1], WrongAtPrevalence)
    assert dict(made[1].mix) == {0: pytest.approx(0.8), 2: pytest.approx(0.2)}
    assert made[2] == ErrorAtMost(pytest.approx(0.1), (0,))
    assert made[3] == MissedAtMost(0.1, 2)
    with pytest.raises(SettingsError, match="no label d"):
        promises_of(task(miss_max={"d": 0.1}), ("a", "b", "c"), truth)
    with pytest.raises(SettingsError, match="no row is labelled c"):
        promises_of(task(miss_max={"c": 0.1}), ("a", "b", "c"), truth[:90])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "give target_error, or escalate_max, or threshold, or"),
        ({"threshold": 0.9, "miss_max": {"toxic": 0.1}}, "by hand promises nothing"),
        ({"threshold": 0.9, "target_error": 0.1}, "not both"),
        ({"miss_max": {"toxic": 0.1}, "prevalence": {"toxic": 0.6, "harmless": 0.6}}, "add up to more than 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(given, complaint):
    """With what to change."""
    with pytest.raises(ValueError, match=complaint):
        task(**given)


def test_a_policy_made_for_other_promises_is_refused():
    """The settings ask for more than was certified: calibrate again."""
    file, scores = made_up(2000, 1)
    made = calibrate_task(MODERATION, [file], SERVED, scores, TERMS).task
    policy = Policy(name="p", version=1, made_at="", tasks={"moderation": made})
    with pytest.raises(SettingsError, match="another miss_max"):
        task_routers([MODERATION.model_copy(update={"miss_max": {"toxic": 0.1}})], SERVED, policy)
    assert replace(TERMS, delta=0.1) != TERMS

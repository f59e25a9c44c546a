"""The artifact, and what it refuses to decide for."""

import msgspec
import pytest

from stream_app.errors import SettingsError, StartError
from stream_app.routing.models import ServedModel
from stream_app.routing.policy import (
    Certificate,
    Domain,
    Isotonic,
    Measured,
    Member,
    Policy,
    Sample,
    TaskPolicy,
    TierPolicy,
    dump_policy,
    load_policy,
)
from stream_app.routing.routers import task_routers
from stream_app.settings import Task

LABELS = ("negative", "positive")
SHA = {"fast": "a" * 64, "slow": "b" * 64}
SERVED = {name: ServedModel(name, "3", LABELS, sha, 64) for name, sha in SHA.items()}


def member(name, weight=1.0):
    return Member(model=name, version="3", weights_sha256=SHA[name], weight=weight)


TASK_POLICY = TaskPolicy(
    labels=LABELS,
    tiers=(
        TierPolicy(members=(member("fast", 0.8),), threshold=0.9),
        TierPolicy(
            members=(member("fast", 0.5), member("slow", 0.4)),
            isotonic=Isotonic(confidence=(0.5, 1.0), share_right=(0.5, 0.98)),
            threshold=0.9,
        ),
    ),
    target_error=0.05,
    reference="human",
    certificate=Certificate(error_max=0.05, delta=0.05, rows=1000, accepted=700, wrong=20, error_bound=0.042),
    domain=Domain(
        known_share_min=0.6, known_share_quantile=0.01, scripts=("Latin",), text_chars=(10.0, 200.0, 900.0)
    ),
    sample=Sample(
        files=(), calibration=900, certification=1000, test=300, label_prevalence={"negative": 0.5, "positive": 0.5}
    ),
    measured=Measured(
        coverage=0.7,
        accepted_error=0.03,
        small_accuracy=0.9,
        tier_coverage=(0.5, 0.2),
        expected_calibration_error=0.02,
        brier=0.1,
        negative_log_likelihood=0.2,
        area_under_risk_coverage=0.03,
    ),
    made_at="2026-11-20T09:00:00Z",
)
POLICY = Policy(name="reviews", version=7, made_at="2026-11-20T09:00:00Z", tasks={"sentiment": TASK_POLICY})
TASK = Task(name="sentiment", tiers=("fast", ("fast", "slow")), target_error=0.05)


def changed(task=TASK, **fields):
    return Task(**{**task.model_dump(exclude_none=True), **fields})


def test_policy_comes_back_as_it_went():
    """What is written is read again, value by value, and written the same."""
    raw = dump_policy(POLICY)
    assert load_policy(raw) == POLICY
    assert dump_policy(load_policy(raw)) == raw
    assert POLICY.ref == "reviews@7"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: b"{", "truncated"),
        (lambda _: b"[]", "Expected `object`"),
        (lambda p: p.replace(b'"version": 7', b'"version": 0'), ">= 1"),
        (lambda p: p.replace(b'"reference"', b'"refrence"'), "refrence"),
        (lambda p: p.replace(b"shunt-policy-1", b"shunt-policy-9"), "shunt-policy-9"),
        (lambda p: p.replace(b'"threshold": 0.9', b'"threshold": 1.9', 1), "<= 1"),
        (lambda p: p.replace(b'"negative"', b'"positive"', 1), "a label stands twice"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_in_one_line(change, complaint):
    """A broken artifact names the file and what is wrong in it."""
    with pytest.raises(SettingsError) as refused:
        load_policy(change(dump_policy(POLICY)), "policy.json")
    assert complaint in refused.value.one_line()
    assert refused.value.one_line().startswith("policy.json")


def test_what_types_cannot_say_is_checked():
    """Knots that fall, weights all zero, or a cut without a certificate are no policy."""
    first = TASK_POLICY.tiers[0]
    falling = Isotonic(confidence=(0.5, 1.0), share_right=(0.9, 0.5))
    replace = msgspec.structs.replace
    for task, complaint in (
        (replace(TASK_POLICY, tiers=(replace(first, isotonic=falling),)), "knots do not rise"),
        (replace(TASK_POLICY, tiers=(replace(first, members=(member("fast", 0.0),)),)), "weight above 0"),
        (replace(TASK_POLICY, certificate=None), "without a certificate"),
        (replace(TASK_POLICY, tiers=(replace(first, label_thresholds={"spam": 0.5}),)), "names no label"),
        (
            replace(TASK_POLICY, tiers=(replace(first, threshold=None, label_thresholds={"positive": 0.5}),)),
            "accepts nothing",
        ),
    ):
        with pytest.raises(SettingsError, match=complaint):
            load_policy(dump_policy(replace(POLICY, tasks={"sentiment": task})))


def test_a_certified_router():
    """A task whose target the policy was made for decides by it, certified, on its cut and domain."""
    (router,) = task_routers([TASK], SERVED, POLICY)
    assert (router.certified, router.uncertified_reason, router.policy) == (True, None, "reviews@7")
    assert [tier.ref for tier in router.tiers] == ["fast:3", "fast:3+slow:3"]
    assert [tier.threshold for tier in router.tiers] == [0.9, 0.9]
    assert router.tiers[1].weights == (0.5, 0.4)
    assert router.tiers[1].knots is not None
    assert router.known_share_min == 0.6
    assert router.scripts is not None


def test_a_threshold_by_hand_is_never_certified():
    """With a policy the cut by hand is held against calibrated confidence, without one against the model's."""
    by_hand = changed(target_error=None, threshold=0.8, labels=("negative", "positive", "spam"))
    for policy, weights in ((POLICY, (0.8,)), (None, (1.0,))):
        (router,) = task_routers([by_hand], SERVED, policy)
        assert (router.certified, router.uncertified_reason) == (False, "manual")
        assert [tier.threshold for tier in router.tiers] == [0.8, 0.8]
        assert router.tiers[0].weights == weights
        assert router.llm_only == ("spam",)


def test_nothing_certified_escalates_all():
    """A policy whose target could not be certified has no cut and promises nothing."""
    bare = tuple(msgspec.structs.replace(tier, threshold=None) for tier in TASK_POLICY.tiers)
    task = msgspec.structs.replace(TASK_POLICY, certificate=None, tiers=bare)
    (router,) = task_routers([TASK], SERVED, msgspec.structs.replace(POLICY, tasks={"sentiment": task}))
    assert not router.certified
    assert [tier.threshold for tier in router.tiers] == [None, None]


def served_with(**fields):
    return {
        **SERVED,
        "fast": ServedModel(
            **{
                "name": "fast",
                "version": "3",
                "labels": LABELS,
                "weights_sha256": SHA["fast"],
                "batch_records_max": 64,
                **fields,
            }
        ),
    }


@pytest.mark.parametrize(
    ("task", "served", "policy", "error", "says"),
    [
        (TASK, SERVED, None, SettingsError, "there is no policy file"),
        (changed(name="mood"), SERVED, POLICY, SettingsError, "policy reviews@7 has no task mood"),
        (changed(target_error=0.02), SERVED, POLICY, SettingsError, "set target_error = 0.05"),
        (changed(tiers=("fast",)), SERVED, POLICY, SettingsError, "made for the tiers fast, fast+slow"),
        (
            changed(labels=("bad", "good")),
            SERVED,
            POLICY,
            SettingsError,
            "its models give the labels negative, positive",
        ),
        (TASK, served_with(version="4"), POLICY, StartError, "made for fast:3, but Triton serves fast:4"),
        (TASK, served_with(weights_sha256="c" * 64), POLICY, StartError, "other weights of fast:3"),
        (TASK, served_with(labels=("positive", "negative")), POLICY, StartError, "same labels in the same order"),
        (changed(tiers=("fast", "third")), SERVED, POLICY, StartError, "Triton does not serve third"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_consumed(task, served, policy, error, says):
    """Another version, other weights, labels, tiers or target: one line that says what to change."""
    with pytest.raises(error) as refused:
        task_routers([task], served, policy)
    assert says in refused.value.one_line()
    assert refused.value.advice


def test_labels_of_policy_and_models_must_agree():
    """A policy calibrated for other labels than all its models now give is refused."""
    flipped = {name: ServedModel(name, "3", ("positive", "negative"), sha, 64) for name, sha in SHA.items()}
    with pytest.raises(StartError, match="has the labels negative, positive"):
        task_routers([TASK], flipped, POLICY)

"""Tasks of which any label may be right: each label a yes or no, and a text is accepted where all are sure."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.classify.deciding import Verdicts
from stream_app.classify.drifting import Drifting
from stream_app.codec import decode_audit_result, encode_audit_result, llm_result
from stream_app.errors import SettingsError, StartError
from stream_app.events import Answer, Audit, Source
from stream_app.routing.action import recommended_action
from stream_app.routing.any_of import AnyOfTier, sureness
from stream_app.routing.decide import Knots, Route, TaskRouter
from stream_app.routing.label_sets import LABELS_MAX, label_counts, labels_in, marks_of, set_of, sets_of
from stream_app.routing.ladder import under_alarm
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Isotonic, Traffic, dump_policy, load_policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.telemetry import Metrics
from tests.messages.test_schemas import SCHEMAS

LABELS = ("insult", "spam", "threat")
MODEL = ServedModel("trouble_fast", "1", LABELS, "a" * 64, 64, "any_of")
TASK = Task(name="trouble", kind="any_of", tiers=("trouble_fast",), threshold=0.9)
SHARES = st.floats(0, 1, width=32)
CUTS = st.floats(0.5, 1, width=32)


def scores(rows) -> Scores:
    table = np.asarray(rows, np.float32).reshape(-1, len(LABELS))
    return Scores(table, np.ones(len(table), np.float32))


def routed(tier, rows, **more):
    router = TaskRouter("trouble", LABELS, (), (tier,), True, None, "p@1", kind="any_of", **more)
    routing = router.begin(["x"] * len(rows))
    routing.give([scores(rows)])
    return router, routing.routed


@given(st.lists(st.lists(st.booleans(), min_size=LABELS_MAX, max_size=LABELS_MAX), min_size=1, max_size=5))
def test_a_set_is_a_number_and_back(marks):
    """Whatever labels are there, their number stands for just them, up to as many labels as a task may have."""
    names = [f"label {at}" for at in range(LABELS_MAX)]
    table = np.array(marks)
    sets = sets_of(table)
    assert (marks_of(sets, LABELS_MAX) == table).all()
    for one, row in zip(sets.tolist(), marks, strict=True):
        wanted = tuple(name for name, there in zip(names, row, strict=True) if there)
        assert labels_in(one, names) == wanted
        assert set_of(wanted, names) == one
    assert label_counts(sets, LABELS_MAX, any_of=True) == tuple(table.sum(axis=0).tolist())


@given(
    st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=8),
    CUTS,
    st.none() | st.tuples(CUTS, CUTS, CUTS | st.just(math.inf)),
)
def test_a_text_is_accepted_where_every_label_is_sure(rows, cut, own):
    """A label is yes where its calibrated probability is at least a half, sure where the surer side is its cut."""
    router, found = routed(AnyOfTier((MODEL,), (1.0,), cut, None, own or ()), rows)
    for row, shares in enumerate(found.probabilities.tolist()):
        yes = tuple(label for label, share in zip(LABELS, shares, strict=True) if share >= 0.5)
        assert router.said(int(found.label[row])) == yes
        sure = [max(np.float32(share), np.float32(1) - np.float32(share)) for share in shares]
        cuts = [np.float32(one) for one in own or (cut,) * 3]
        assert (found.route[row] == Route.ACCEPTED) == all(
            share >= least for share, least in zip(sure, cuts, strict=True)
        )
        assert found.confidence[row] == min(sure)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=8))
def test_one_model_at_its_word_is_taken_at_it(rows):
    """Without calibration the model's own probabilities stand, not made to share one sum."""
    _, found = routed(AnyOfTier((MODEL,), (1.0,), 0.9), rows)
    assert found.probabilities == pytest.approx(np.asarray(rows, np.float32), abs=2e-6)


def test_each_label_is_calibrated_by_itself():
    """A map of one label's leaves the others as they are, and yes stays yes."""
    knots = Knots(np.array([0.5, 1.0], np.float32), np.array([0.5, 0.8], np.float32))
    tier = AnyOfTier((MODEL,), (1.0,), 0.7, label_knots=(knots, None, None))
    _, found = routed(tier, [[0.9, 0.9, 0.2], [0.1, 0.5, 0.01]])
    assert found.probabilities == pytest.approx(np.array([[0.74, 0.9, 0.2], [0.26, 0.5, 0.01]]), abs=1e-5)
    assert found.route.tolist() == [Route.ACCEPTED, Route.UNSURE]


def test_sureness_is_the_least():
    """Of the labels' surer sides."""
    assert sureness(np.array([[0.9, 0.3], [0.5, 1.0]], np.float32)).tolist() == pytest.approx([0.7, 0.5])


def test_an_alarm_raises_every_cut_or_closes_the_task():
    """Tightened, half of each label's doubt is left; by `llm_only` nothing is accepted."""
    tier = AnyOfTier((MODEL,), (1.0,), 0.8, None, (0.8, 0.9, math.inf))
    router = TaskRouter("trouble", LABELS, (), (tier,), True, None, "p@1", kind="any_of")
    assert under_alarm(router, "tighten").tiers[0].threshold_of(0) == pytest.approx(
        {"insult": 0.9, "spam": 0.95, "threat": None}
    )
    closed = under_alarm(router, "llm_only").tiers[0]
    assert not closed.accepts(*closed.judge([scores([[1.0, 0.0, 0.0]])])).any()


def test_the_most_severe_label_recommends():
    """Of all labels in the answers; nothing where none applies."""
    actions = {"spam": "hold", "threat": "remove", "insult": "review"}
    assert recommended_action(actions, [("insult", "threat"), "spam"]) == "remove"
    assert recommended_action(actions, [(), "ham"]) is None


# What settings, Triton and policy must agree on

POLICY = load_policy((SCHEMAS / "samples/policy/good-any-of.json").read_bytes())
CERTIFIED = Task(name="trouble", kind="any_of", tiers=("trouble_fast",), target_error=0.05)


def served(**fields) -> dict[str, ServedModel]:
    member = POLICY.tasks["trouble"].tiers[0].members[0]
    return {
        "trouble_fast": ServedModel(
            **{
                "name": "trouble_fast",
                "version": member.version,
                "labels": LABELS,
                "weights_sha256": member.weights_sha256,
                "batch_records_max": 64,
                "kind": "any_of",
                **fields,
            }
        )
    }


def test_a_router_by_hand():
    """One number is every label's cut, and nothing is certified."""
    (router,) = task_routers([TASK], served(), None)
    assert (router.any_of, router.certified, router.uncertified_reason) == (True, False, "manual")
    assert router.tiers[0].threshold_of(0) == dict.fromkeys(LABELS, 0.9)


def test_a_certified_router():
    """The policy's cut is every label's, on each label's own map."""
    (router,) = task_routers([CERTIFIED], served(), POLICY)
    tier = router.tiers[0]
    assert isinstance(tier, AnyOfTier)
    assert router.certified
    assert tier.threshold_of(0) == dict.fromkeys(LABELS, POLICY.tasks["trouble"].tiers[0].threshold)
    assert [knots is not None for knots in tier.label_knots] == [True, False, False]


@pytest.mark.parametrize(
    ("task", "model", "policy", "error", "says"),
    [
        (TASK.model_copy(update={"kind": "one_of"}), served(), None, StartError, "kind one_of, but Triton serves"),
        (TASK, served(kind="one_of"), None, StartError, "trouble_fast as one_of"),
        (TASK.model_copy(update={"labels": (*LABELS, "x")}), served(), None, SettingsError, "say nothing of x"),
        (TASK, served(labels=tuple(map(str, range(63)))), None, SettingsError, "has 63 labels"),
        (TASK, served(labels=("insult",)), None, SettingsError, "has 1 labels"),
        (CERTIFIED, served(), None, SettingsError, "there is no policy file"),
        (
            CERTIFIED.model_copy(update={"kind": "one_of"}),
            served(kind="one_of"),
            POLICY,
            SettingsError,
            "kind any_of",
        ),
    ],
)
def test_what_does_not_fit_is_refused(task, model, policy, error, says):
    """A kind that Triton does not serve or the policy was not made for, or a label no model knows: one line."""
    with pytest.raises(error, match=says) as refused:
        task_routers([task], model, policy)
    assert refused.value.advice


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"costs": {"spam": {}}}, "knows no costs"),
        ({"miss_max": {"spam": 0.1}}, "none its own promise"),
        ({"kind": "one_of"}, "only in tasks of kind any_of"),
    ],
)
def test_a_policy_that_means_nothing_for_its_kind_is_refused(change, complaint):
    """Promises of labels, votes, shares and costs are of tasks with one right label, maps of labels are not."""
    raw = msgspec.json.decode((SCHEMAS / "samples/policy/good-any-of.json").read_bytes())
    raw["tasks"]["trouble"] |= change
    with pytest.raises(SettingsError, match=complaint):
        load_policy(msgspec.json.encode(raw))


def test_a_map_that_falls_is_refused():
    """Of a label as of a task."""
    task = POLICY.tasks["trouble"]
    falling = {"insult": Isotonic(confidence=(0.5, 1.0), share_right=(0.9, 0.5))}
    tiers = (msgspec.structs.replace(task.tiers[0], label_isotonic=falling),)
    changed = msgspec.structs.replace(POLICY, tasks={"trouble": msgspec.structs.replace(task, tiers=tiers)})
    with pytest.raises(SettingsError, match="do not rise"):
        load_policy(msgspec.json.encode(changed))


@pytest.mark.parametrize(
    "more",
    [
        {"escalate_max": 0.2},
        {"precision_min": {"spam": 0.9}},
        {"target_error": 0.05, "miss_max": {"spam": 0.1}},
        {"target_error": 0.05, "prevalence": {"spam": 0.1}},
        {"costs": {"spam": {"missed": 3}}},
    ],
)
def test_dials_of_one_label_are_refused(more):
    """A task of kind any_of takes target_error or threshold, and says so."""
    with pytest.raises(ValueError, match="any_of takes target_error or threshold: leave"):
        Task(name="trouble", kind="any_of", tiers=("trouble_fast",), **more)


def test_an_audit_agrees_where_the_labels_are_the_same():
    """In any order; one more, one less or none is a disagreement, and no answer is neither."""
    small = Answer(("insult", "spam"), 0.9, {}, {}, "small", "trouble_fast:1", True)
    audit = Audit(Source("reviews", 0, 0, 1), {"trouble": small}, {"trouble": LABELS}, "p@1", 1)
    for said, result in (
        (("spam", "insult"), "agree"),
        (("insult",), "disagree"),
        ((), "disagree"),
        (None, "no_answer"),
    ):
        told = llm_result(audit, "trouble", "r-1", said, None if said is not None else "refused", "big", 1)
        assert told.result == result
        again = decode_audit_result(encode_audit_result(told)[0])
        assert (again.label, again.small.label) == (said, ("insult", "spam"))


def test_drift_counts_each_label_by_itself():
    """The stream's shares are of events with each label, which need not add up to all events; a new mix is told."""
    task = msgspec.structs.replace(
        POLICY.tasks["trouble"],
        traffic=Traffic(
            rows=1_000,
            labels={"insult": 400, "spam": 300, "threat": 0},
            confidence_edges=(0.9,),
            confidence=(200, 800),
            escalated=200,
            out_of_domain=0,
        ),
    )
    policy = msgspec.structs.replace(POLICY, tasks={"trouble": task})
    assert load_policy(dump_policy(policy)) == policy
    (router,) = task_routers([CERTIFIED], served(), policy)
    for insult, drifts in ((0.4, False), (0.9, True)):
        drifting, draw = Drifting(policy, ["trouble"], 0.05, Metrics()), np.random.default_rng(3)
        for _ in range(12):
            shares = np.where(draw.random((500, 3)) < (insult, 0.3, 0.0), 0.999, 0.001)
            shares[:100, 2] = 0.4  # unsure
            _, found = routed(router.tiers[0], shares)
            drifting.observe((router,), Verdicts((found,), found.accepted, {}))
        assert ("trouble" in drifting.shifts) == drifts

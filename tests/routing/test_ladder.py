"""What an alarm does to a task: it only ever accepts less, and never calls what it accepts certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.decide import Route
from stream_app.routing.ladder import audit_share, under_alarm
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from tests.classify.policies import LABELS, NO_WEIGHTS, scripted_policy

MODEL = ServedModel("scripted", "1", LABELS, NO_WEIGHTS, 1_024)
ACTIONS = ("log", "tighten", "llm_only")
TASK = Task(name="sentiment", tiers=("scripted",), target_error=0.05)


def router(**changes):
    (made,) = task_routers([TASK], {"scripted": MODEL}, scripted_policy())
    tier = replace(made.tiers[0], **changes)
    return replace(made, tiers=(tier,))


def routed(task, positive):
    """How texts of these probabilities are routed."""
    routing = task.begin(["text"] * len(positive))
    table = np.array([[1 - one, one] for one in positive], np.float32)
    while routing.need is not None:
        routing.give([Scores(table, np.ones(len(positive), np.float32))])
    return routing.routed


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([(), (0.7, 0.95), (float("inf"), 0.8)]))
def test_each_step_accepts_less(positive, label_thresholds):
    """`log` as before, `tighten` part of that with the same answers, `llm_only` nothing."""
    task = router(label_thresholds=label_thresholds)
    before = routed(task, positive)
    log, tight, none = (routed(under_alarm(task, action), positive) for action in ACTIONS)
    assert (log.route == before.route).all()
    assert not (tight.accepted & ~before.accepted).any()
    assert (none.route == Route.UNSURE).all()
    for after in (log, tight, none):
        assert (after.label == before.label).all()
        assert (after.confidence == before.confidence).all()


def test_a_tightened_cut_leaves_half_the_doubt():
    """0.9 becomes 0.95."""
    (tier,) = under_alarm(router(), "tighten").tiers
    assert tier.threshold == pytest.approx(0.95)


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_certified_while_an_alarm_stands(action):
    """It says why; a task that promised nothing says what it said."""
    after = under_alarm(router(), action)
    assert (after.certified, after.uncertified_reason) == (False, "shift")
    gain = replace(router(), certified=False, uncertified_reason="no_gain")
    assert under_alarm(gain, action).uncertified_reason == "no_gain"


def test_a_share_is_held_unless_the_llm_has_all():
    """It is a budget: a tightened task keeps it."""
    task = Task(name="sentiment", tiers=("scripted",), escalate_max=0.2)
    (held,) = task_routers([task], {"scripted": MODEL}, scripted_policy(share=0.2))
    assert under_alarm(held, "tighten").share == held.share
    assert under_alarm(held, "llm_only").share is None


def test_more_is_audited_under_a_tightened_cut():
    """And never more than all."""
    assert audit_share(0.01, "tighten", alarmed=True) == pytest.approx(0.05)
    assert audit_share(0.5, "tighten", alarmed=True) == 1.0
    assert audit_share(0.01, "log", alarmed=True) == audit_share(0.01, "tighten", alarmed=False) == 0.01

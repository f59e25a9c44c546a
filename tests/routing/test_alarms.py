"""What audits say of a policy: one state for one log, a bound for each question, and an alarm that stays."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.alarms import ALARM_DELTA, BEGINNING, Audited, AuditState, Watched
from stream_app.routing.certification import error_bound
from stream_app.routing.policy import LlmDisagreement
from tests.classify.policies import scripted_policy

TASKS = ["sentiment"]


def policy(llm: float | None = None, *, reference: str = "human"):
    """`scripted@1`, which knows that the LLM disagrees with at most so much of what it accepts."""
    made = scripted_policy()
    known = None if llm is None else LlmDisagreement(llm="some", accepted=500, disagreed=10, bound=llm)
    task = msgspec.structs.replace(made.tasks["sentiment"], llm_disagreement=known, reference=reference)
    return msgspec.structs.replace(made, tasks={"sentiment": task})


def result(*, lost: bool = False, answered: bool = True, by="llm", ref="scripted@1", task="sentiment") -> Audited:
    return Audited(ref, task, by, lost, answered)


def test_each_question_has_its_own_bound():
    """The LLM is held against what it said in calibration, people against the target."""
    watched = AuditState.of(policy(0.08), TASKS).watched
    assert watched["sentiment", "llm"].bound == 0.08
    assert watched["sentiment", "human"].bound == 0.05
    of_llm = AuditState.of(policy(reference="llm"), TASKS).watched
    assert of_llm["sentiment", "llm"].bound == 0.05, "there the certificate is about the LLM's answers"


def test_a_task_by_hand_is_not_watched():
    """Its cut is not the policy's, so nothing was promised of it."""
    assert AuditState.of(policy(0.08), []).watched == {}


@pytest.mark.parametrize(
    "other", [result(ref="scripted@2"), result(ref=None), result(task="toxicity")], ids=["policy", "none", "task"]
)
def test_results_of_others_are_passed_over(other):
    """A new policy begins with nothing: what was found of the last one says nothing of it."""
    state = AuditState.of(policy(0.08), TASKS)
    for _ in range(1_000):
        assert state.take(other) is None
    assert state.watched["sentiment", "llm"].audited == 0


def test_an_alarm_is_told_once_and_stays():
    """With the result that suffices; nothing after it takes it back."""
    state = AuditState.of(policy(0.05), TASKS)
    raised = [state.take(result(lost=True)) for _ in range(60)]
    assert raised.count(("sentiment", "llm")) == 1
    for _ in range(5_000):
        assert state.take(result()) is None
    assert state.watched["sentiment", "llm"].alarm
    assert not state.watched["sentiment", "human"].alarm
    assert "the LLM disagreed with 1.19% of 5,060 audited answers" in state.told("sentiment", "llm")


def test_no_answer_is_a_loss_and_is_told():
    """An LLM that falls silent must not look like one that agrees."""
    state = AuditState.of(policy(0.05), TASKS)
    raised = [state.take(result(lost=True, answered=False)) for _ in range(60)]
    assert ("sentiment", "llm") in raised
    watched = state.watched["sentiment", "llm"]
    assert (watched.disagreed, watched.unanswered) == (0, 60)
    assert "60 without an answer" in state.told("sentiment", "llm")


LOGS = st.lists(
    st.builds(
        Audited,
        st.sampled_from(["scripted@1", "scripted@2", None]),
        st.sampled_from(["sentiment", "toxicity"]),
        st.sampled_from(["llm", "human"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=400,
)


@given(LOGS, st.integers(0, 400), st.sampled_from([None, 0.02, 0.3]))
def test_every_worker_comes_to_the_same_state(log, joins_at, bound):
    """One that follows from the start, and one that begins later and replays: the same, alarm by alarm."""
    first, second = (AuditState.of(policy(bound), TASKS) for _ in range(2))
    for one in log[:joins_at]:
        first.take(one)
    for one in log[:joins_at]:
        second.take(one)
    assert first == second
    assert [first.take(one) for one in log[joins_at:]] == [second.take(one) for one in log[joins_at:]]
    assert first == second


def test_without_a_bound_the_beginning_is_the_bound():
    """What later audits may not pass is what the first ones show: their Clopper-Pearson bound at half of delta."""
    watched = Watched(None, from_beginning=True)
    losses = [number % 25 == 0 for number in range(BEGINNING)]
    for lost in losses:
        assert watched.monitor is None
        watched.take(result(lost=lost))
    assert watched.bound == error_bound(sum(losses), BEGINNING, ALARM_DELTA / 2)
    assert watched.monitor is not None
    assert watched.monitor.delta == ALARM_DELTA / 2


def test_a_beginning_that_goes_on_rarely_alarms():
    """No bound from calibration, no change in the stream: at most 5 % of a thousand streams ever alarm."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(1_000):
        watched = Watched(None, from_beginning=True)
        for lost in rng.random(BEGINNING + 1_500) < 0.04:
            watched.take(result(lost=bool(lost)))
            if watched.alarm:
                alarms += 1
                break
    assert alarms <= 50


def test_a_beginning_that_does_not_go_on_is_found():
    """The risk trebles after it: found in most streams within a thousand audits."""
    rng, found = np.random.default_rng(6), 0
    for _ in range(100):
        watched = Watched(None, from_beginning=True)
        for lost in rng.random(BEGINNING) < 0.04:
            watched.take(result(lost=bool(lost)))
        for lost in rng.random(1_000) < 0.12:
            watched.take(result(lost=bool(lost)))
        found += watched.alarm
    assert found >= 90

"""Which challenger may take the place of the policy in force."""

from __future__ import annotations

import msgspec
import pytest

from stream_app.errors import UnreadableRecord
from stream_app.routing.control import Candidate, Control, InForce, WorkerSays, encoded, worker_key
from stream_app.routing.promotion import certified_coverage, held_back_by
from tests.classify.policies import scripted_policy

CURRENT = scripted_policy()
replace = msgspec.structs.replace


def changed(policy, **fields):
    task = policy.tasks["sentiment"]
    certificate = {name: fields.pop(name) for name in ("delta", "each_file", "error_bound") if name in fields}
    if certificate:
        fields["certificate"] = replace(task.certificate, **certificate)
    return replace(policy, tasks={"sentiment": replace(task, **fields)})


def test_a_larger_certified_coverage_of_the_same_promise_is_better():
    """That alone may be promoted; nothing else is asked of it."""
    better = scripted_policy(number=2, coverage=0.81)
    assert certified_coverage(better.tasks["sentiment"]) == 0.81
    assert held_back_by(CURRENT, better) == ()


@pytest.mark.parametrize(
    ("challenger", "why"),
    [
        (scripted_policy(number=2, coverage=0.8), "it is no better: sentiment: certified coverage 80.0%"),
        (scripted_policy(number=2, coverage=0.7), "sentiment: certified coverage 70.0%, in force 80.0%"),
        (scripted_policy(number=2, coverage=0.9, target_error=0.06), "sentiment: its target_error is 0.06"),
        (scripted_policy(number=2, share=0.2), "sentiment: its target_error is not set, in force is 0.05"),
        (changed(scripted_policy(coverage=0.9), reference="llm"), "its reference is llm, in force is human"),
        (changed(scripted_policy(coverage=0.9), delta=0.1), "its delta is 0.1, in force is 0.05"),
        (changed(scripted_policy(coverage=0.9), miss_max={"negative": 0.1}), "its miss_max is {'negative': 0.1}"),
        (replace(CURRENT, tasks={"other": CURRENT.tasks["sentiment"]}), "it is made for other, the policy in force"),
        (changed(CURRENT, certificate=None), "certified coverage 0.0%"),
    ],
)
def test_anything_else_is_held_back_with_its_reason(challenger, why):
    """As good, worse, or good at something else: one line that says so."""
    assert any(reason.startswith(why) or why in reason for reason in held_back_by(CURRENT, challenger))


def test_a_promise_in_each_file_is_not_given_up():
    """A larger coverage of a weaker promise is no gain."""
    current = changed(CURRENT, each_file=True)
    assert held_back_by(current, scripted_policy(coverage=0.9)) == (
        "sentiment: its promise does not hold in each file by itself, that in force does",
    )


def test_of_two_that_hold_a_share_the_smaller_certified_error_is_better():
    """Their coverage is the same by construction."""
    current = scripted_policy(share=0.2)
    assert held_back_by(current, changed(current, error_bound=0.02)) == ()
    assert "certified error 4.00%, in force 3.00%" in held_back_by(current, changed(current, error_bound=0.04))[0]
    assert "its escalate_max is 0.1" in held_back_by(current, scripted_policy(share=0.1))[0]


def test_what_the_control_topic_says_is_its_newest_record_of_each_key():
    """Records fold; a null value takes one away; what is not ours is refused and changes nothing."""
    control, at = Control(), "2026-11-21T12:00:00Z"
    in_force = InForce(swap="a", policy=CURRENT, previous=None, cause="promote", at=at)
    control.fold(b"in-force", encoded(in_force))
    control.fold(b"candidate", encoded(Candidate(swap="b", policy=scripted_policy(number=2), at=at)))
    control.fold(worker_key("w"), encoded(WorkerSays(ready="b", in_force="a")))
    assert control.in_force == in_force
    assert (control.candidate.swap, control.workers["w"].ready) == ("b", "b")
    with pytest.raises(UnreadableRecord):
        control.fold(b"in-force", b'{"swap": 1}')
    control.fold(b"candidate", None)
    control.fold(worker_key("w"), None)
    control.fold(None, b"x")
    assert (control.in_force, control.candidate, control.workers) == (in_force, None, {})

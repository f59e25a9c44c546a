"""May a challenger take the place of the policy in force? Pure.

Only for what both have certified: the same promises, kept on a larger certified part of the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.routing.policy import Policy, TaskPolicy

DIALS = ("target_error", "precision_min", "miss_max", "prevalence", "reference")


def certified_coverage(task: TaskPolicy) -> float:
    """Of the certification rows, the share that was accepted; 0 where nothing is certified."""
    certificate = task.certificate
    return certificate.accepted / certificate.rows if certificate is not None and certificate.rows else 0.0


def held_back_by(current: Policy | None, challenger: Policy) -> tuple[str, ...]:
    """Why the challenger may not be promoted, one reason each; none where it may.

    Every task must promise the same and be no worse, and one must be better: a larger certified coverage, or where a
    share is held, a smaller certified error of what is accepted.
    """
    if current is None:
        return ("there is no policy to compare it with",)
    if set(current.tasks) != set(challenger.tasks):
        return (f"it is made for {_listed(challenger)}, the policy in force for {_listed(current)}",)
    reasons, better = list[str](), False
    for name, old in current.tasks.items():
        new = challenger.tasks[name]
        weaker = list(_weaker(old, new))
        reasons += [f"{name}: {why}" for why in weaker]
        if not weaker:
            gain = _gain(old, new)
            better = better or gain > 0
            if gain < 0:
                reasons.append(f"{name}: {_compared(old, new)}")
    if not reasons and not better:
        first = next(iter(current.tasks))
        reasons.append(f"it is no better: {first}: {_compared(current.tasks[first], challenger.tasks[first])}")
    return tuple(reasons)


def _weaker(old: TaskPolicy, new: TaskPolicy) -> Iterator[str]:
    """What the new one promises otherwise, or less surely."""
    for dial in DIALS:
        if getattr(old, dial) != getattr(new, dial):
            yield f"its {dial} is {_told(getattr(new, dial))}, in force is {_told(getattr(old, dial))}"
    shares = [None if one.share is None else one.share.escalate_max for one in (old, new)]
    if shares[0] != shares[1]:
        yield f"its escalate_max is {_told(shares[1])}, in force is {_told(shares[0])}"
    if old.certificate is not None and new.certificate is not None:
        if new.certificate.delta > old.certificate.delta:
            yield f"its delta is {new.certificate.delta:g}, in force is {old.certificate.delta:g}"
        if old.certificate.each_file and not new.certificate.each_file:
            yield "its promise does not hold in each file by itself, that in force does"


def _gain(old: TaskPolicy, new: TaskPolicy) -> float:
    if old.share is None or old.certificate is None or new.certificate is None:
        return certified_coverage(new) - certified_coverage(old)
    return old.certificate.error_bound - new.certificate.error_bound


def _compared(old: TaskPolicy, new: TaskPolicy) -> str:
    if old.share is None or old.certificate is None or new.certificate is None:
        return f"certified coverage {certified_coverage(new):.1%}, in force {certified_coverage(old):.1%}"
    return f"certified error {new.certificate.error_bound:.2%}, in force {old.certificate.error_bound:.2%}"


def _listed(policy: Policy) -> str:
    return ", ".join(sorted(policy.tasks))


def _told(value: object) -> str:
    return "not set" if value is None or value == {} else str(value)

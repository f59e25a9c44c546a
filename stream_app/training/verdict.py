"""One sentence at the end of a calibration: is the LLM needed, does it help, is the small model ready?"""

from enum import StrEnum

from stream_app.routing.policy import TaskPolicy
from stream_app.training.evaluate import WithLlm

HARDLY_ANY = 0.02
"""With fewer texts than this left over, an LLM lane is not worth keeping."""


class Verdict(StrEnum):
    """How a calibration ends. `NOT_KNOWN` stands for want of recorded answers of an LLM."""

    NOT_NEEDED = "The LLM is not needed"
    HELPS = "The LLM helps here"
    NOT_GOOD_ENOUGH = "The small model is not good enough yet"
    NOT_KNOWN = "Whether an LLM helps is not known yet"


def verdict_of(made: TaskPolicy, llm: WithLlm | None) -> Verdict:
    """Which of them: an LLM that makes nothing better where it would be asked is not needed."""
    if made.certificate is None and promises_anything(made):
        return Verdict.NOT_GOOD_ENOUGH
    if _sure(made):
        return Verdict.NOT_NEEDED
    if llm is None or llm.escalated_llm_accuracy is None or llm.escalated_small_accuracy is None:
        return Verdict.NOT_KNOWN
    return Verdict.HELPS if _better(llm) else Verdict.NOT_NEEDED


def _better(llm: WithLlm) -> bool:
    """By what wrong answers cost, where that was said; else by how many there are."""
    if llm.losses is not None:
        return llm.losses.together < llm.losses.small
    return llm.accuracy > llm.small_accuracy


def verdict(task: str, made: TaskPolicy, llm: WithLlm | None) -> str:
    """What the test rows say, in words a person can act on."""
    found, why = verdict_of(made, llm), because(made, llm)
    if found is Verdict.NOT_KNOWN:
        return f"{task}: {why[0].lower()}{why[1:]}"
    says = "The LLM does not help" if found is Verdict.NOT_NEEDED and not _sure(made) else found.value
    return f"{task}: {says[0].lower()}{says[1:]}: {why[0].lower()}{why[1:]}"


def because(made: TaskPolicy, llm: WithLlm | None) -> str:
    """Why a verdict is what it is, and what to do about it."""
    measured = made.measured
    if made.certificate is None and promises_anything(made):
        return f"No cut keeps {_promise(made)}, so every text goes to the LLM. Train on more labels, or promise less."
    decides = f"The small model decides {measured.coverage:.1%} {_how(made)}"
    if _sure(made):
        return f"{decides}."
    left = f"{decides}, {1 - measured.coverage:.1%} go to the LLM"
    if llm is None or llm.escalated_llm_accuracy is None or llm.escalated_small_accuracy is None:
        return f"{left}. Whether it does better there shows with recorded answers (--llm)."
    there = (
        f"on these {llm.name} is right in {llm.escalated_llm_accuracy:.1%}, "
        f"the small model in {llm.escalated_small_accuracy:.1%}"
    )
    if not _better(llm):
        return f"{left}; {there}. The small model alone is as good."
    if llm.losses is not None:
        cost = f"{llm.losses.small:.4f} -> {llm.losses.together:.4f} a text, the LLM alone {llm.losses.llm:.4f}"
        return f"{left}; {there}. What wrong answers cost: {cost}."
    return f"{left}; {there}. Accuracy {llm.small_accuracy:.1%} -> {llm.accuracy:.1%}."


def promises_anything(made: TaskPolicy) -> bool:
    """Whether an error is to be certified at all; else gain alone decides what is escalated."""
    return made.target_error is not None or bool(made.precision_min or made.miss_max)


def _how(made: TaskPolicy) -> str:
    """By what the small model decides."""
    if made.share is not None:
        return "under the share it holds"
    return "within the target" if promises_anything(made) else "where asking would gain less than it costs"


def _sure(made: TaskPolicy) -> bool:
    return 1 - made.measured.coverage <= HARDLY_ANY


def _promise(made: TaskPolicy) -> str:
    """What was to be kept, in words."""
    if made.precision_min or made.miss_max:
        return "all that is promised"
    return f"the error of accepted answers under {made.target_error or 0:.1%}"

"""One sentence at the end of a calibration: is the LLM needed, does it help, is the small model ready?"""

from stream_app.routing.policy import TaskPolicy
from stream_app.training.evaluate import WithLlm

HARDLY_ANY = 0.02
"""With fewer texts than this left over, an LLM lane is not worth keeping."""


def verdict(task: str, made: TaskPolicy, llm: WithLlm | None) -> str:
    """What the test rows say, in words a person can act on."""
    escalated = 1 - made.measured.coverage
    if made.certificate is None:
        return (
            f"{task}: the small model is not good enough yet: no cut keeps {_promise(made)}, "
            "so every text goes to the LLM. Train on more labels, or promise less."
        )
    within = "within the target" if made.share is None else "under the share it holds"
    if escalated <= HARDLY_ANY:
        return f"{task}: the LLM is not needed: the small model decides {made.measured.coverage:.1%} {within}."
    left = f"the small model decides {made.measured.coverage:.1%} {within}, {escalated:.1%} go to the LLM"
    if llm is None or llm.escalated_llm_accuracy is None or llm.escalated_small_accuracy is None:
        return f"{task}: {left}. Whether it does better there shows with recorded answers (--llm)."
    there = (
        f"on these {llm.name} is right in {llm.escalated_llm_accuracy:.1%}, "
        f"the small model in {llm.escalated_small_accuracy:.1%}"
    )
    if llm.accuracy <= llm.small_accuracy:
        return f"{task}: the LLM does not help: {left}; {there}. The small model alone is as good."
    return f"{task}: the LLM helps here: {left}; {there}. Accuracy {llm.small_accuracy:.1%} -> {llm.accuracy:.1%}."


def _promise(made: TaskPolicy) -> str:
    """What was to be kept, in words."""
    if made.precision_min or made.miss_max:
        return "all that is promised"
    return f"the error of accepted answers under {made.target_error or 0:.1%}"

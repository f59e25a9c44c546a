"""Prompt pruning: which labels the LLM is still asked about."""

from collections.abc import Mapping, Sequence

LABELS_MIN = 2  # a question with one possible answer is not one


def pruned(probabilities: Mapping[str, float], eps: float, llm_only: Sequence[str] = ()) -> tuple[str, ...]:
    """The smallest label set holding at least 1 - eps of the calibrated probability, never below two.

    The most probable labels are kept, and come out in the mapping's order, so that a prompt does not tell the
    ranking. `llm_only` are labels no small model can give: they are always asked. (Data Shunt+, 2406.15471.)
    """
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    kept, held = set[str](), 0.0
    for label in ranked:
        if held >= 1 - eps and len(kept) >= LABELS_MIN:
            break
        kept.add(label)
        held += probabilities[label]
    return (*(label for label in probabilities if label in kept), *(label for label in llm_only if label not in kept))

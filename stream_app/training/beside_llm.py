"""A cascade beside the LLM alone: how much better it is on the same rows, and how sure that is. Pure and seeded."""

from dataclasses import dataclass

import numpy as np

from stream_app.routing.models import IndexArray
from stream_app.routing.votes import NO_ANSWER
from stream_app.training.paired import Paired, paired

SEED = 0
"""Of the bootstrap's draws: the same rows give the same interval."""


@dataclass(frozen=True, slots=True)
class BesideLlm:
    """Differences in accuracy over the same rows, as shares, each with its paired 95 % interval.

    An LLM that gave no answer is wrong in `to_llm`; in `to_llm_filled` the small models answer in its place, which is
    what anyone who runs an LLM with a fallback has. `llm_filled_accuracy` is that baseline's, `unanswered` how many
    rows that concerns.
    """

    unanswered: int
    llm_filled_accuracy: float
    to_llm: Paired
    to_llm_filled: Paired
    to_small: Paired


def beside_llm(truth: IndexArray, small: IndexArray, final: IndexArray, given: IndexArray) -> BesideLlm:
    """Compare the cascade's `final` labels with the LLM's, alone and filled, and with the small models'.

    `given` is what the LLM said, NO_ANSWER where that was no label. Raises ValueError where there is no row.
    """
    right, small_right, silent = final == truth, small == truth, given == NO_ANSWER
    filled = np.where(silent, small_right, given == truth)
    return BesideLlm(
        unanswered=int(silent.sum()),
        llm_filled_accuracy=float(filled.mean()),
        to_llm=paired(right, given == truth, seed=SEED),
        to_llm_filled=paired(right, filled, seed=SEED),
        to_small=paired(right, small_right, seed=SEED),
    )

"""A cascade beside the LLM alone: how much better it is on the same rows, and how sure that is. Pure and seeded."""

from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.models import IndexArray
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


def final_labels(small: IndexArray, accepted: BoolArray, answers: tuple[IndexArray, BoolArray]) -> IndexArray:
    """Each row's final label [N]: the LLM's where it was asked and answered, else the small models'.

    `answers` are the LLM's labels (any index that is no label for an answer outside the label set), and which rows
    it refused.
    """
    given, refused = answers
    return np.where(accepted | refused, small, given)


def beside_llm(
    truth: IndexArray, small: IndexArray, final: IndexArray, answers: tuple[IndexArray, BoolArray]
) -> BesideLlm:
    """Compare the cascade's `final` labels with the LLM's, alone and filled, and with the small models'.

    Raises ValueError where there is no row.
    """
    given, refused = answers
    right, small_right = final == truth, small == truth
    filled = np.where(refused, small_right, given == truth)
    return BesideLlm(
        unanswered=int(refused.sum()),
        llm_filled_accuracy=float(filled.mean()),
        to_llm=paired(right, given == truth, seed=SEED),
        to_llm_filled=paired(right, filled, seed=SEED),
        to_small=paired(right, small_right, seed=SEED),
    )

"""Which of an LLM's labels the small model lets itself be taught: confident learning. Pure.

Northcutt, Jiang and Chuang, "Confident Learning" (2021, arXiv 1911.00068): a label is taken for wrong where a model
that did not see it is surer of another label than it is, on average, where that other label was given. The belief
comes from models of the other folds, or it would only repeat what it was told.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


def doubted(beliefs: Floats, given: Places, sure: Floats) -> Mask:
    """Of rows with these given labels [rows], which the small model takes for wrong.

    `beliefs` [rows, labels] are its probabilities for rows that it did not learn from; `sure` [labels] is how sure it
    must be of another label, as `self_confidence` finds it.
    """
    others = beliefs.copy()
    others[np.arange(len(given)), given] = -np.inf
    best = others.argmax(axis=1)
    best_sure = others[np.arange(len(given)), best]
    return (best_sure >= sure[best]) & (best_sure > beliefs[np.arange(len(given)), given])


def self_confidence(beliefs: Floats, given: Places) -> Floats:
    """Each label's average probability [labels] over the rows it was given to; infinite for one given to none."""
    labels = beliefs.shape[1]
    return np.array(
        [beliefs[given == label, label].mean() if (given == label).any() else np.inf for label in range(labels)]
    )

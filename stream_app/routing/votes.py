"""Weighing an LLM's vote against the small model's, and what a vote is worth before it is asked for. Pure.

An LLM's answer is evidence, not the truth: how much it says depends on how sure the small model was, and on the LLM. Here
each label's score is a sum (a conditional logit, McFadden 1974) of the small model's log-probability and of the votes cast
for it, each with a weight of its own; the answer is the label with the highest posterior. Dawid and Skene (1979) is the
ancestor: raters weighed by how often they are wrong.

The value of asking is what the answer is expected to add to the chance of being right:

    sum over answers a of P(a | x) * max over labels y of P(y | x, a)   -   max over labels y of P(y | x)

where the chance of each answer is fitted in the same form. It is 0 where no answer could change the label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.routing.models import FloatArray, IndexArray

Float64Array = NDArray[np.float64]

NO_ANSWER = -1
"""A refusal, or nothing usable."""
PROBABILITY_MIN = 1e-6
SURE_MAX = 4.0
"""Log-odds of the top label beyond which a small model counts as no surer."""
CHARS_USUAL = 600.0
"""Lengths are taken against this many characters, in logarithms."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A conditional logit over labels: what the small model's word counts, and what a vote for a label does.

    score(y) = small * log p(y) + sure * min(s, SURE_MAX) * log p(y) + sum over votes for y of
    (vote + vote_sure * min(s, SURE_MAX) + vote_length * log(chars / CHARS_USUAL)), s the top label's log-odds.
    """

    small: float
    sure: float
    votes: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """N texts: the small model's calibrated probabilities [N, labels] and the texts' lengths in characters [N]."""

    probabilities: FloatArray
    chars: IndexArray

    @property
    def log_probabilities(self) -> Float64Array:
        """[N, labels], finite."""
        return np.log(np.maximum(self.probabilities.astype(np.float64), PROBABILITY_MIN))

    @property
    def sureness(self) -> Float64Array:
        """The top label's log-odds [N], at most SURE_MAX."""
        top = np.clip(self.probabilities.max(axis=1).astype(np.float64), PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        return np.minimum(np.log(top) - np.log1p(-top), SURE_MAX)

    @property
    def length(self) -> Float64Array:
        """log(chars / CHARS_USUAL) [N]."""
        return np.log(np.maximum(self.chars, 1) / CHARS_USUAL)

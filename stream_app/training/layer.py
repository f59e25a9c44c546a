"""The last layer of a fast model: from the scores of a text's parts to probabilities, by its kind of text.

Training files of different domains (films, kitchen things) each get an expert, a logistic regression over the same
scores, and a gate that says from which domain a text is; the answer is the experts' log-odds weighed by the gate. One
domain is the plain case: one expert, and a gate with nothing to say. Where several labels may be right, each has a
logistic regression of its own over its own scores, fitted on the rows where it is known. Everything is fitted on
cross-fitted scores, so that the probabilities are about right for new texts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from stream_app.training.gold import Gold, TaskKind
from stream_app.training.templates.fast import scoring

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layer:
    """Experts [domains, scores, labels] and [domains, labels]; gate [gate scores, domains] and [domains]."""

    experts: Floats
    expert_bias: Floats
    gate: Floats
    gate_bias: Floats
    kind: TaskKind = TaskKind.ONE_OF

    def probabilities(self, scores: Floats, gate_scores: Floats) -> Floats:
        """Probabilities [texts, labels], computed by the served code."""
        weights = self.experts, self.expert_bias, self.gate, self.gate_bias
        return np.asarray(scoring.probabilities(scores, gate_scores, *weights, self.kind.value))


SERVED_TOLERANCE = 1e-4
"""Of the gradient where fitting stops, for the layer that is served."""
MEASURED_TOLERANCE = 1e-3
"""For the layers of the learning curve, of which there are many: as accurate, and found in two fifths of the time."""


def fit_layer(
    scores: Floats, gate_scores: Floats, gold: Gold, domains: Places, penalty_c: float, tolerance: float
) -> Layer:
    """Fit each domain's expert on its own rows, and the gate on all.

    Raises ValueError where rows of one answer only are known of a label.
    """
    if gold.kind is TaskKind.ANY_OF:
        return _fit_each(scores, gold, penalty_c, tolerance)
    targets, numbers = gold.places, range(int(domains.max()) + 1)
    experts = [
        _fit(scores[domains == number], targets[domains == number], penalty_c, tolerance) for number in numbers
    ]
    if len(numbers) > 1:
        gate, gate_bias = _fit(gate_scores, domains, penalty_c, tolerance)
    else:
        gate, gate_bias = np.zeros((gate_scores.shape[1], 1)), np.zeros(1)
    return Layer(np.stack([each for each, _ in experts]), np.stack([bias for _, bias in experts]), gate, gate_bias)


def _fit_each(scores: Floats, gold: Gold, penalty_c: float, tolerance: float) -> Layer:
    """One expert whose labels do not look at one another's scores: a rare label would learn their noise."""
    count = len(gold.labels)
    expert, bias = np.zeros((scores.shape[1], count)), np.zeros(count)
    for label in range(count):
        own = np.arange(label, scores.shape[1], count)
        known = gold.known[:, label]
        weights, found = _fit(scores[known][:, own], gold.yes[known, label].astype(np.int64), penalty_c, tolerance)
        expert[own, label], bias[label] = weights[:, 1], found[1]
    return Layer(expert[None], bias[None], np.zeros((0, 1)), np.zeros(1), TaskKind.ANY_OF)


def _fit(scores: Floats, targets: Places, penalty_c: float, tolerance: float) -> tuple[Floats, Floats]:
    fitted = LogisticRegression(C=penalty_c, tol=tolerance, max_iter=2000).fit(scores, targets)
    weights, bias = np.asarray(fitted.coef_.T), np.asarray(fitted.intercept_)
    if weights.shape[1] == 1:  # two labels: scikit-learn keeps the second one's log-odds against the first
        return np.hstack([np.zeros_like(weights), weights]), np.array([0.0, bias[0]])
    return weights, bias

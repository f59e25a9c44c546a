"""Fitting the logits of `stream_app.routing.votes` on recorded answers."""

from collections.abc import Sequence

import numpy as np

from stream_app.routing.calibration import Float64Array
from stream_app.routing.models import IndexArray
from stream_app.routing.votes import NO_ANSWER, Logit, Seen, evidence

RIDGE = 1.0
"""Every weight is drawn towards its start as by one row of a unit's evidence: a few rows cannot make it large."""
NEWTON_STEPS_MAX = 100
DIGITS = 4


def fit_posterior(voters: tuple[str, ...], seen: Seen, votes: Sequence[IndexArray], truth: IndexArray) -> Logit:
    """What is believed of a text after these votes: the weights that make the true labels likeliest."""
    return Logit(voters, _fit(evidence(seen, votes, silence=False), truth))


def fit_expected(voters: tuple[str, ...], seen: Seen, votes: Sequence[IndexArray], answers: IndexArray) -> Logit:
    """How another LLM answers after these votes. `answers` [N] are label indexes, or NO_ANSWER."""
    labels = seen.probabilities.shape[1]
    chosen = np.where(answers == NO_ANSWER, labels, answers)
    return Logit(voters, _fit(evidence(seen, votes, silence=True), chosen), silence=True)


def _fit(told: Float64Array, chosen: IndexArray) -> tuple[float, ...]:
    """Argmax of the log-likelihood less a ridge: concave, so that Newton's method with halved steps finds it.

    It starts from the small model's word as it is: log-probability with weight 1, all else 0.
    """
    count, _, terms = told.shape
    start = np.zeros(terms)
    start[0] = 1.0
    weights, rows = start.copy(), np.arange(count)

    def loss(tried: Float64Array) -> float:
        scores = told @ tried
        top = scores.max(axis=1)
        total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        return float((total - scores[rows, chosen]).sum() + RIDGE / 2 * ((tried - start) ** 2).sum())

    best = loss(weights)
    for _ in range(NEWTON_STEPS_MAX):
        scores = told @ weights
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        mean = np.einsum("nk,nkt->nt", chances, told)
        gradient = mean.sum(axis=0) - told[rows, chosen].sum(axis=0) + RIDGE * (weights - start)
        weighted = told * np.sqrt(chances)[:, :, None]
        hessian = np.tensordot(weighted, weighted, ([0, 1], [0, 1])) - mean.T @ mean + RIDGE * np.eye(terms)
        step = np.linalg.solve(hessian, gradient)
        while (now := loss(weights - step)) > best and np.abs(step).max() > 1e-9:
            step /= 2
        if best - now < 1e-9:
            break
        weights, best = weights - step, now
    return tuple(round(float(weight), DIGITS) for weight in weights)

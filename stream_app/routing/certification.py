"""Thresholds with a guarantee: how wrong the accepted answers can be, from finitely many labels.

Exact binomial arithmetic in log space, so that the core needs no scipy; the tests hold it against scipy's.
"""

import math
from functools import lru_cache

COVERAGE_MIN = 0.3
"""Where the fixed sequence starts. Starting lower starves the first tests: at 5 % coverage of 1,000 labels a
single error among 50 accepted ends the sequence before it has begun."""

STEPS = 40
"""Cuts in the sequence, evenly from COVERAGE_MIN to 1."""

COVERAGES = tuple(COVERAGE_MIN + (1 - COVERAGE_MIN) * step / (STEPS - 1) for step in range(STEPS))


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, probability)."""
    if successes >= trials or probability <= 0:
        return 1.0
    if probability >= 1:
        return 0.0
    log_p, log_q = math.log(probability), math.log1p(-probability)
    head = math.lgamma(trials + 1)
    # The tail with the smaller sum is added up: that of k <= successes unless the mean lies below it.
    lower = successes <= trials * probability
    counts = range(successes + 1) if lower else range(successes + 1, trials + 1)
    terms = [
        head - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q for k in counts
    ]
    largest = max(terms)
    total = math.exp(largest) * math.fsum(math.exp(term - largest) for term in terms)
    return min(1.0, total) if lower else max(0.0, 1.0 - total)


@lru_cache(maxsize=65_536)  # a plan asks for the same few counts again and again
def error_bound(wrong: int, accepted: int, delta: float) -> float:
    """The one-sided Clopper-Pearson bound: the largest r with BinomCDF(wrong; accepted, r) >= delta.

    The true error lies above it with probability at most delta (Clopper and Pearson 1934). 1 for no rows.
    """
    if accepted == 0 or wrong >= accepted:
        return 1.0
    low, high = wrong / accepted, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if binomial_cdf(wrong, accepted, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def labels_needed(error_max: float, delta: float) -> int:
    """How many accepted items, none of them wrong, show an error of at most `error_max`: (1 - e)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-error_max))


def rows_needed(error_max: float, delta: float) -> int:
    """How many labelled rows certification needs before its first step can pass at all."""
    return math.ceil(labels_needed(error_max, delta) / COVERAGE_MIN)

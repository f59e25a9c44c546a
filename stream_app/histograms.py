"""Histograms of a worker's times: their buckets, and one that takes a batch's times at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry

# A transaction takes 5-25 ms (measured); past 10 s the broker's own time-out is near.
TRANSACTION_BUCKETS_S = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A small model answers a batch in under a millisecond (echo) to seconds (an encoder on a CPU).
MODEL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# OpenTelemetry's buckets for `gen_ai.client.operation.duration`: 0.01 ... 81.92, doubling.
LLM_BUCKETS_S = tuple(0.01 * 2**step for step in range(14))
# From "not held back" to "the budget of the hour is gone".
WAIT_BUCKETS_S = (0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
# The small route is judged in milliseconds, the LLM's in seconds, a backlog in hours.
LATENCY_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 3600.0, 86_400.0),
)
# Half of the shortest sensible session time-out is where a loop that does not turn costs the membership.
LOOP_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class BatchHistogram(Collector):
    """A Prometheus histogram that takes a whole array at once: a few numpy calls, whatever its length."""

    def __init__(
        self, name: str, text: str, label: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()  # scraped from the web server's thread where Faust runs it in one
        registry.register(self)

    def observe_many(self, label: str, values: NDArray[np.float64]) -> None:
        """Count each of `values`; those below zero (a clock that ran back) count as zero."""
        if not len(values):
            return
        values = np.maximum(values, 0.0)
        where = np.searchsorted(self._bounds, values, side="left")
        counts = np.bincount(where, minlength=len(self._bounds) + 1)
        with self._lock:
            self._counts[label] = self._counts.get(label, np.zeros_like(counts)) + counts
            self._sums[label] = self._sums.get(label, 0.0) + float(values.sum())

    def quantile(self, label: str, share: float) -> float | None:
        """The value `share` of the observations lie below, interpolated in its bucket; None without any."""
        with self._lock:
            counts = self._counts.get(label)
        if counts is None:
            return None
        cumulative = np.cumsum(counts)
        rank = share * cumulative[-1]
        bucket = int(np.searchsorted(cumulative, rank, side="left"))
        if bucket >= len(self._bounds):
            return float(self._bounds[-1])
        low = float(self._bounds[bucket - 1]) if bucket else 0.0
        before = float(cumulative[bucket - 1]) if bucket else 0.0
        inside = max(float(counts[bucket]), 1.0)
        return low + (float(self._bounds[bucket]) - low) * min(1.0, max(0.0, (rank - before) / inside))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What the registry asks for on every scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        with self._lock:
            for label, counts in self._counts.items():
                cumulative = np.cumsum(counts)
                bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
                buckets = list(zip(bounds, cumulative.astype(float).tolist(), strict=True))
                family.add_metric([label], buckets, self._sums[label])
        return [family]

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Registers the name without a first collection."""
        return [HistogramMetricFamily(self._name, self._text, labels=[self._label])]

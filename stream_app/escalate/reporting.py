"""What the slow lane tells of itself from time to time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.escalate.breaker import Circuit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_app.escalate.admission import Admission
    from stream_app.escalate.endpoint_gate import EndpointGate
    from stream_app.escalate.partition_work import PartitionWork
    from stream_app.escalate.works import Works
    from stream_app.telemetry import Lane, Metrics


class Reporting:
    """Fills the gauges: partitions, records in flight, lag, what is waited for, limits, circuits."""

    def __init__(
        self, works: Works, admission: Admission, metrics: Metrics, endpoints: Mapping[str, EndpointGate]
    ) -> None:
        """`endpoints` are the gates before each, by its name."""
        self._works, self._admission = works, admission
        self._metrics, self._endpoints = metrics, endpoints

    def report(self, now_s: float, *, joined: bool) -> None:
        """How things are. Parked events and audits are lanes of their own here, and never hold up readiness."""
        self._of_topic("escalate", self._works.escalated, joined=joined)
        self._of_topic("parked", self._works.parked, joined=joined)
        self._of_topic("audits", self._works.audits, joined=joined)
        self._metrics.waiting("escalate", self._admission.waits_for)
        for name, gate in self._endpoints.items():
            factors = gate.rate.factors(now_s)
            self._metrics.llm_limits(name, factors.requests, factors.tokens, gate.rate.learner.refusals)
            self._metrics.llm_estimates(name, gate.use.error, gate.use.bias)
            self._metrics.llm_circuit(name, is_open=gate.breaker.circuit is not Circuit.CLOSED)

    def _of_topic(self, lane: Lane, works: Sequence[PartitionWork], *, joined: bool) -> None:
        if joined:
            paused = sum(not work.partition.wanted for work in works)
            self._metrics.partitions_owned(lane, len(works), paused)
        self._metrics.in_flight(lane, sum(work.finished.unfinished for work in works))
        for work in works:
            self._metrics.lag(lane, work.number, work.partition.lag)

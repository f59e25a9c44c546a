"""Metrics: what a worker counts and times, for Prometheus to fetch.

Services call the typed methods of `Metrics` and know nothing of Prometheus. Every method is meant to be
called once per batch, not once per record: those that count take `n`, the one that times every record takes
an array.
Names carry the prefix `shunt_`, base units and `_total`, as Prometheus asks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from stream_app.histograms import (
    LATENCY_BUCKETS_S,
    LLM_BUCKETS_S,
    LOOP_LAG_BUCKETS_S,
    MODEL_BUCKETS_S,
    TRANSACTION_BUCKETS_S,
    WAIT_BUCKETS_S,
    BatchHistogram,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

disable_created_metrics()  # a second series beside every one, which nobody asks for

Lane = Literal["classify", "escalate", "parked", "audits", "feeds", "shadow"]
"""`parked`, `audits`: the LLM lane's other topics."""
Route = Literal["small", "llm"]
TransactionOutcome = Literal["committed", "aborted", "fenced"]
RequestOutcome = Literal["ok", "unavailable", "refused"]


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far one input partition is: what health and readiness judge by.

    `committed` is the next offset the group will read, `lag` the records behind it, None while not known;
    `moved_at_s` is when `committed` last changed, or when the partition had nothing to do (monotonic clock).
    """

    committed: int | None
    lag: int | None
    moved_at_s: float


class Metrics:
    """All of a worker's metrics, in a registry of their own (a process, or a test, may have several)."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self._now_s = now_s
        self._progress: dict[str, dict[int, PartitionProgress]] = {}
        self._waiting_for: dict[str, str] = {}
        self._joined: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._records = self._count("records", "Input records taken in.", "lane")
        self._decisions = self._count("decisions", "Decisions published.", "kind", "decided_by")
        self._answers = self._count("answers", "Answers in final decisions.", "task", "label", "decided_by")
        self._escalated = self._count("escalated", "Tasks sent to the LLM lane.", "task", "because")
        self._degraded = self._count("degraded", "Finals taken from the small model for want of the LLM.", "reason")
        self._parked = self._count("parked", "Degraded finals whose event will be asked after all.", "reason")
        self._given_up = self._count("parked_given_up", "Parked events that are not corrected.", "cause")
        self._audits_sent = self._count("audits_sent", "Events whose accepted answers the LLM is asked about.")
        self._audited = self._count("audits", "Audited answers, by what the LLM said of them.", "task", "result")
        self._audit_risk = self._gauge("audit_risk", "Share of the policy's audits that were lost.", "task", "by")
        self._audit_wealth = self._gauge("audit_wealth", "Evidence against its bound; an alarm at 20.", "task", "by")
        self._audit_alarm = self._gauge("audit_alarm", "1 while the policy's alarm stands.", "task", "by")
        self._drift = self._gauge("drift_evidence", "Of what a drift takes, the part that is there.", "task", "what")
        self._drifted = self._gauge("drifted", "1 once it is clear in this worker's events.", "task", "what")
        self._count_labels()
        self._dead_letters = self._count("dead_letters", "Records that became dead letters.", "lane", "cause")
        self._tombstones = self._count("tombstones", "Null values passed on as tombstones.")
        self._transactions = self._count("transactions", "Kafka transactions, by how they ended.", "lane", "outcome")
        self._transaction_s = self._time(
            "transaction_duration_seconds", "From begin to its end.", TRANSACTION_BUCKETS_S, "lane"
        )
        self._membership_lost = self._count("membership_lost", "Times the group went on without us.", "lane")
        self._owned = self._gauge("partitions_owned", "Input partitions this worker owns.", "lane")
        self._paused = self._gauge("partitions_paused", "Partitions that a bound on what waits holds back.", "lane")
        self._in_flight = self._gauge("records_in_flight", "Records taken in and not yet delivered.", "lane")
        self._waiting = self._gauge("waiting", "1 while the lane waits on purpose.", "lane", "reason")
        self._committed = self._gauge("committed_offset", "Next offset the lane will read.", "lane", "partition")
        self._lag = self._gauge("lag_records", "Records behind the committed offset.", "lane", "partition")
        self._model_requests = self._count("model_requests", "Requests to Triton.", "model", "outcome")
        self._model_s = self._time(
            "model_request_duration_seconds", "One request to Triton.", MODEL_BUCKETS_S, "model"
        )
        self._llm_calls = self._count("llm_calls", "Calls to the LLM, each try counted.", "endpoint", "outcome")
        self._llm_wasted = self._count("llm_calls_wasted", "Calls paid for in vain.", "cause")
        self._llm_tokens = self._count("llm_tokens", "Tokens the LLM counted.", "endpoint", "direction")
        self._llm_cost = self._count("llm_cost_usd", "Dollars the LLM's answers cost.", "endpoint")
        self._llm_s = self._time("llm_call_duration_seconds", "One try of a call.", LLM_BUCKETS_S, "endpoint")
        self._llm_wait = self._time("llm_wait_seconds", "Held back by rate limits or budget.", WAIT_BUCKETS_S)
        self._llm_share = self._gauge(
            "llm_limit_share",
            "Of a configured limit, the part in use: less where headers or 429s say so.",
            "endpoint",
            "limit",
        )
        self._llm_refusals = self._count("llm_limit_refusals", "Times a limit was passed.", "endpoint")
        self._refusals_told: dict[str, int] = {}
        self._llm_error = self._gauge(
            "llm_token_estimate_error", "Mean of |estimated - counted| / counted tokens, lately.", "endpoint"
        )
        self._llm_bias = self._gauge(
            "llm_token_estimate_bias", "Mean of (estimated - counted) / counted tokens, lately.", "endpoint"
        )
        self._llm_circuit = self._gauge("llm_circuit_open", "1 while an endpoint is held to be away.", "endpoint")
        self._second = self._count(
            "second_opinions", "Second opinions that were worth asking for, by what became of them.", "result"
        )
        self._loop_lag = self._time("event_loop_lag_seconds", "A timer's delay.", LOOP_LAG_BUCKETS_S)
        self.latency = BatchHistogram(
            "shunt_decision_latency_seconds",
            "From the record's timestamp to its final decision.",
            "route",
            LATENCY_BUCKETS_S,
            self.registry,
        )

    def _count_labels(self) -> None:
        """What was said after the fact, by LLMs and by people."""
        self._feedback = self._count("feedback", "Labels written to the feedback topic.", "why")
        self._feedback_left_out = self._count("feedback_left_out", "Labels too large for the feedback topic.")
        self._verdicts = self._count("verdicts", "People's verdicts, by what became of them.", "result")

    def _count(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="shunt", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="shunt", registry=self.registry)

    def _time(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="shunt", registry=self.registry, buckets=tuple(buckets))

    # what became of records

    def records(self, lane: Lane, n: int) -> None:
        """`n` input records were taken in."""
        self._records.labels(lane).inc(n)

    def decisions(self, kind: str, decided_by: str, n: int = 1) -> None:
        """`n` decisions of that kind were published."""
        self._decisions.labels(str(kind), decided_by).inc(n)

    def answers(self, task: str, label: str, decided_by: str, n: int = 1) -> None:
        """`n` finals answered `task` with `label`."""
        self._answers.labels(task, label, decided_by).inc(n)

    def escalated(self, task: str, because: str, n: int = 1) -> None:
        """`n` events had this task sent to the LLM lane."""
        self._escalated.labels(task, because).inc(n)

    def degraded(self, reason: str, n: int = 1) -> None:
        """`n` finals came from the small model because the LLM could not be used."""
        self._degraded.labels(reason).inc(n)

    def parked(self, reason: str, n: int = 1) -> None:
        """`n` events were parked, to be asked after all."""
        self._parked.labels(reason).inc(n)

    def parked_given_up(self, cause: str, n: int = 1) -> None:
        """`n` parked events stay as they were decided: too old (`expired`), or no usable answer."""
        self._given_up.labels(cause).inc(n)

    def feedback(self, why: str, n: int = 1) -> None:
        """`n` labels were written to the feedback topic."""
        self._feedback.labels(why).inc(n)

    def feedback_left_out(self, n: int = 1) -> None:
        """`n` labels were too large for the feedback topic."""
        self._feedback_left_out.inc(n)

    def verdicts(self, result: str, n: int = 1) -> None:
        """`n` verdicts of people came to this: `corrected`, `same` (it was said before), or why to nothing."""
        self._verdicts.labels(result).inc(n)

    def audits_sent(self, n: int) -> None:
        """`n` events were drawn for an audit."""
        self._audits_sent.inc(n)

    def audited(self, task: str, result: str) -> None:
        """An audit of that task came to `agree`, `disagree` or `no_answer`."""
        self._audited.labels(task, result).inc()

    def audit_evidence(self, task: str, by: str, risk: float | None, wealth: float | None, *, alarm: bool) -> None:
        """What all audits of the policy in force say of that task, by the LLM or by people. Every worker tells it."""
        self._audit_risk.labels(task, by).set(float("nan") if risk is None else risk)
        self._audit_wealth.labels(task, by).set(float("nan") if wealth is None else wealth)
        self._audit_alarm.labels(task, by).set(alarm)

    def drift(self, task: str, what: str, evidence: float, *, drifted: bool) -> None:
        """How far what this worker decided is from the calibration sample: `prevalence`, `confidence`, ..."""
        self._drift.labels(task, what).set(evidence)
        self._drifted.labels(task, what).set(drifted)

    def dead_letters(self, lane: Lane, cause: str, n: int = 1) -> None:
        """`n` records became dead letters for that cause."""
        self._dead_letters.labels(lane, cause).inc(n)

    def tombstones(self, n: int = 1) -> None:
        """`n` null values were passed on."""
        self._tombstones.inc(n)

    def latencies(self, route: Route, seconds: NDArray[np.float64]) -> None:
        """Times from record timestamp to final decision, for a whole batch."""
        self.latency.observe_many(route, seconds)

    # Kafka

    def transaction(self, lane: Lane, outcome: TransactionOutcome, seconds: float) -> None:
        """A transaction ended."""
        self._transactions.labels(lane, outcome).inc()
        self._transaction_s.labels(lane).observe(seconds)

    def membership_lost(self, lane: Lane) -> None:
        """The lane was fenced or expelled and joins again."""
        self._membership_lost.labels(lane).inc()

    def partitions_owned(self, lane: Lane, n: int, paused: int = 0) -> None:
        """The lane is a member of its group and owns `n` partitions now (0 where others own them all).

        `paused` of them ask for no more records, because too much of them waits.
        """
        self._joined.add(lane)
        self._owned.labels(lane).set(n)
        self._paused.labels(lane).set(paused)

    def has_joined(self, lane: Lane) -> bool:
        """True once the lane has been given its partitions for the first time."""
        return lane in self._joined

    def in_flight(self, lane: Lane, n: int) -> None:
        """`n` records of the lane are taken in and not delivered."""
        self._in_flight.labels(lane).set(n)

    def committed(self, lane: Lane, partition: int, offset: int) -> None:
        """The lane's committed offset of `partition` is `offset` (set at opening, then at every commit)."""
        self._joined.add(lane)
        self._committed.labels(lane, partition).set(offset)
        known = self._partition(lane, partition)
        if known.committed != offset:
            self._progress[lane][partition] = replace(known, committed=offset, moved_at_s=self._now_s())

    def lag(self, lane: Lane, partition: int, records: int) -> None:
        """`records` lie between the committed offset and the end of `partition`."""
        self._lag.labels(lane, partition).set(records)
        known = self._partition(lane, partition)
        idle_before = known.lag is None or known.lag == 0
        moved_at_s = self._now_s() if records == 0 or idle_before else known.moved_at_s
        self._progress[lane][partition] = replace(known, lag=records, moved_at_s=moved_at_s)

    def partition_gone(self, lane: Lane, partition: int) -> None:
        """The lane no longer owns `partition`: its gauges go, someone else reports them."""
        if self._progress.get(lane, {}).pop(partition, None) is None:
            return
        for gauge in (self._committed, self._lag):
            gauge.remove_by_labels({"lane": lane, "partition": str(partition)})

    def waiting(self, lane: Lane, reason: str | None) -> None:
        """The lane holds work back on purpose (`"budget"`, `"the LLM"`, `"Triton"`); None: no longer."""
        before = self._waiting_for.pop(lane, None)
        if before is not None and before != reason:
            self._waiting.labels(lane, before).set(0)
        if reason is not None:
            self._waiting_for[lane] = reason
            self._waiting.labels(lane, reason).set(1)

    def waiting_for(self, lane: Lane) -> str | None:
        """What the lane waits for on purpose, if it does."""
        return self._waiting_for.get(lane)

    def progress(self, lane: Lane) -> dict[int, PartitionProgress]:
        """How far each partition of the lane is, by partition number."""
        return dict(self._progress.get(lane, {}))

    def _partition(self, lane: Lane, partition: int) -> PartitionProgress:
        fresh = PartitionProgress(None, None, self._now_s())
        return self._progress.setdefault(lane, {}).setdefault(partition, fresh)

    # models

    def model_request(self, model: str, outcome: RequestOutcome, seconds: float) -> None:
        """A request to Triton ended; `model` is `name:version`."""
        self._model_requests.labels(model, outcome).inc()
        self._model_s.labels(model).observe(seconds)

    def llm_call(self, endpoint: str, outcome: str, seconds: float) -> None:
        """One try of an LLM call ended; `outcome` is `ok`, `timeout`, `rate_limited`, `refused`, ..."""
        self._llm_calls.labels(endpoint, outcome).inc()
        self._llm_s.labels(endpoint).observe(seconds)

    def llm_usage(self, endpoint: str, input_tokens: int, output_tokens: int, cost_usd: float) -> None:
        """What an LLM call took."""
        self._llm_tokens.labels(endpoint, "input").inc(input_tokens)
        self._llm_tokens.labels(endpoint, "output").inc(output_tokens)
        self._llm_cost.labels(endpoint).inc(cost_usd)

    def llm_wasted(self, cause: str, n: int = 1) -> None:
        """`n` calls were paid for and their answer not used."""
        self._llm_wasted.labels(cause).inc(n)

    def llm_wait(self, seconds: float) -> None:
        """A call was held back that long by rate limits or budget (0 counts)."""
        self._llm_wait.observe(seconds)

    def llm_limits(self, endpoint: str, requests_share: float, tokens_share: float, refusals: int) -> None:
        """How much of the configured limits is in use, and how often a limit was passed since the start."""
        self._llm_share.labels(endpoint, "requests").set(requests_share)
        self._llm_share.labels(endpoint, "tokens").set(tokens_share)
        self._llm_refusals.labels(endpoint).inc(refusals - self._refusals_told.get(endpoint, 0))
        self._refusals_told[endpoint] = refusals

    def llm_estimates(self, endpoint: str, error: float, bias: float) -> None:
        """By what part of what was counted the token estimates are off, either way and on balance."""
        self._llm_error.labels(endpoint).set(error)
        self._llm_bias.labels(endpoint).set(bias)

    def second_opinion(self, result: str) -> None:
        """One was worth asking for: it `changed` an answer or was the `same`, or why the first's stands."""
        self._second.labels(result).inc()

    def llm_circuit(self, endpoint: str, *, is_open: bool) -> None:
        """Whether calls are kept from the endpoint, but for a probe now and then."""
        self._llm_circuit.labels(endpoint).set(is_open)

    # the process

    def event_loop_lag(self, seconds: float) -> None:
        """A timer fired that much late."""
        self._loop_lag.observe(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self.registry)

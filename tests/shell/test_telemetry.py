"""What the metrics and logs promise their readers."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stream_app.histograms import LATENCY_BUCKETS_S
from stream_app.logs import masked, set_up_logging
from stream_app.telemetry import Metrics


class Clock:
    """A monotonic clock a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_every_metric_has_the_prefix_and_parses() -> None:
    """A scrape after every method was called is valid text, each name ours or the process's."""
    metrics = Metrics()
    metrics.records("classify", 3)
    metrics.decisions("final", "small", 3)
    metrics.answers("sentiment", "positive", "small", 3)
    metrics.escalated("sentiment", "unsure", 1)
    metrics.degraded("outage")
    metrics.dead_letters("classify", "not_json")
    metrics.tombstones()
    metrics.latencies("small", np.array([0.004, 0.2]))
    metrics.transaction("classify", "committed", 0.01)
    metrics.membership_lost("classify")
    metrics.partitions_owned("classify", 6)
    metrics.in_flight("classify", 10)
    metrics.committed("classify", 2, 41)
    metrics.lag("classify", 2, 7)
    metrics.model_request("sentiment_fast:1", "ok", 0.002)
    metrics.llm_call("http://127.0.0.1:1/v1", "ok", 0.8)
    metrics.llm_usage("http://127.0.0.1:1/v1", 100, 12, 0.0003)
    metrics.llm_wasted("handover", 2)
    metrics.llm_wait(0.0)
    metrics.llm_limits("http://127.0.0.1:1/v1", 1.0, 0.4, 2)
    metrics.llm_limits("http://127.0.0.1:1/v1", 1.0, 0.35, 3)
    metrics.llm_estimates("http://127.0.0.1:1/v1", 0.05, -0.01)
    metrics.llm_circuit("http://127.0.0.1:1/v1", is_open=True)
    metrics.second_opinion("changed")
    metrics.event_loop_lag(0.001)
    found = samples(metrics)
    assert all(name.startswith(("shunt_", "process_")) for name, _ in found)
    assert found["shunt_records_total", (("lane", "classify"),)] == 3
    assert found["shunt_lag_records", (("lane", "classify"), ("partition", "2"))] == 7
    endpoint = ("endpoint", "http://127.0.0.1:1/v1")
    assert found["shunt_llm_tokens_total", (("direction", "output"), endpoint)] == 12
    assert found["shunt_llm_circuit_open", (endpoint,)] == 1
    assert found["shunt_second_opinions_total", (("result", "changed"),)] == 1
    assert found["shunt_llm_limit_share", (endpoint, ("limit", "tokens"))] == 0.35
    assert found["shunt_llm_limit_refusals_total", (endpoint,)] == 3
    assert found["shunt_decision_latency_seconds_count", (("route", "small"),)] == 2


def test_two_metrics_do_not_share_counts() -> None:
    """Each `Metrics` has a registry of its own, so a test or a second lane never sees another's figures."""
    one, other = Metrics(), Metrics()
    one.records("classify", 5)
    assert ("shunt_records_total", (("lane", "classify"),)) not in samples(other)


@given(st.lists(st.floats(min_value=-1, max_value=100_000), min_size=1, max_size=200))
def test_a_batch_counts_like_its_values_one_by_one(values: list[float]) -> None:
    """The array histogram holds what Prometheus' rule says: bucket `le` counts the values not above it."""
    metrics = Metrics()
    metrics.latencies("small", np.array(values[: len(values) // 2]))
    metrics.latencies("small", np.array(values[len(values) // 2 :]))
    found = samples(metrics)
    kept = [max(0.0, value) for value in values]
    for bound in LATENCY_BUCKETS_S:
        got = [
            v
            for (n, at), v in found.items()
            if n.startswith("shunt_decision") and "le" in dict(at) and float(dict(at)["le"]) == bound
        ]
        assert got == [sum(value <= bound for value in kept)], bound
    assert found["shunt_decision_latency_seconds_sum", (("route", "small"),)] == pytest.approx(sum(kept))


@given(st.lists(st.floats(min_value=0, max_value=80_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.99]))
def test_a_quantile_lies_in_the_right_bucket(values: list[float], share: float) -> None:
    """The estimate never leaves the bucket that holds the true quantile."""
    metrics = Metrics()
    metrics.latencies("llm", np.array(values))
    estimate = metrics.latency.quantile("llm", share)
    true = sorted(values)[max(0, int(np.ceil(share * len(values))) - 1)]
    high = next(bound for bound in LATENCY_BUCKETS_S if bound >= true)
    low = max([bound for bound in LATENCY_BUCKETS_S if bound < high], default=0.0)
    assert estimate is not None
    assert low <= estimate <= high


def test_progress_moves_only_with_the_offset_or_with_an_empty_queue() -> None:
    """A commit that repeats an offset is no progress; having nothing to do is; new work starts the clock."""
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed("classify", 0, 10)
    clock.now_s = 130.0
    metrics.lag("classify", 0, 5)
    assert metrics.progress("classify")[0].moved_at_s == 130.0
    clock.now_s = 160.0
    metrics.committed("classify", 0, 10)
    metrics.lag("classify", 0, 9)
    assert metrics.progress("classify")[0].moved_at_s == 130.0
    metrics.committed("classify", 0, 11)
    assert metrics.progress("classify")[0].moved_at_s == 160.0


def test_a_partition_that_went_away_leaves_no_gauge_behind() -> None:
    """Two workers never report the same partition: the one that lost it stops."""
    metrics = Metrics()
    metrics.committed("escalate", 3, 10)
    metrics.lag("escalate", 3, 0)
    metrics.partition_gone("escalate", 3)
    metrics.partition_gone("escalate", 3)
    assert metrics.progress("escalate") == {}
    assert not [name for name, labels in samples(metrics) if ("partition", "3") in labels]


@pytest.fixture
def _root_logger_restored():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("_root_logger_restored")
def test_logs_are_json_where_no_terminal_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal each record is one JSON object on one line, traceback included."""
    monkeypatch.delenv("SHUNT_LOG_FORMAT", raising=False)
    stream = io.StringIO()
    set_up_logging("info", stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("stream_app.some").exception("it %s", "broke")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "stream_app.some", "it broke")
    assert "ValueError: two\nlines" in entry["exception"]


@pytest.mark.usefixtures("_root_logger_restored")
def test_text_logs_take_one_line_and_set_up_twice_does_not_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with a line break stays on its line, and a second set-up replaces the first."""
    monkeypatch.setenv("SHUNT_LOG_FORMAT", "text")
    stream = io.StringIO()
    set_up_logging("info", stream)
    set_up_logging("info", stream)
    logging.getLogger("stream_app.some").warning("first\nsecond")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("WARNING stream_app.some: first second")


@pytest.mark.usefixtures("_root_logger_restored")
def test_a_library_that_repeats_itself_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away does not fill the disk with one line; our own lines are never held back."""
    monkeypatch.setenv("SHUNT_LOG_FORMAT", "text")
    stream = io.StringIO()
    set_up_logging("info", stream)
    for node in range(50):
        logging.getLogger("aiokafka.conn").error("Unable to connect to node %s", node)
        logging.getLogger("stream_app.some").info("ours")
    lines = stream.getvalue().splitlines()
    assert sum("Unable to connect" in line for line in lines) == 1
    assert sum("ours" in line for line in lines) == 50


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Incorrect API key provided: sk-not-a-real-one-123.", "not-a-real"),
        ("Authorization: Bearer abcdef123456", "abcdef"),
        ('{"api_key": "abcdef123456"}', "abcdef"),
    ],
)
def test_what_looks_like_a_key_is_masked(said: str, kept: str) -> None:
    """An error that echoes a key does not carry it into the log."""
    assert kept not in masked(said)
    assert "***" in masked(said)

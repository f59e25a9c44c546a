"""One classify worker that owns many partitions at a fixed rate: does it keep up, at what CPU, how soon.

    python -m benchmarks.many_partitions [--partitions 96] [--rate 20000] [--seconds 30] [--json]

For each `kafka.transactions_per_s_max` (`--transactions 50 150 400`) a worker as a user starts it, on real Kafka
and real Triton (the model `scripted` of the tests). A process of its own produces at the rate; one in a hundred
records is escalated. After a warm-up, for the records of `--seconds`:

* lag: the group's committed offsets behind the ends, each second, both read by confluent-kafka;
* CPU: user and system time of the worker's process, divided by the records committed meanwhile;
* latency: `decided_at` of a decision minus its record's timestamp (set by the producer when it sends), and the
  arrival of the decision at an independent `read_committed` consumer minus the same timestamp. Only the second
  holds the transaction; the reader polls all the time. One clock, one machine.

With its default `--linger-ms` the input comes in batches of about one record, with 100 of twenty.

Exits 1 where the lag in seconds of input passes its bar, or the CPU at the default setting or a lower one does: a
transaction takes most of a millisecond of CPU, so that a higher setting buys latency with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from benchmarks.load import LoadProcess
from benchmarks.worker import Offsets, WorkerProcess, peak
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.stack import Stack
from stream_app.settings import Kafka
from tests.beside import Beside
from tests.settings_file import write_settings

ROOT = Path(__file__).parent.parent
CPU_US_MAX = 20.0
LAG_S_MAX = 5.0
EVERY = 20
"""One decision in so many is timed: the reader must not take the cores from what it measures."""


class Arrivals(Beside):
    """Reads the decisions topic from its end on, in a thread, and times one in `EVERY`."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__()
        self._bootstrap, self._topic = bootstrap, topic
        self._since_ms = time.time() * 1000
        self.decided_ms: list[float] = []
        self.arrived_ms: list[float] = []

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"latency-{uuid.uuid4().hex[:8]}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )
        numbers = consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions
        consumer.assign([TopicPartition(self._topic, number, OFFSET_END) for number in numbers])
        seen = 0
        while not self._over.is_set():
            messages = consumer.consume(1_000, 0.01)
            now_ms = time.time() * 1000
            for message in messages:
                seen += 1
                if not message.error() and not seen % EVERY:
                    self._note(json.loads(message.value()), now_ms)
        consumer.close()

    def _note(self, decision: dict[str, Any], now_ms: float) -> None:
        stamp_ms = datetime.fromisoformat(decision["source"]["timestamp"]).timestamp() * 1000
        if stamp_ms < self._since_ms:
            return  # of the warm-up
        decided_ms = datetime.fromisoformat(decision["decided_at"]).timestamp() * 1000
        self.decided_ms.append(decided_ms - stamp_ms)
        self.arrived_ms.append(now_ms - stamp_ms)


def quantiles(values: list[float]) -> dict[str, float]:
    """p50 and p99, ms."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1) for share in (50, 99)}


def measure(stack: Stack, folder: Path, given: argparse.Namespace, transactions: int) -> dict[str, Any]:
    """One worker, one setting."""
    name, bootstrap = f"many-{transactions}", stack.bootstrap_servers
    folder.mkdir()
    settings = write_settings(
        folder,
        name,
        bootstrap_servers=bootstrap,
        triton=stack.triton_grpc,
        kafka={"transactions_per_s_max": transactions},
    )
    asyncio.run(create(Connection(settings.kafka), plan(settings.kafka, None, partitions=given.partitions)))
    offsets = Offsets(bootstrap, name, f"{name}-classify")
    arguments = ["--bootstrap", bootstrap, "--topic", name, "--partitions", given.partitions, "--rate", given.rate]
    arguments += ["--escalated", 0.01, "--bytes", 200, 400, "--linger-ms", given.linger_ms]
    worker = WorkerProcess(folder, "classify")
    try:
        ready_s = time.monotonic() + 60
        while worker.metric("shunt_partitions_owned", lane="classify") < given.partitions:
            worker.check()
            if time.monotonic() > ready_s:
                raise SystemExit("the worker did not get its partitions within 60 s")
            time.sleep(0.5)
        with LoadProcess(*arguments) as load:
            time.sleep(given.warm_up_s)
            with Arrivals(bootstrap, settings.kafka.names.decisions) as arrivals:
                began_s, cpu_s, began = time.monotonic(), worker.cpu_s(), offsets.committed()
                lags = []
                while time.monotonic() < began_s + given.seconds:
                    worker.check()
                    lags.append(offsets.lag())
                    time.sleep(1.0)
                took_s, used_s = time.monotonic() - began_s, worker.cpu_s() - cpu_s
                done = offsets.committed() - began
            load.stop()
        committed = worker.metric("shunt_transactions_total", lane="classify", outcome="committed")
    finally:
        worker.end()
        offsets.close()
    return {
        "transactions_per_s_max": transactions,
        "records_per_s": round(done / took_s),
        "cpu_us_a_record": round(used_s / max(1, done) * 1e6, 2),
        "lag_records": {"first": lags[0], "last": lags[-1], "max": max(lags)},
        "lag_max_s": round(max(lags) / given.rate, 2),
        "transactions": round(committed),
        "timed": len(arrivals.arrived_ms),
        "decided_ms": quantiles(arrivals.decided_ms),
        "arrived_ms": quantiles(arrivals.arrived_ms),
        **peak(worker.samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=96)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm-up-s", type=float, default=15)
    parser.add_argument("--linger-ms", type=float, default=5, help="of the one who writes the input")
    parser.add_argument("--transactions", type=int, nargs="+", default=(50, 150, 400))
    parser.add_argument("--json", action="store_true", help="one line")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stack = Stack(
            folder / "stack", llm=False, model_repository=ROOT / "tests" / "models", load_models=["scripted"]
        )
        asyncio.run(stack.open())
        rows = []
        try:
            for transactions in given.transactions:
                rows.append(measure(stack, folder / str(transactions), given, transactions))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        finally:
            asyncio.run(stack.close())
    misses = [
        f"transactions_per_s_max {row['transactions_per_s_max']}: {figure} is {row[figure]}, its bar {bar}"
        for row in rows
        for figure, bar in (("cpu_us_a_record", CPU_US_MAX), ("lag_max_s", LAG_S_MAX))
        if row[figure] > bar
        and (figure != "cpu_us_a_record" or row["transactions_per_s_max"] <= Kafka().transactions_per_s_max)
    ]
    found = {
        "partitions": given.partitions,
        "rate": given.rate,
        "linger_ms": given.linger_ms,
        "cpu_us_a_record_bar": CPU_US_MAX,
        "lag_bar_s": LAG_S_MAX,
        "rows": rows,
        "misses": misses,
        "load_1m": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found, indent=None if given.json else 2))
    raise SystemExit(1 if misses else 0)


if __name__ == "__main__":
    main()

"""A worker as a user starts it (`python -m stream_app.cli run`), watched from outside: memory, CPU, metrics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from stream_app.local.ports import claim_port

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process, bytes."""

    at_s: float
    rss: int
    uss: int
    pss: int


@dataclass
class WorkerProcess:
    """One `shunt run` in a folder with a `shunt.toml`. `role` is empty for both lanes in one process.

    `module` is what runs it, instead of the command line itself.
    """

    folder: Path
    role: str
    name: str = ""
    samples: list[Sample] = field(default_factory=list)
    module: str = "stream_app.cli"

    def __post_init__(self) -> None:
        self.name = self.name or self.role or "both"
        self._claim = claim_port()
        self.port = self._claim.number
        log = self.folder / f"{self.name}.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "run", *([self.role] if self.role else [])],
                cwd=self.folder,
                env={**os.environ, "SHUNT_WEB__PORT": str(self.port)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._process = psutil.Process(self.process.pid)
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        """A sample a second, until the end."""
        while not self._over.wait(1.0):
            try:
                found = self._process.memory_full_info()
            except psutil.Error:
                return
            self.samples.append(Sample(time.monotonic(), found.rss, found.uss, found.pss))

    def cpu_s(self) -> float:
        """User and system time so far."""
        used = self._process.cpu_times()
        return used.user + used.system

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What its /metrics says; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as response:
                text = response.read().decode()
        except OSError:
            return {}
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.metrics().items() if found == name and wanted <= has)

    def check(self) -> None:
        """Raises SystemExit where it has ended by itself, with the end of its log."""
        if (status := self.process.poll()) is not None:
            tail = (self.folder / f"{self.name}.log").read_text(errors="replace")[-2_000:]
            raise SystemExit(f"the worker {self.name} ended with status {status}:\n{tail}")

    def end(self, within_s: float = 60.0) -> int:
        """SIGTERM, and its exit status; killed when it does not end in time."""
        self._over.set()
        self._claim.release()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def peak(samples: Iterable[Sample]) -> dict[str, float]:
    """The largest of each, and the last resident set, in MB (10^6 bytes)."""
    kept = list(samples)
    if not kept:
        return {}
    return {
        "rss_max_mb": round(max(each.rss for each in kept) / MB, 1),
        "rss_last_mb": round(kept[-1].rss / MB, 1),
        "pss_max_mb": round(max(each.pss for each in kept) / MB, 1),
        "uss_max_mb": round(max(each.uss for each in kept) / MB, 1),
    }


class Offsets:
    """A group's committed offsets and a topic's ends, by confluent-kafka."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed"}
        )
        numbers = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._partitions = [TopicPartition(topic, number) for number in numbers]

    def committed(self) -> int:
        """The sum over the partitions."""
        for _ in range(30):
            try:
                return sum(max(0, each.offset) for each in self._consumer.committed(self._partitions, timeout=10))
            except KafkaException:
                time.sleep(0.5)  # the coordinator still loads
        raise SystemExit("the coordinator tells no offsets")

    def lag(self) -> int:
        """Records between what is committed and the end."""
        committed = self.committed()  # read first: the ends move on meanwhile, and a lag is never negative
        return sum(self._consumer.get_watermark_offsets(each, timeout=10)[1] for each in self._partitions) - committed

    def close(self) -> None:
        self._consumer.close()

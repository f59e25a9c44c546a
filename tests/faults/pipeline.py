"""A pipeline on topics of its own: the settings file a user would write, its topics, and whether it is at rest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.faults.lags import lags, lags_elsewhere
from tests.settings_file import write_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.lags import Lags

SESSION_S = 6.0
HANDOVER_S = 2.0
TEXT_BYTES_MAX = 20_000
TOPIC_BYTES_MAX = 4_000_000
HERE_WITHIN_S = 30.0
"""So long without an answer, and another process asks."""
QUIET = {"log_level": 0}
"""The harness's own clients say nothing of the brokers that it takes away."""


@dataclass(frozen=True)
class Pipeline:
    """Where everything is. Topics: input, decisions, escalations, dlq and review."""

    bootstrap_servers: str
    triton: str
    llm: str
    name: str
    partitions: int = 4
    decisions_partitions: int | None = None
    """Another number than the input's: the key chooses the partition."""
    replicas: int = 1
    provisional: bool = False
    timeout_s: float = 10.0

    def topic(self, use: str) -> str:
        return self.name if use == "input" else f"{self.name}-{use}"

    def write_settings(self, folder: Path) -> None:
        write_settings(
            folder,
            self.name,
            bootstrap_servers=self.bootstrap_servers,
            triton=self.triton,
            llm_base_url=self.llm,
            kafka={
                "session_timeout_ms": int(SESSION_S * 1000),
                "transaction_timeout_ms": 10_000,
                "handover_s": HANDOVER_S,
            },
            llm={"usd_per_hour": 1_000.0, "usd_per_day": 1_000.0, "deadline_s": 600, "timeout_s": self.timeout_s},
            endpoint={"requests_per_minute": 60_000, "tokens_per_minute": 60_000_000},
            events={"text_bytes_max": TEXT_BYTES_MAX},
            decisions={"provisional": self.provisional},
            web={"port": 0},
        )

    def create_topics(self) -> None:
        """Makes the topics; returns when a client sees them all. Decisions take less than the input on purpose."""
        counts = {
            "input": self.partitions,
            "decisions": self.decisions_partitions or self.partitions,
            "escalations": self.partitions,
            "dlq": self.partitions,
            "parked": self.partitions,
            "review": self.partitions,
            "feedback": self.partitions,
            "verdicts": self.partitions,
            "audits": self.partitions,
            "audit-results": 1,
            "control": 1,
        }
        roomy = {"max.message.bytes": str(TOPIC_BYTES_MAX)}
        topics = [
            NewTopic(
                self.topic(use),
                number,
                self.replicas,
                config={"cleanup.policy": "compact"}
                if use == "control"
                else roomy
                if use in {"input", "dlq"}
                else {},
            )
            for use, number in counts.items()
        ]
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **QUIET})
        for made in admin.create_topics(topics).values():
            made.result(30)
        deadline = time.monotonic() + 30
        while not {topic.topic for topic in topics} <= set(admin.list_topics(timeout=10).topics):
            assert time.monotonic() < deadline, "topics were made and are not seen"
            time.sleep(0.1)

    def lags(self) -> Lags:
        """Records that are not committed, by lane and partition."""
        return lags(self.bootstrap_servers, self.name)

    def wait_for_rest(self, within_s: float) -> float:
        """Returns when the lag of both lanes is exactly 0 on every partition: after how many seconds."""
        began_s, best, progress_s = time.monotonic(), None, time.monotonic()
        here = True
        while True:
            try:
                found = self.lags() if here else lags_elsewhere(self.bootstrap_servers, self.name)
            except KafkaException as error:
                here = time.monotonic() - progress_s < HERE_WITHIN_S
                print(f"lags cannot be read{'' if here else ', another process asks'}: {error}", flush=True)
                time.sleep(0.5)
                continue
            left = sum(sum(lane.values()) for lane in found.values())
            if left == 0:
                return time.monotonic() - began_s
            if best is None or left < best:
                best, progress_s = left, time.monotonic()
            assert time.monotonic() - progress_s < within_s, f"no progress for {within_s:.0f} s: {found}"
            time.sleep(0.5)

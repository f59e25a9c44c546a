"""Workers as a user starts them, `shunt run ROLE` in processes of their own: started, asked to leave, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WITHIN_S = 90.0

CONFIG = """
[kafka]
bootstrap_servers = "{kafka}"
group = "{name}"
input_topic = "{name}"
session_timeout_ms = 6000
transaction_timeout_ms = 10000
drain_timeout_s = {drain_s}
[triton]
url = "{triton}"
[[tasks]]
name = "sentiment"
tiers = ["scripted"]
threshold = 0.9
[llm]
usd_per_hour = 1000.0
usd_per_day = 10000.0
max_in_flight = {in_flight}
timeout_s = 300.0
deadline_s = 300.0
[[llm.endpoints]]
base_url = "{llm}"
requests_per_minute = 1000000
tokens_per_minute = 1000000000
[web]
port = 0
"""


class Worker:
    """One process, its log, and what its own metrics say."""

    def __init__(self, folder: Path, name: str, role: str) -> None:
        self.name, self.role = name, role
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_app.cli", "run", role],
                cwd=folder,
                env={**os.environ, "SHUNT_LOG_FORMAT": "text"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by its labels' values; empty while the worker does not answer."""
        found = re.search(r"web server on (http://\S+)", self.said)
        if found is None:
            return {}
        try:
            with urlopen(f"{found[1]}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        families = text_string_to_metric_families(text)
        return {
            tuple(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    def owned(self) -> set[int]:
        """The partitions it works on."""
        return {int(partition) for _, partition in self.samples("shunt_committed_offset")}

    def leave(self) -> None:
        """Asks it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(WITHIN_S)


def until(true: Callable[[], object], what: Callable[[], str], within_s: float = WITHIN_S) -> None:
    """Waits until it is true; `what` it was is said where it never was."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"not within {within_s:.0f} s: {what()}"
        time.sleep(0.1)

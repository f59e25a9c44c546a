"""What a pipeline's groups have not committed yet; also as a program, for a process that no longer gets an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.kafka.reading import committed_and_end

ROOT = Path(__file__).parent.parent.parent
ELSEWHERE_TIMEOUT_S = 60.0

Lags = dict[str, dict[int, int]]
"""Records that are not committed, by lane and partition."""


def lags(bootstrap_servers: str, name: str) -> Lags:
    """Of the pipeline on the input topic `name`. Raises KafkaException."""
    return {
        lane: {
            number: end - max(0, committed)
            for number, (committed, end) in committed_and_end(bootstrap_servers, topic, f"{name}-{lane}").items()
        }
        for lane, topic in (("classify", name), ("escalate", f"{name}-escalations"))
    }


def lags_elsewhere(bootstrap_servers: str, name: str) -> Lags:
    """The same, read by a process of its own: clients of this one have seen brokers killed, and may be stuck."""
    command = [sys.executable, "-m", "tests.faults.lags", bootstrap_servers, name]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ELSEWHERE_TIMEOUT_S, check=False)
    assert told.returncode == 0, f"lags cannot be read by another process either: {told.stderr[-2_000:]}"
    read = json.loads(told.stdout)
    return {lane: {int(number): lag for number, lag in of_lane.items()} for lane, of_lane in read.items()}


if __name__ == "__main__":
    print(json.dumps(lags(*sys.argv[1:])))

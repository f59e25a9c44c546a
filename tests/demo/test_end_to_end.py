"""`shunt demo` as a user runs it: on its own Kafka, Triton and workers, and nothing of it is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

DEADLINE_S = 170
KEYS = [
    "events",
    "decisions",
    "accepted",
    "escalated",
    "degraded",
    "dlq",
    "llm_calls",
    "llm_stand_in",
    "cost_usd",
    "accuracy",
    "small_accuracy",
    "events_per_s",
    "latency_ms",
    "bootstrap_servers",
    "web",
]


def environment():
    """No key of a real LLM, whatever the environment of the tests holds."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "SHUNT_"))}


def start(folder, *flags, **streams):
    """`shunt demo` in a working folder of its own."""
    command = [sys.executable, "-m", "stream_app.cli", "demo", *flags]
    return subprocess.Popen(command, cwd=folder, env=environment(), text=True, **streams)


def left_of(folder):
    """Command lines of processes that work in the folder, or were started for it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) or str(folder) in " ".join(process.cmdline()):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def run(folder, *flags):
    """Run to the end: what it printed on both streams, as plain text."""
    process = start(folder, *flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert "\x1b" not in out + err
    assert left_of(folder) == []
    return out, err


@pytest.mark.timeout(DEADLINE_S + 10)
def test_every_record_has_its_outcome_though_a_worker_is_killed(tmp_path):
    """Eighty records and a kill -9: small and LLM decisions, dead letters, nothing lost, and one JSON object."""
    out, err = run(tmp_path, "--exit", "--kill", "--json", "--events", "80", "--rate", "12")
    told = json.loads(out)
    assert list(told) == KEYS
    assert told["events"] == 80 == told["decisions"] + told["dlq"]
    assert told["decisions"] == told["accepted"] + told["escalated"]
    assert told["dlq"] >= 2
    assert told["accepted"] > 0
    assert told["llm_calls"] > 0
    assert told["llm_stand_in"] is True
    assert told["cost_usd"] > 0
    assert 0.5 < told["small_accuracy"] <= 1
    assert "The LLM is a stand-in" in err
    assert "kill -9  classify" in err
    assert "0 lost, 0 twice, as Kafka's own console consumer counts" in err


@pytest.mark.timeout(DEADLINE_S + 10)
def test_ctrl_c_ends_with_the_balance(tmp_path):
    """An interrupt during the run: the table of what was sent until then, status 0, no process left."""
    with (tmp_path / "shown.txt").open("w+", encoding="utf-8") as shown:
        process = start(tmp_path, stdout=shown, stderr=shown)
        deadline = time.monotonic() + DEADLINE_S
        while "positive" not in (tmp_path / "shown.txt").read_text("utf-8"):
            assert process.poll() is None, (tmp_path / "shown.txt").read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    told = (tmp_path / "shown.txt").read_text("utf-8")
    assert "0 lost, 0 twice" in told
    assert left_of(tmp_path) == []

"""The lane against another implementation of the API that is not ours: LiteLLM's proxy, with mock responses.

Asked for by `SHUNT_OTHER_PROVIDER=1`: LiteLLM is half a gigabyte, installed into an environment of its own that is
kept in the user's cache, and takes half a minute to start.

    SHUNT_OTHER_PROVIDER=1 .venv/bin/pytest tests/escalate/test_other_provider.py
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from stream_app.local.jars import user_cache_dir
from stream_app.local.ports import claim_port
from tests.escalate import escalated
from tests.escalate.test_lane import prefix, run_through  # noqa: F401 - `prefix` is a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LITELLM = "1.106.2"
EVENTS = 1_000
READY_WITHIN_S = 150.0
CONTENT = '{"sentiment": "negative"}'

pytestmark = pytest.mark.skipif(
    "SHUNT_OTHER_PROVIDER" not in os.environ, reason="installs LiteLLM: set SHUNT_OTHER_PROVIDER=1"
)


def installed() -> Path:
    """LiteLLM's command, installed unless it is there. Skips the test where it cannot be."""
    folder = user_cache_dir() / f"litellm-{LITELLM}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            python = folder / "bin" / "python"
            uv = [sys.executable, "-m", "uv"]
            for command in (
                [*uv, "venv", "--python", sys.executable, str(folder)],
                [*uv, "pip", "install", "--python", str(python), f"litellm[proxy]=={LITELLM}"],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    pytest.skip(f"LiteLLM {LITELLM} cannot be installed: {done.stderr.strip()[-500:]}")
            (folder / "complete").touch()
    return folder / "bin" / "litellm"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The proxy as an endpoint of the lane, with a key that it asks for."""
    command, port, key = installed(), claim_port(), f"sk-{secrets.token_hex(16)}"
    key_file = tmp_path / "key"
    key_file.write_text(key)
    config, log = tmp_path / "litellm.yaml", tmp_path / "litellm.log"
    model = {"model": "openai/gpt-4o-mini", "api_key": "none", "mock_response": CONTENT}
    config.write_text(json.dumps({"model_list": [{"model_name": "gpt-4o-mini", "litellm_params": model}]}))
    with log.open("wb") as output:
        server = subprocess.Popen(
            [command, "--config", config, "--host", "127.0.0.1", "--port", str(port.number), "--telemetry", "False"],
            # Prices from its own package: nothing is fetched.
            env={
                **os.environ,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_MASTER_KEY": key,
                "PYTHONPATH": "",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not answers(f"http://127.0.0.1:{port.number}/health/liveliness"):
            assert server.poll() is None, log.read_text()[-3_000:]
            assert time.monotonic() < deadline_s, log.read_text()[-3_000:]
            time.sleep(0.2)
        yield {"base_url": f"http://127.0.0.1:{port.number}/v1", "api_key_file": str(key_file)}
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        port.release()


def answers(url: str) -> bool:
    """Whether somebody says 200 there."""
    try:
        with urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.mark.timeout(600)
async def test_the_lane_works_unchanged_against_litellms_proxy(stack, proxy, prefix):  # noqa: F811
    """1,000 events, each decided by the LLM with what the proxy said, and with the usage that it told."""
    settings = escalated.settings(
        stack.bootstrap_servers, proxy["base_url"], prefix, endpoint=proxy, max_in_flight=50
    )
    began_s = time.monotonic()
    decisions = await run_through(stack, settings, escalated.texts(EVENTS))
    print(f"{EVENTS} events in {time.monotonic() - began_s:.1f} s")
    assert escalated.finals_per_source(decisions) == Counter(range(EVENTS))
    answered = [(one["answers"]["sentiment"]["label"], one["decided_by"], one["degraded"]) for one in decisions]
    assert set(answered) == {("negative", "llm", False)}
    for decision in decisions:
        assert decision["usage"]["input_tokens"] > 0
        assert decision["usage"]["output_tokens"] > 0
        assert decision["usage"]["request_id"]
    assert len({decision["usage"]["request_id"] for decision in decisions}) == EVENTS

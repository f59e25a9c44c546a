"""A worker that dies says why, and nothing from outside leads the demo to a real cluster."""

from __future__ import annotations

import pytest

from stream_app.errors import StartError
from stream_app.escalate.prices import DEFAULT_PRICES
from stream_app.local.demo.config import STAND_IN_KEY, stand_in_price
from stream_app.local.demo.workers import ROLES, Workers, last_words


def test_last_words_are_the_critical_ones():
    """Of a worker's log the critical line counts, not what it wrote while ending; else the last line."""
    log = '{"level": "critical", "message": "the price is not known"}\n{"level": "info", "message": "draining"}\n'
    assert last_words(log) == "the price is not known"
    assert last_words("Traceback\nshunt: there is no settings file\n") == "shunt: there is no settings file"
    assert last_words("") is None


async def test_a_worker_that_cannot_start_is_one_line(tmp_path, monkeypatch):
    """Without a settings file every worker ends; the error names one, its reason and its log."""
    monkeypatch.setenv("SHUNT_KAFKA__BOOTSTRAP_SERVERS", "prod:9092")
    workers = Workers(tmp_path / "none.toml", tmp_path, 0)
    try:
        with pytest.raises(StartError, match="worker did not start") as raised:
            await workers.start()
        assert "no settings file" in raised.value.one_line()
        assert ".log" in raised.value.one_line()
    finally:
        await workers.stop()
    for process in workers.processes:
        assert "SHUNT_KAFKA__BOOTSTRAP_SERVERS" not in process.env
        assert process.env[STAND_IN_KEY] == "stand-in"
    assert {process.name for process in workers.processes} == {f"the {role} worker" for role in ROLES}


def test_a_stand_in_has_a_price():
    """A dated model counts at its family's price, an unknown one at the default model's."""
    assert stand_in_price("gpt-3.5-turbo-1106") == DEFAULT_PRICES["gpt-3.5-turbo"]
    assert stand_in_price("llama-2-70b-chat") == DEFAULT_PRICES["gpt-4o-mini"]

"""What the demo's flags mean: pace, size, and whose answers count."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from stream_app.errors import SettingsError, StartError
from stream_app.local.demo.config import STAND_IN_KEY, require_platform, settings_text, shipped_policy
from stream_app.local.demo.folder import KEPT_RUNS, new_run_folder
from stream_app.local.demo.options import KILL_RECORDS, KILL_S, RATE, DemoOptions, choose_llm
from stream_app.local.stack import StackInfo
from stream_app.settings import load_settings

STACK = StackInfo("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "http://127.0.0.1:4/v1", "somewhere")


def test_pace():
    """A person's pace by default, flat out with --exit, --rate above both, and room for kills."""
    assert DemoOptions().pace(500) == RATE
    assert DemoOptions(exit=True).pace(500) is None
    assert DemoOptions(exit=True, rate=7.0).pace(500) == 7.0
    assert DemoOptions(exit=True, kill=True).pace(1000) == 1000 / KILL_S
    assert DemoOptions(kill=True, rate=500.0).pace(1000) == 500.0


def test_a_run_with_kills_is_longer():
    """Unless told otherwise, or given a file."""
    assert DemoOptions(kill=True).records_wanted == KILL_RECORDS
    assert DemoOptions(kill=True, records=50).records_wanted == 50
    assert DemoOptions(kill=True, input=Path("x")).records_wanted is None
    assert DemoOptions().records_wanted is None


def test_a_replay_needs_a_name():
    """Recorded answers are of a model; without its name there is one line that says so."""
    with pytest.raises(SettingsError, match="--llm-replay") as raised:
        DemoOptions(replay=Path("answers"))
    assert "--llm-name" in raised.value.one_line()


def test_whose_answers():
    """A key means the real API, a replay wins over it, else the stand-in; each says what it is."""
    stand_in = choose_llm(DemoOptions(), {})
    assert stand_in.stand_in
    assert stand_in.follows_rule
    assert "stand-in" in stand_in.notice
    real = choose_llm(DemoOptions(llm_names=("m",)), {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://llm/v1"})
    assert (real.stand_in, real.base_url, real.model) == (False, "http://llm/v1", "m")
    assert "real money" in real.notice
    replay = choose_llm(DemoOptions(replay=Path("f"), llm_names=("m",)), {"OPENAI_API_KEY": "k"})
    assert replay.stand_in
    assert not replay.follows_rule
    assert "replays" in replay.notice


@pytest.mark.parametrize("names", [("m",), ()])
def test_the_settings_file_is_one_a_user_could_write(tmp_path, names, monkeypatch):
    """It loads as settings, names the policy's models and labels, and holds no key."""
    policy = shipped_policy()
    llm = choose_llm(DemoOptions(replay=Path("f") if names else None, llm_names=names), {})
    text = settings_text(policy, frozenset(policy.tasks), STACK, llm, 6066)
    tomllib.loads(text)
    path = tmp_path / "shunt.toml"
    path.write_text(text)
    settings = load_settings(path)
    assert {task.name for task in settings.tasks} == set(policy.tasks)
    assert settings.llm.endpoints[0].api_key_env == STAND_IN_KEY
    assert settings.llm.hint is not bool(names)
    assert settings.policy.file is not None
    assert settings.policy.file.is_file()


def test_old_runs_go(tmp_path):
    """Only the newest runs are kept, and none whose process still runs."""
    for number in range(9):
        (tmp_path / f"20260101-00000{number}-99999999{number}").mkdir()
    (tmp_path / "20260101-000000-1").mkdir()
    made = new_run_folder(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert made.name == left[-1]
    assert "20260101-000000-1" in left
    assert len(left) <= KEPT_RUNS + 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    """A file where the folder should be: the reason and what to do, not a trace."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StartError, match="cannot write"):
        new_run_folder(tmp_path / "taken")


def test_another_platform_is_one_line(monkeypatch):
    """Before anything is fetched or started, the way that works there."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(StartError, match="Linux x86-64") as raised:
        require_platform()
    assert "docker compose" in raised.value.one_line()


def test_a_model_of_ones_own_runs_without_a_price(tmp_path):
    """A real endpoint with a model that the table does not know: its calls count as free, a known one as priced."""
    policy = shipped_policy()
    for model, usd in (("my-own-model", 0.0), ("gpt-4o-mini", None)):
        llm = choose_llm(DemoOptions(llm_names=(model,)), {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://llm/v1"})
        path = tmp_path / "shunt.toml"
        path.write_text(settings_text(policy, frozenset(policy.tasks), STACK, llm, 6066))
        endpoint = load_settings(path).llm.endpoints[0]
        assert (endpoint.base_url, endpoint.model) == ("http://llm/v1", model)
        assert (endpoint.api_key_env, endpoint.usd_per_million_input) == ("OPENAI_API_KEY", usd)

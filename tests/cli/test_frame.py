"""What holds for every command: help, errors, exit statuses."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

import stream_app.cli as frame
from stream_app.errors import MembershipLostTooOften, SettingsError, StartError

from .command import environment, shunt

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = '[[tasks]]\nname = "t"\ntiers = ["echo"]\nthreshold = 0.9\n'


@pytest.mark.parametrize("listed", frame.COMMANDS, ids=lambda listed: listed.name)
def test_every_listed_command_exists_and_explains_itself(listed: frame.Listed) -> None:
    """`shunt --help` promises nothing that is not there, and each command has a help of its own."""
    module, _, attribute = listed.where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    assert found.help
    assert listed.does.endswith(".") or listed.does.endswith("?")


def test_help_answers_at_once() -> None:
    """Listing commands imports none of them: no Kafka client, no Faust, no pydantic, no numpy."""
    program = (
        "import sys; from stream_app.cli import main; main(['--help']); "
        "print([m for m in ('aiokafka', 'faust', 'pydantic', 'numpy', 'rich', 'openai') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"
    positions = [told.index(f"\n  {listed.name} ") for listed in frame.COMMANDS]
    assert positions == sorted(positions)


def test_commands_that_read_and_write_records_start_without_numpy() -> None:
    """It is a third of what they import; neither their settings nor the wire format take it."""
    for module in ("consume", "produce", "feedback", "erase", "topics", "dlq"):
        program = f"import sys, stream_app.cli.{module}; print([m for m in ('numpy', 'openai') if m in sys.modules])"
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert told == "[]\n", module


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("brew",), "No such command 'brew'"),
        (("topics", "create", "--partitions", "0"), "--partitions"),
        (("produce", "nowhere.jsonl"), "nowhere.jsonl"),
        (("status", "--frobnicate"), "--frobnicate"),
        (("dlq", "show", "first"), "PARTITION/OFFSET"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """What a person typed wrong is said in one line, with the help that tells what would be right."""
    (tmp_path / "shunt.toml").write_text(SETTINGS)
    ran = shunt(*arguments, cwd=tmp_path)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("shunt: ")
    assert ran.err.count("\n") == 1
    assert says in ran.err
    assert "--help" in ran.err


@pytest.mark.parametrize("name", ["topics", "dlq", "stack", ""])
def test_a_group_without_a_command_shows_its_help(name: str, tmp_path: Path) -> None:
    """Nobody has to know that there is a --help."""
    ran = shunt(*([name] if name else []), cwd=tmp_path)
    assert ran.status == 2
    assert "Usage: shunt" in ran.err
    assert "Commands" in ran.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "shunt init"),
        (SETTINGS + "[kafka]\ngruop = 'x'\n", "did you mean 'group'"),
        (SETTINGS + "[llm]\nmax_in_flight = 'many'\n", "llm.max_in_flight"),
        ("[kafka\n", "not valid TOML"),
    ],
)
def test_bad_settings_are_one_line_and_status_2(text: str | None, says: str, tmp_path: Path) -> None:
    """A missing file, an unknown key, a wrong type: one line that says what to change, and nothing is done."""
    if text is not None:
        (tmp_path / "shunt.toml").write_text(text)
    ran = shunt("status", cwd=tmp_path)
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert says in ran.err


def test_config_is_understood_before_and_after_the_command(tmp_path: Path) -> None:
    """A flag for the whole program is typed in either place."""
    for arguments in (("--config", "other.toml", "status"), ("status", "--config", "other.toml")):
        assert "other.toml" in shunt(*arguments, cwd=tmp_path).err
    assert "third.toml" in shunt("status", cwd=tmp_path, SHUNT_CONFIG="third.toml").err


def test_kafka_that_is_away_is_one_line_and_status_1(tmp_path: Path) -> None:
    """The line names the address and the setting."""
    (tmp_path / "shunt.toml").write_text(SETTINGS + '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n')
    for arguments in (("status",), ("topics", "create"), ("consume",), ("dlq", "list")):
        ran = shunt(*arguments, cwd=tmp_path)
        assert ran.status == 1
        assert ran.err.startswith("shunt: ")
        assert ran.err.count("\n") == 1
        assert "127.0.0.1:1" in ran.err
        assert "bootstrap_servers" in ran.err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (SettingsError("a is wrong", advice="correct a"), 2, "shunt: a is wrong: correct a"),
        (StartError("b is\nmissing"), 1, "shunt: b is missing"),
        (MembershipLostTooOften("lost"), 3, "shunt: lost"),
        (ZeroDivisionError("oh"), 1, "shunt: ZeroDivisionError: oh (a fault of Shunt; SHUNT_DEBUG=1 shows where)"),
        (KeyboardInterrupt(), 1, "shunt: interrupted"),
    ],
)
def test_each_error_has_its_line_and_its_status(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One place turns what was raised into what a person reads and a script tests."""

    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.delenv("SHUNT_DEBUG", raising=False)
    monkeypatch.setattr(frame.FirstUseOrder, "get_command", lambda *_: fails)
    assert frame.main(["fails"]) == status
    told = capsys.readouterr()
    assert told.err.strip() == line
    assert told.out == ""


def test_the_debug_variable_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback is there for who asks for it."""

    @click.command()
    def fails() -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setenv("SHUNT_DEBUG", "1")
    monkeypatch.setattr(frame.FirstUseOrder, "get_command", lambda *_: fails)
    assert frame.main(["fails"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    """`shunt ... | head` ends quietly."""
    writer = "import stream_app.cli as c, click\n@click.command()\ndef w():\n for i in range(10**6): click.echo(i)\n"
    program = writer + "c.FirstUseOrder.get_command = lambda *_: w\nraise SystemExit(c.main(['w']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(30) == 1


def test_the_command_is_of_the_tree_under_test(tmp_path: Path) -> None:
    """Also where another tree is installed in this environment: a green run tells of what stands here."""
    program = "import stream_app.cli; print(stream_app.cli.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == frame.__file__


def test_version(tmp_path: Path) -> None:
    """The version, for a bug report."""
    from stream_app import __version__

    assert shunt("--version", cwd=tmp_path).out.split()[-1] == __version__

"""`shunt evaluate --live` as a person has it: a process, real Triton, the stand-in LLM, its report and its ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from tests.conftest import TEST_MODELS, run_apart
from tests.stand_in import StandIn

from .command import TIMEOUT_S, Ran, command, environment, shunt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "gpt-4o-mini"
UNSURE_ROWS = 60
SURE_ROWS = 100


def sure(each: int) -> list[dict[str, str]]:
    """Rows that the small model is sure of, and right."""
    return [
        {"id": f"{word}{n}", "text": f"{word} item number {n}, I love it", "label": label}
        for word, label in (("good", "positive"), ("bad", "negative"))
        for n in range(each)
    ]


def unsure(count: int) -> list[dict[str, str]]:
    """Rows that it is not sure of, half of them positive."""
    return [
        {
            "id": f"u{n}",
            "text": f"unsure about {n}: {'lovely' if n % 2 else 'awful'}",
            "label": "positive" if n % 2 else "negative",
        }
        for n in range(count)
    ]


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Triton with the scripted model and the stand-in LLM; no Kafka is needed."""
    running = Stack(
        tmp_path_factory.mktemp("stack"),
        kafka=False,
        model_repository=[TEST_MODELS],
        load_models=["scripted"],
        llm_options=StandInOptions(latency_median_ms=5),
    )
    run_apart(running.open())
    yield running
    run_apart(running.close())


@pytest.fixture
def llm(servers: Stack) -> StandIn:
    """The stand-in as it was at the start."""
    stand_in = StandIn(servers.llm_base_url)
    stand_in.admin("reset")
    return stand_in


@pytest.fixture(scope="module")
def folder(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, labelled rows and a policy that escalates the unsure ones."""
    here = tmp_path_factory.mktemp("live")
    settings = (
        f'[triton]\nurl = "{servers.triton_grpc}"\n'
        '[[tasks]]\nname = "sentiment"\ntiers = ["scripted"]\ntarget_error = 0.02\n'
        f'[llm]\nmax_in_flight = 8\n[[llm.endpoints]]\nbase_url = "{servers.llm_base_url}"\n'
        f'model = "{MODEL}"\nrequests_per_minute = 60000\ntokens_per_minute = 60000000\n'
    )
    (here / "shunt.toml").write_text(settings)
    _write(here / "calibration.jsonl", [*sure(500), *unsure(200)])
    _write(here / "rows.jsonl", [*sure(SURE_ROWS // 2), *unsure(UNSURE_ROWS)])
    _write(here / "sure.jsonl", sure(10))
    made = shunt("calibrate", "calibration.jsonl", "--out", "policy.json", cwd=here)
    assert made.status == 0, made.err
    return here


LIVE = ("evaluate", "rows.jsonl", "--policy", "policy.json", "--live")


def object_of(ran: Ran) -> dict[str, Any]:
    """The one JSON object on standard output."""
    return json.loads(ran.out)


def test_the_report_for_a_program(folder: Path, llm: StandIn) -> None:
    """Figures of each variant and comparison; each measured row beside them, without its text."""
    ran = shunt(*LIVE, "--out", "out.jsonl", "--json", "--seed", "3", cwd=folder)
    assert ran.status == 0, ran.err
    found = object_of(ran)
    assert (found["measured"], found["escalated"], found["stopped"]) == (UNSURE_ROWS, UNSURE_ROWS, None)
    assert found["llm_stand_in"] is True
    assert found["calls"] == len(llm.calls()) == 2 * UNSURE_ROWS, "two labels: hint and pruned ask the same"
    assert 0 < found["usd_paid"] <= found["usd_max"]
    assert found["usd_estimated"] == pytest.approx(found["usd_paid"], rel=0.5)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(lines) == UNSURE_ROWS
    assert not any("text" in line for line in lines)
    for figures in found["variants"]:
        right = [line["asked"][figures["variant"]]["label"] == line["label"] for line in lines]
        assert figures["accuracy"] == pytest.approx(sum(right) / len(right))
        assert figures["whole_accuracy"] == pytest.approx((SURE_ROWS + sum(right)) / (SURE_ROWS + UNSURE_ROWS))
    assert [(one["variant"], one["baseline"]) for one in found["comparisons"]] == [
        ("hint", "plain"), ("pruned", "plain"), ("pruned", "hint")
    ]  # fmt: skip


def test_of_several_endpoints_the_first_is_asked_and_it_says_so(folder: Path, llm: StandIn, tmp_path: Path) -> None:
    """Figures of two models in one table would say nothing; nobody listens at the second."""
    second = '[[llm.endpoints]]\nbase_url = "http://127.0.0.1:1/v1"\n'
    (tmp_path / "two.toml").write_text((folder / "shunt.toml").read_text() + second)
    ran = shunt(*LIVE, "--limit", "10", "--json", "--config", str(tmp_path / "two.toml"), cwd=folder)
    assert ran.status == 0, ran.err
    assert "the first of the 2 endpoints" in ran.err
    assert object_of(ran)["calls"] == len(llm.calls()) > 0


def test_the_report_for_a_person(folder: Path, llm: StandIn) -> None:
    """It says what it will cost before, as an estimate, and whose figures these are: the stand-in's."""
    ran = shunt(*LIVE, "--limit", "10", cwd=folder)
    assert ran.status == 0, ran.err
    assert "Estimated cost: $0." in ran.err
    assert "the others cost nothing" in ran.err
    assert "plain (stand-in)" in ran.out
    assert "10 of 10 rows measured in every variant" in ran.out
    assert "pruning: pruned and hint asked the same questions" in ran.out
    assert len(llm.calls()) == 20


def test_a_seed_repeats_the_choice_of_rows(folder: Path, llm: StandIn) -> None:
    """The same seed asks about the same rows, another one about others."""
    chosen: list[set[str]] = []
    for seed in ("1", "1", "2"):
        llm.admin("reset")
        assert shunt(*LIVE, "--limit", "8", "--compare", "plain", "--seed", seed, cwd=folder).status == 0
        chosen.append({call["event_id"] for call in llm.calls()})
    assert chosen[0] == chosen[1] != chosen[2]


def test_ctrl_c_reports_what_was_measured(folder: Path, llm: StandIn) -> None:
    """An interrupted run prints the figures of its whole rows and ends with status 1."""
    llm.latency(150, 0)
    running = subprocess.Popen(
        command(*LIVE, "--json"), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until_s = time.monotonic() + TIMEOUT_S
    while len(llm.calls()) < 40 and running.poll() is None and time.monotonic() < until_s:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 1, err
    found = json.loads(out)
    assert found["stopped"] == "interrupted"
    assert 0 < found["measured"] < UNSURE_ROWS
    assert {figures["rows"] for figures in found["variants"]} == {found["measured"]}
    assert b"shunt: interrupted" in err


def test_a_terminal_is_asked_first(folder: Path, llm: StandIn) -> None:
    """At a terminal nothing is paid before a yes; `--yes` gives it."""
    for more, answer, status in (((), b"n\n", 1), ((), b"y\n", 0), (("--yes",), b"", 0)):
        llm.admin("reset")
        ours, theirs = pty.openpty()
        running = subprocess.Popen(
            command(*LIVE, "--limit", "2", *more),
            cwd=folder,
            env=environment(TERM="dumb"),
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, answer)
        shown = _all_of(ours)
        assert running.wait(TIMEOUT_S) == status, shown
        os.close(ours)
        assert (b"Ask now?" in shown) == (not more)
        assert bool(llm.calls()) == (status == 0)


def _all_of(terminal: int) -> bytes:
    """What is written to a terminal until its last writer leaves."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other side has closed it
            return shown
        if not part:
            return shown
        shown += part


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--compare", "plain"), "--compare needs --live"),
        (("--usd-max", "2"), "--usd-max needs --live"),
        (("--yes",), "--yes needs --live"),
        (("--live", "--llm", "big"), "leave one out"),
        (("--live", "--compare", "plain,fancy"), "'fancy' is none of plain,hint,pruned"),
        (("--live", "--usd-max", "0"), "more than 0 dollars"),
        (("--live", "--usd-max", "nan"), "more than 0 dollars"),
    ],
)
def test_usage_errors_are_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """What does not go together, or says nothing, ends with status 2 before anything is asked."""
    ran = shunt("evaluate", "rows.jsonl", "--policy", "policy.json", *arguments, cwd=folder)
    assert ran.status == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_where_nothing_is_escalated_nothing_is_paid(folder: Path, llm: StandIn) -> None:
    """A policy that is sure of every row leaves nothing to ask: it is said, and is no failure."""
    ran = shunt("evaluate", "sure.jsonl", *LIVE[2:], "--json", cwd=folder)
    assert (ran.status, llm.calls()) == (0, [])
    assert "nothing is paid" in ran.err
    assert (object_of(ran)["variants"], object_of(ran)["usd_paid"]) == ([], 0)


def test_live_needs_a_policy(folder: Path) -> None:
    """Without a policy nobody knows which rows are escalated."""
    ran = shunt("evaluate", "rows.jsonl", "--live", cwd=folder)
    assert (ran.status, "--policy" in ran.err) == (2, True)


def test_a_cap_that_pays_nothing_and_a_key_that_is_refused(folder: Path, llm: StandIn) -> None:
    """Both end with one line that says what to change, and without a call too many."""
    poor = shunt(*LIVE, "--usd-max", "0.000001", cwd=folder)
    assert (poor.status, llm.calls()) == (2, [])
    assert "raise --usd-max" in poor.err.splitlines()[-1]
    llm.fault("unauthorized")
    refused = shunt(*LIVE, cwd=folder)
    assert refused.status == 1
    assert "invalid_api_key" in refused.err.splitlines()[-1]
    assert len(llm.calls()) <= 8

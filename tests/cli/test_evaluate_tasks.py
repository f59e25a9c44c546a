"""`shunt evaluate` of several tasks at once, on the real Triton."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import Ran, shunt

if TYPE_CHECKING:
    from pathlib import Path

    from stream_app.local.stack import Stack

ROWS = 900


def rows(seed: int) -> list[dict[str, Any]]:
    """Texts of which the tests' model tells the mood well, and the quarrel badly; a third have both labels."""
    draw, made = random.Random(seed), list[dict[str, Any]]()
    for number in range(ROWS):
        share = draw.choice([0.55, 0.7, 0.9, 0.97])
        said, other = draw.sample(["positive", "negative"], 2)
        mood, quarrel = (said if draw.random() < right else other for right in (share + 0.025, 0.6))
        labels = {"mood": mood} if number % 3 else {"mood": mood, "quarrel": quarrel}
        positive = share if said == "positive" else 1 - share
        made.append({"id": f"r{number}", "text": f"number {number} of {seed}, p={positive}", "labels": labels})
    return made


@pytest.fixture
def folder(stack: Stack, tmp_path: Path) -> Path:
    """Two tasks of one model: the one promises a target, the other only that costs are saved."""
    (tmp_path / "shunt.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{stack.bootstrap_servers}"\n[triton]\nurl = "{stack.triton_grpc}"\n'
        '[policy]\nfile = "policy.json"\n'
        '[[tasks]]\nname = "mood"\ntiers = ["scripted"]\ntarget_error = 0.1\n'
        '[[tasks]]\nname = "quarrel"\ntiers = ["scripted"]\ntarget_error = 0.1\n'
    )
    for name, seed in (("calibration", 1), ("test", 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(seed)))
    made = shunt("calibrate", "calibration.jsonl", "--task", "mood", "--task", "quarrel", "--out", "policy.json",
                 cwd=tmp_path)  # fmt: skip
    assert made.status == 0, made.err
    return tmp_path


def evaluate(folder: Path, *arguments: str) -> Ran:
    """The command on the test rows."""
    return shunt("evaluate", "test.jsonl", "--policy", "policy.json", *arguments, cwd=folder)


def test_tasks_are_measured_together(folder: Path) -> None:
    """Each task has the figures that it has alone; an event is escalated where any of its tasks is."""
    both = evaluate(folder, "--task", "mood", "--task", "quarrel", "--json", "--out", "both.jsonl")
    assert both.status == 0, both.err
    told = json.loads(both.out)
    for task in ("mood", "quarrel"):
        alone = evaluate(folder, "--task", task, "--json")
        assert told["tasks"][task] == json.loads(alone.out)
    lines = [json.loads(line) for line in (folder / "both.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"r{number}" for number in range(ROWS)]
    assert {tuple(line["tasks"]) for line in lines} == {("mood",), ("mood", "quarrel")}
    escalated = [any(one["route"] != "accepted" for one in line["tasks"].values()) for line in lines]
    assert told["events"] == ROWS
    assert told["escalated_share"] == pytest.approx(sum(escalated) / ROWS)
    assert told["tasks"]["mood"]["escalated_share"] < told["escalated_share"]
    shown = evaluate(folder, "--task", "mood", "--task", "quarrel")
    assert "mood, policy@" in shown.out
    assert "quarrel, policy@" in shown.out


def test_what_is_about_one_task_says_so(folder: Path) -> None:
    """Recorded answers and live questions are one task's; status 2 with the reason."""
    for option in (("--llm", "any"), ("--live",)):
        ran = evaluate(folder, "--task", "mood", "--task", "quarrel", *option)
        assert ran.status == 2
        assert f"{option[0]} is about one task" in ran.err

"""A challenger is calibrated on Triton beside the version in force, on rows that did not teach it."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from stream_app.classify.model_control import ModelControl
from stream_app.local.stack import Stack
from stream_app.routing.policy import load_policy
from stream_app.training.held_out import read_held_out
from stream_app.training.making import TrainingSet
from stream_app.training.rows import LabelledRow
from stream_app.training.train import train_rows
from tests.cli.command import shunt
from tests.conftest import run_apart
from tests.settings_file import write_settings
from tests.training.test_distill import BASE, FEEDBACK, NEW, OLD, row_json, texts


def labelled(path, rows):
    """JSON Lines as `shunt calibrate` and `shunt train` read them."""
    path.write_text("".join(json.dumps({"id": row.id, "text": row.text, "label": row.label}) + "\n" for row in rows))


def rows_of(words, count, seed):
    return [LabelledRow(f"c-{seed}-{at}", text, label) for at, (text, label) in enumerate(texts(words, count, seed))]


@pytest.fixture
def here(tmp_path):
    """A Triton of its own that serves version 1 of the model, a shunt.toml, and labelled rows."""
    folder = tmp_path / "models" / "mood_fast"
    train_rows(TrainingSet(BASE, ["base.jsonl"]), task="mood", folder=folder, validation={}, curve=False)
    stack = Stack(
        tmp_path / "stack", kafka=False, llm=False, model_repository=tmp_path / "models", load_models=["mood_fast"]
    )
    run_apart(stack.open())
    write_settings(
        tmp_path,
        "moods",
        bootstrap_servers="127.0.0.1:9",
        triton=stack.triton_grpc,
        task={"name": "mood", "tiers": ["mood_fast"], "target_error": 0.1},
        policy={"file": "policy.json"},
    )
    labelled(tmp_path / "base.jsonl", BASE)
    labelled(tmp_path / "calibration.jsonl", [*rows_of(OLD, 400, 21), *rows_of(NEW, 200, 22)])
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(row_json(row)) + "\n" for row in FEEDBACK))
    yield tmp_path, stack
    run_apart(stack.close())


async def served(url):
    """The versions that Triton serves."""
    async with ModelControl.connect(url, 60.0) as models:
        return await models.served("mood_fast")


def test_from_a_policy_to_a_challengers(here):
    """Its rows are held out from teaching, what taught from calibrating, and both versions are served."""
    folder, stack = here
    made = shunt("calibrate", "calibration.jsonl", "--out", "policy.json", cwd=folder)
    assert made.status == 0, made.err
    held = read_held_out(folder / "policy.json")
    rows = [json.loads(line) for line in (folder / "calibration.jsonl").read_text().splitlines()]
    assert all(held.holds_id(row["id"]) and held.holds_text(row["text"]) for row in rows)
    assert len(held.pairs) == len(rows)

    leak = row_json(FEEDBACK[0]) | {"id": rows[-1]["id"]}
    with (folder / "feedback.jsonl").open("a") as lines:
        lines.write(json.dumps(leak | {"text": "another text of the same event"}) + "\n")
        lines.write(json.dumps(leak | {"id": "another", "text": rows[-1]["text"].upper()}) + "\n")
    told = shunt(
        "distill", "feedback.jsonl", "--task", "mood", "--base", "base.jsonl",
        "--held-out", "policy.json", "--out", "models", cwd=folder,
    )  # fmt: skip
    assert told.status == 0, told.err
    assert "held out, by id: 1" in told.out
    assert "held out, by text: 1" in told.out

    challenger = "models/mood_fast/2"
    shutil.copy(folder / "policy.json", folder / "challenger.json")
    labelled(folder / "with_lessons.jsonl", [*BASE[:10], *rows_of(OLD, 400, 21), *rows_of(NEW, 200, 22)])
    better = shunt(
        "calibrate", "with_lessons.jsonl", "--challenger", challenger, "--out", "challenger.json", cwd=folder
    )
    assert better.status == 0, better.err
    assert f"with_lessons.jsonl: 10 rows left out: they taught {challenger}" in better.err
    assert asyncio.run(served(stack.triton_grpc)) == {"1", "2"}
    old, new = (load_policy((folder / name).read_bytes()) for name in ("policy.json", "challenger.json"))
    assert [one.tasks["mood"].tiers[0].members[0].version for one in (old, new)] == ["1", "2"]
    assert new.tasks["mood"].measured.coverage > old.tasks["mood"].measured.coverage

    foreign = shunt("calibrate", "calibration.jsonl", "--challenger", "models", "--out", "x.json", cwd=folder)
    assert foreign.status == 2
    assert "models is no version of mood_fast" in foreign.err

"""`shunt stack` where nothing runs, and `shunt train` on a few labelled texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .command import shunt

if TYPE_CHECKING:
    from pathlib import Path


def test_a_stack_that_does_not_run_is_said_so(tmp_path: Path) -> None:
    """A script can ask for it (status 1, null), and stopping nothing is no error."""
    asked = shunt("stack", "status", "--json", cwd=tmp_path)
    assert (asked.status, asked.out) == (1, "null\n")
    assert shunt("stack", "status", "--dir", "elsewhere", cwd=tmp_path).out == "no stack runs in elsewhere\n"
    assert shunt("stack", "down", cwd=tmp_path).status == 0


def test_train_writes_a_model_folder_and_says_how_good_it_is(tmp_path: Path) -> None:
    """Labelled lines in, a Triton model out; a second time only when told to write over it."""
    rows = [
        {"text": f"{word} lamp, number {number}", "label": label}
        for number in range(30)
        for word, label in (("bright", "positive"), ("broken", "negative"))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "check.jsonl").write_text("\n".join(map(json.dumps, rows[:6])))
    arguments = ("train", "rows.jsonl", "--task", "mood", "--out", "models", "--validation", "check.jsonl")
    ran = shunt(*arguments, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "6 rows left out: held out, validated on, or asked by an audit" in ran.out
    assert "54 rows, one_of, labels negative, positive" in ran.out
    assert "accuracy on check.jsonl" in ran.out
    assert ran.out.rstrip().splitlines()[-1].startswith("Next: ")
    folder = tmp_path / "models" / "mood_fast"
    assert (folder / "labels.txt").read_text().split() == ["negative", "positive"]
    assert (folder / "config.pbtxt").is_file()
    again = shunt(*arguments, cwd=tmp_path)
    assert again.status == 2
    assert again.err.count("\n") == 1


def test_train_names_what_is_wrong_with_the_rows(tmp_path: Path) -> None:
    """One line, status 2, and nothing is written."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "x"}\n')
    ran = shunt("train", "rows.jsonl", "--task", "mood", "--out", "models", cwd=tmp_path)
    assert ran.status == 2
    assert "label" in ran.err
    assert not (tmp_path / "models" / "mood_fast").exists()

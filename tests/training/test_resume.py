"""An interrupted training goes on where it stood, and ends with the model it would have made in one go."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stream_app.training import table
from stream_app.training.train import train
from stream_app.training.work import open_work

WORDS = {
    "calm": ["quiet", "gentle", "still", "soft", "slow"],
    "wild": ["loud", "furious", "frantic", "raging", "fast"],
}


def labelled(path: Path, count: int, seed: int = 1, noise_words: int = 60) -> Path:
    """Rows whose label their words tell, long enough for the training to be caught in the middle."""
    chosen = random.Random(seed)
    lines = []
    for at in range(count):
        label = list(WORDS)[at % 2]
        noise = " ".join(f"w{chosen.randrange(4000)}" for _ in range(noise_words))
        text = f"{noise} {chosen.choice(WORDS[label])} {chosen.choice(WORDS[label])}"
        lines.append(json.dumps({"id": str(at), "text": text, "label": label}))
    path.write_text("\n".join(lines) + "\n")
    return path


def killed_at(files: Path, out: Path, kept: str, *options: str, before: str = "") -> Path:
    """`shunt train` in a process of its own, killed as soon as `kept` stands in its work folder; that folder."""
    code = f"import sys; {before or 'pass'}; from stream_app.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", str(files), "--task", "mood", "--out", str(out), *options]
    work = out / f".mood_{'minilm' if 'minilm' in options else 'fast'}.training"
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not (work / kept).exists():
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return work


class CountedFits(table.LinearSVC):
    """liblinear, counting how often it was asked."""

    count = 0

    def fit(self, *given, **named):
        """Count, and fit."""
        type(self).count += 1
        return super().fit(*given, **named)


def test_a_killed_fast_training_goes_on(tmp_path, monkeypatch):
    """After kill -9 in the middle, the same command makes what is missing only, and the same weights to the byte."""
    rows = labelled(tmp_path / "rows.jsonl", 1200)
    monkeypatch.setattr(table, "LinearSVC", CountedFits)
    CountedFits.count = 0
    whole = train([rows], task="mood", out=tmp_path / "whole")
    of_whole, CountedFits.count = CountedFits.count, 0
    out = tmp_path / "models"
    work = killed_at(rows, out, "1-fold-2-column-0.npy")
    assert not (out / "mood_fast").exists()
    said = []
    resumed = train([rows], task="mood", out=out, progress=lambda doing, _: said.append(doing))
    assert said[0] == "going on where the last run stood"
    assert resumed.went_on
    assert not whole.went_on
    assert 0 < CountedFits.count <= of_whole - 11, "two folds of four fits, and three of the third, were made before"
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.curve == whole.curve
    assert not work.exists()


@pytest.mark.timeout(900)
def test_a_killed_minilm_training_goes_on(tmp_path):
    """After kill -9 in the middle of fine-tuning, the weights are those of a run that was never interrupted."""
    pytest.importorskip("torch", reason="needs the train extra")
    rows = labelled(tmp_path / "rows.jsonl", 48, noise_words=2)
    whole = train([rows], task="mood", out=tmp_path / "whole", model="minilm")
    out = tmp_path / "models"
    often = "import stream_app.training.minilm as m; m.SAVE_EVERY_S = 0.0"
    work = killed_at(rows, out, "model/checkpoint.pt", "--model", "minilm", before=often)
    said = []
    resumed = train([rows], task="mood", out=out, model="minilm", progress=lambda *each: said.append(each))
    first = next(share for doing, share in said if doing == "fine-tuning")
    assert first > 1.5 / 30, "of ten epochs of three batches the first batch is not made again"
    assert resumed.weights_sha256 == whole.weights_sha256
    assert not work.exists()


def test_leftovers_of_other_rows_are_not_gone_on_with(tmp_path):
    """A killed run's work is of no use to a run on other rows: it is thrown away, not mixed in."""
    killed_at(labelled(tmp_path / "rows.jsonl", 1200), tmp_path / "models", "1-fold-1-column-0.npy")
    other = labelled(tmp_path / "rows.jsonl", 300, seed=2)
    said = []
    made = train([other], task="mood", out=tmp_path / "models", progress=lambda doing, _: said.append(doing))
    assert "going on where the last run stood" not in said
    assert made.weights_sha256 == train([other], task="mood", out=tmp_path / "whole").weights_sha256


def test_another_seed_is_another_run(tmp_path):
    """The seed decides the folds; the same seed gives the same weights, another one others."""
    rows = labelled(tmp_path / "rows.jsonl", 200)
    made = [train([rows], task="mood", out=tmp_path / str(at), seed=seed) for at, seed in enumerate((1, 1, 2))]
    assert made[0].weights_sha256 == made[1].weights_sha256 != made[2].weights_sha256


def test_an_array_that_was_cut_short_is_made_again(tmp_path):
    """What a machine that went down left half written is not taken for whole; what is whole is not made again."""
    work, goes_on = open_work(tmp_path / "work", "one")
    assert not goes_on
    kept = work.part("fold").array("scores", lambda: np.arange(5.0))
    path = tmp_path / "work" / "fold-scores.npy"
    path.write_bytes(path.read_bytes()[:-8])
    again, goes_on = open_work(tmp_path / "work", "one")
    assert goes_on
    assert (again.part("fold").array("scores", lambda: kept + 1) == kept + 1).all()
    assert (again.part("fold").array("scores", lambda: kept + 2) == kept + 1).all()
    assert open_work(tmp_path / "work", "two")[1] is False
    assert not path.exists()

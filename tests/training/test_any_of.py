"""Models of labels of which any may be right: each a yes or no with a probability by itself."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from stream_app.classify.triton import TritonModels
from stream_app.cli import main
from stream_app.errors import SettingsError, StartError
from stream_app.local.stack import Stack
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.training.evaluation import load_scorer
from stream_app.training.folder import kind_in
from stream_app.training.gold import TaskKind
from stream_app.training.making import TrainingSet
from stream_app.training.rows import MarkedRow
from stream_app.training.train import Trained, train, train_rows

SIGNS = {"insult": ["idiot", "moron", "fool"], "spam": ["discount", "click", "offer"], "threat": ["hurt", "burn"]}
PLAIN = ["the", "parcel", "came", "on", "time", "thanks", "box", "blue", "today", "again", "shop", "street"]


def marked_rows(count: int, seed: int = 1, unknown: float = 0.3) -> list[MarkedRow]:
    """Each label is there for a third of the rows, by itself, and unknown for some."""
    chosen = random.Random(seed)
    rows = []
    for at in range(count):
        marks = {label: chosen.random() < 1 / 3 for label in SIGNS}
        words = [chosen.choice(signs) for label, signs in SIGNS.items() if marks[label]] + chosen.sample(PLAIN, 5)
        chosen.shuffle(words)
        said = {label: there for label, there in marks.items() if chosen.random() >= unknown}
        rows.append(MarkedRow(str(at), " ".join(words), said))
    return rows


def write(path: Path, rows: list[MarkedRow]) -> Path:
    path.write_text("".join(json.dumps({"text": row.text, "labels": row.marks}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("any_of")
    files = [write(folder / "rows.jsonl", marked_rows(400))]
    check = write(folder / "check.jsonl", marked_rows(150, seed=8))
    return train(files, task="trouble", out=folder / "models", validation=check)


def test_labels_are_answered_by_themselves(trained: Trained):
    """None, one and all of the labels may be right of a text: probabilities do not share one sum."""
    assert trained.kind is TaskKind.ANY_OF
    assert trained.labels == ("insult", "spam", "threat")
    texts = [b"the blue box came today", b"you moron", b"idiot, click this offer or I burn your shop"]
    probabilities, known = load_scorer(trained.folder).answer(texts)
    assert (probabilities > 0.5).tolist() == [[False, False, False], [True, False, False], [True, True, True]]
    assert known.shape == (3,)


def test_the_folder_says_its_kind(trained: Trained):
    """Config and card say that any label may be right, and give each label's figures."""
    assert kind_in(trained.folder) is TaskKind.ANY_OF
    card = (trained.folder / "MODEL_CARD.md").read_text()
    assert "any_of" in card
    assert "average precision" in card
    assert trained.held_out is not None
    for found in (trained.held_out, trained.figures["check.jsonl"]):
        assert set(found.by_label) == set(SIGNS)
        assert found.mean_average_precision > 0.95
        assert all(each.known < found.rows for each in found.by_label.values())


def test_what_is_unknown_is_not_a_no(tmp_path: Path):
    """A label left out of most rows that have it is learned from the rest, and its absence there taught nothing."""
    rows = [
        MarkedRow(row.id, row.text, {label: there for label, there in row.marks.items() if not there or at % 4 == 0})
        for at, row in enumerate(marked_rows(600, unknown=0))
    ]
    made = train_rows(
        TrainingSet(rows, ["written here"]), task="t", folder=tmp_path / "m", validation={}, curve=False
    )
    probabilities, _ = load_scorer(made.folder).answer([b"you idiot the box", b"click today", b"the box came"])
    assert probabilities[0, 0] > 0.5
    assert probabilities[1, 1] > 0.5
    assert probabilities[2].max() < 0.5


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"a": "yes"}, "labels: a map of labels to true or false"),
        ({"a": 2}, "labels: a map of labels to true or false"),
        (["a"], "labels: a map of labels to true or false"),
    ],
)
def test_marks_that_are_neither_yes_nor_no_are_refused(tmp_path: Path, labels: object, says: str):
    """A map with anything but true, false, 1, 0 or null is refused with file and line."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "labels": labels}) + "\n")
    with pytest.raises(SettingsError, match=f"rows.jsonl:1 .*{says}"):
        train([path], task="t", out=tmp_path, kind=TaskKind.ANY_OF)


def test_a_label_that_is_always_there_is_refused(tmp_path: Path):
    """Where a label's yes or its no has too few rows there is nothing to learn: said by name."""
    rows = [MarkedRow(str(at), "a word", {"a": at % 2 == 0, "b": True}) for at in range(40)]
    with pytest.raises(SettingsError, match="label 'b' = false has 0"):
        train_rows(TrainingSet(rows, []), task="t", folder=tmp_path / "m", validation={})


def test_the_command_goes_by_how_the_rows_are_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It prints each label's figures; rows with both `label` and `labels` go by `label`, unless `--kind` says."""
    path = tmp_path / "rows.jsonl"
    lines = [{"text": row.text, "labels": row.marks, "label": "ab"[at % 2]} for at, row in enumerate(marked_rows(80))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ["train", str(path), "--task", "t", "--out", str(tmp_path / "models"), "--no-curve"]
    assert main(asked) == 0
    assert "one_of, labels a, b" in capsys.readouterr().out
    assert main([*asked, "--kind", "any_of", "--replace"]) == 0
    told = capsys.readouterr().out
    assert "any_of, labels insult, spam, threat" in told
    assert "insult: precision" in told


def test_labels_from_another_field(tmp_path: Path):
    """`label_field` takes labels from where they stand; rows that have none there are left out."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"{word} number {at}", "label": "x", "about": {"tone": word} if at % 5 else {}}
        for at, word in enumerate(["mild", "harsh"] * 40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = train([path], task="tone", out=tmp_path / "models", label_field="about.tone", curve=False)
    assert made.labels == ("harsh", "mild")
    assert made.rows == 64


async def test_triton_serves_it_and_one_label_routing_refuses_it(trained: Trained, tmp_path: Path):
    """Triton gives the independent probabilities and the kind; a task of one right label does not take the model."""
    shutil.copytree(trained.folder, tmp_path / "models" / "trouble_fast")
    stack = Stack.start(
        tmp_path / "stack", kafka=False, llm=False,
        model_repository=tmp_path / "models", load_models=["trouble_fast"],
    )  # fmt: skip
    async with stack as running, TritonModels.connect(running.triton_grpc, 60) as models:
        model = await models.describe("trouble_fast")
        served = await models.infer(model, ["you moron", "idiot, click this offer or I burn your shop"])
    assert model.kind == "any_of"
    assert model.labels == trained.labels
    expected, _ = load_scorer(trained.folder).answer([b"you moron", b"idiot, click this offer or I burn your shop"])
    assert served.probabilities == pytest.approx(expected, abs=1e-5)
    assert served.probabilities.sum(axis=1).max() > 1.5
    task = Task(name="trouble", tiers=("trouble_fast",), threshold=0.9)
    with pytest.raises(StartError, match="any_of"):
        task_routers([task], {"trouble_fast": model}, None)


@pytest.mark.timeout(600)
def test_a_minilm_answers_any_label(tmp_path: Path):
    """The encoder learns each label by itself too, unknown marks left out."""
    pytest.importorskip("torch", reason="needs the train extra")
    data = TrainingSet(marked_rows(160), ["written here"])
    made = train_rows(data, task="trouble", folder=tmp_path / "trouble_minilm", model="minilm", validation={})
    assert kind_in(made.folder) is TaskKind.ANY_OF
    probabilities, _ = load_scorer(made.folder).answer([b"idiot, click this offer", b"the blue box came today"])
    assert (probabilities[0, :2] > 0.5).all()
    assert np.all(probabilities[1] < 0.5)

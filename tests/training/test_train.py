"""`shunt train` on rows written here: a folder that Triton can serve comes out, or one line that says why not."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream_app.errors import SettingsError
from stream_app.training.evaluation import answer_rows, load_scorer
from stream_app.training.folder import template
from stream_app.training.making import TrainingSet
from stream_app.training.rows import LabelledRow, in_half_a, read_rows
from stream_app.training.train import Trained, train, train_rows

PRAISE = ["lovely", "sturdy", "bright", "quiet", "delicious", "quick to charge", "a joy to use"]
BLAME = ["flimsy", "noisy", "bitter", "late", "scratched", "dead after a week", "a waste of money"]
DOUBT = ["fine I suppose", "nothing special", "neither here nor there", "about average", "just what it is"]
THINGS = ["kettle", "lamp", "novel", "headset", "jacket", "bicycle", "soup", "charger", "blender", "tent"]


def written_rows(labels: dict[str, list[str]], count: int, seed: int = 3) -> list[LabelledRow]:
    chosen = random.Random(seed)
    rows = []
    for number in range(count):
        label = list(labels)[number % len(labels)]
        said = " and ".join(chosen.sample(labels[label], 2))
        text = f"{chosen.choice(['This', 'My', 'The'])} {chosen.choice(THINGS)} is {said}."
        rows.append(LabelledRow(str(number), text, label, group=f"g{number // 2}"))
    return rows


TWO = {"bad": BLAME, "good": PRAISE}
THREE = {**TWO, "so_so": DOUBT}


def write(path: Path, rows: list[LabelledRow], *, zipped: bool = False) -> Path:
    lines = "".join(json.dumps({"id": row.id, "text": row.text, "label": row.label}) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if zipped else lines.encode())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("models")
    check = written_rows(TWO, 40, seed=9)
    seen = []
    made = train(
        [
            write(folder / "a.jsonl", written_rows(TWO, 80)),
            write(folder / "b.jsonl.gz", written_rows(TWO, 40), zipped=True),
        ],
        task="quality",
        out=folder / "repository",
        validation=write(folder / "check.jsonl", [replace(row, text=f"{row.text} So there.") for row in check]),
        progress=lambda doing, share: seen.append((doing, share)),
    )
    assert seen[-1] == ("done", 1.0)
    assert all(0 <= share <= 1 for _, share in seen)
    return made


def test_what_is_held_out_or_was_audited_never_teaches(tmp_path: Path) -> None:
    """By id, by text, and what an audit asked under whatever label: of each the whole event, and the run says so."""
    rows = written_rows({"bad": [f"worse {n}" for n in range(99)], "good": [f"better {n}" for n in range(99)]}, 80)
    asked = [
        {"id": "10", "text": rows[10].text, "label": "good", "why": "audit"},
        {"id": "x", "text": rows[11].text.upper(), "label": None, "why": "audit"},
    ]
    file = write(tmp_path / "a.jsonl", rows)
    file.write_text(file.read_text() + "".join(json.dumps(row) + "\n" for row in asked))
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"id": "12"}) + "\n" + json.dumps({"text": rows[13].text}) + "\n")
    made = train([file], task="t", out=tmp_path, held_out=[held], curve=False)
    assert (made.rows, made.left_out) == (76, 6)
    with pytest.raises(SettingsError, match="all rows are held out"):
        train([file], task="u", out=tmp_path, validation=write(tmp_path / "same.jsonl", rows), curve=False)


def test_training_writes_a_whole_model_folder(trained: Trained) -> None:
    """The folder holds config, labels, card, code and weights, and its model answers what it was taught."""
    files = {str(path.relative_to(trained.folder)) for path in trained.folder.rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} == {
        "config.pbtxt", "labels.txt", "MODEL_CARD.md", "learning_curve.svg",
        "1/model.py", "1/scoring.py", "1/weights.npz",
    }  # fmt: skip
    assert trained.folder.name == "quality_fast"
    assert trained.labels == ("bad", "good")
    assert (trained.rows, trained.left_out) == (120, 0)
    assert trained.figures["check.jsonl"].accuracy > 0.9
    card = (trained.folder / "MODEL_CARD.md").read_text()
    assert "check.jsonl" in card
    assert "Limits" in card


def test_served_code_is_the_code_that_trained(trained: Trained) -> None:
    """What is copied beside the weights is the template, byte for byte."""
    assert (trained.folder / "1" / "scoring.py").read_text() == template("fast", "scoring.py")
    assert (trained.folder / "1" / "model.py").read_text() == template("triton_model.py")


def test_training_is_repeatable(trained: Trained, tmp_path: Path) -> None:
    """The same rows give the same weights, to the byte."""
    rows = written_rows(TWO, 80) + written_rows(TWO, 40)
    plain = [LabelledRow(row.id, row.text, row.label) for row in rows]
    again = train_rows(TrainingSet(plain, ["again"]), task="quality", folder=tmp_path / "again", validation={})
    assert again.weights_sha256 == trained.weights_sha256


def test_other_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    """A model whose weights are not the ones its config names does not load."""
    copy = tmp_path / "changed"
    (copy / "1").mkdir(parents=True)
    for name in ("config.pbtxt", "labels.txt", "1/weights.npz"):
        (copy / name).write_bytes((trained.folder / name).read_bytes())
    with (copy / "1" / "weights.npz").open("ab") as weights:
        weights.write(b"\0")
    with pytest.raises(RuntimeError, match="the config names"):
        load_scorer(copy)


@pytest.mark.parametrize(
    "text", [b"", b"   \n\t", b"\x00\x00", b"\xff\xfe\xc3", b"\xf0\x9f", "👍".encode(), b"good " * 200_000]
)
def test_any_bytes_get_an_answer(trained: Trained, text: bytes) -> None:
    """Whatever the bytes, probabilities are numbers that sum to 1 and the known share is between 0 and 1."""
    probabilities, known = load_scorer(trained.folder).answer([b"a lovely lamp", text])
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert known.min() >= 0
    assert known.max() <= 1


def test_text_without_words_knows_nothing(trained: Trained) -> None:
    """No words, no known share: such a text is never in the model's domain."""
    _, known = load_scorer(trained.folder).answer([b"", b" ", "👍👎".encode(), b"10/10 !!!"])
    assert not known.any()


def test_an_answer_does_not_depend_on_its_company(trained: Trained) -> None:
    """A text is answered alike alone, in a batch and beside its own double."""
    rows = written_rows(TWO, 300, seed=5)
    texts = [row.text.encode() for row in rows]
    scorer = load_scorer(trained.folder)
    together, known = scorer.answer([*texts, *texts])
    alone = np.concatenate([scorer.answer([text])[0] for text in texts])
    assert together[:300] == pytest.approx(alone, abs=1e-6)
    assert together[300:] == pytest.approx(alone, abs=1e-6)
    assert (known[:300] == known[300:]).all()


def test_three_labels(tmp_path: Path) -> None:
    """Any label set works: three labels, three probabilities, in the label file's order."""
    made = train_rows(
        TrainingSet(written_rows(THREE, 180), ["written here"]), task="tone", folder=tmp_path / "tone", validation={}
    )
    rows = written_rows(THREE, 60, seed=8)
    answers = answer_rows(made.folder, rows)
    assert answers.labels == ("bad", "good", "so_so")
    assert answers.probabilities.shape == (60, 3)
    assert answers.accuracy(rows) > 0.9
    assert "* with_parts: False" in (made.folder / "MODEL_CARD.md").read_text()
    assert "dims: [ 3 ]" in (made.folder / "config.pbtxt").read_text()


def test_long_texts_are_learned_by_their_words(tmp_path: Path) -> None:
    """Long texts get the recipe without characters, and it is the one the model is served with."""
    rows = [LabelledRow(row.id, " ".join([row.text] * 12), row.label, row.group) for row in written_rows(TWO, 64)]
    made = train_rows(TrainingSet(rows, ["written here"]), task="t", folder=tmp_path / "long", validation={})
    with np.load(made.folder / "1" / "weights.npz") as weights:
        assert not weights["with_characters"]
    assert answer_rows(made.folder, rows).accuracy(rows) > 0.9


def test_where_a_thing_is_said_counts(tmp_path: Path) -> None:
    """Reviews that all say both, and mean what they say last: weights are learned from endings too."""
    chosen = random.Random(6)

    def rows(count: int) -> list[LabelledRow]:
        found = list[LabelledRow]()
        for at in range(count):
            label = ("bad", "good")[at % 2]
            first, last = ("great", "awful") if label == "bad" else ("awful", "great")
            filler = [" ".join(chosen.choices(THINGS, k=50)) for _ in range(2)]
            found.append(LabelledRow(str(at), f"{filler[0]} . {first} , {filler[1]} . {last} lamp .", label))
        return found

    data = TrainingSet(rows(240), ["written here"])
    made = train_rows(data, task="verdict", folder=tmp_path / "verdict", validation={}, curve=False)
    unseen = rows(100)
    assert answer_rows(made.folder, unseen).accuracy(unseen) > 0.95
    assert "* with_parts: True" in (made.folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "bad.jsonl:2 is not JSON"),
        (b"[1]", "bad.jsonl:2 is not a JSON object"),
        (b'{"text": 1, "label": "a"}', "bad.jsonl:2 needs the string fields"),
        (b"\xff", "bad.jsonl:2 is not JSON"),
    ],
)
def test_unreadable_rows_are_named(tmp_path: Path, line: bytes, says: str) -> None:
    """A file that is not labelled JSON Lines is refused with its name, the line and what is wrong."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "a", "label": "a"}\n' + line + b"\n")
    with pytest.raises(SettingsError, match=says):
        train([path], task="t", out=tmp_path)


def test_too_little_to_learn_from_is_refused(tmp_path: Path) -> None:
    """One label only, too few rows of a label, or a label held by one group: said, and nothing written."""
    good = [row for row in written_rows(TWO, 60) if row.label == "good"]
    few = [*good, *[LabelledRow(str(at), "bad thing", "bad") for at in range(3)]]
    one_group = [*good, *[LabelledRow(str(at), "bad thing", "bad", group="one") for at in range(20)]]
    for rows, says in ((good, "1 label"), (few, "'bad' has 3"), (one_group, "'bad' is in 1 group")):
        with pytest.raises(SettingsError, match=says):
            train_rows(TrainingSet(rows, []), task="t", folder=tmp_path / "model", validation={})
    assert list(tmp_path.iterdir()) == []


def test_existing_models_and_bad_names_are_refused(trained: Trained, tmp_path: Path) -> None:
    """A model folder is not overwritten unless asked, and a name Triton cannot take is refused."""
    data = TrainingSet(written_rows(TWO, 40), [])
    with pytest.raises(SettingsError, match="exists"):
        train_rows(data, task="t", folder=trained.folder, validation={})
    with pytest.raises(SettingsError, match="no model name"):
        train_rows(data, task="t", folder=tmp_path / "my model", validation={})


def test_validation_of_another_task_is_refused_before_training(tmp_path: Path) -> None:
    """Validation rows with a label the training rows do not have are refused at once."""
    with pytest.raises(SettingsError, match="'so_so' is not one"):
        train_rows(
            TrainingSet(written_rows(TWO, 40), []), task="t", folder=tmp_path / "m",
            validation={"check": written_rows(THREE, 30)},
        )  # fmt: skip


def test_rows_keep_what_the_file_says(tmp_path: Path) -> None:
    """Ids, groups and blank lines are read as written; a row without an id is named by its line."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 7, "text": "a", "label": "x", "group": "g"}\n\n{"text": "b", "label": "y"}\n')
    assert read_rows(path) == [LabelledRow("7", "a", "x", "g"), LabelledRow("3", "b", "y", numbered=True)]


def test_halves_keep_groups_together() -> None:
    """The half a row falls in depends on its group alone, and both halves get their share."""
    rows = [LabelledRow(str(at), "", "", f"group {at // 3}") for at in range(3000)]
    halves = [in_half_a(row) for row in rows]
    assert all(halves[at] == halves[at + 1] == halves[at + 2] for at in range(0, 3000, 3))
    assert 0.45 < sum(halves) / len(halves) < 0.55


def test_files_of_two_domains_get_an_expert_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that is praise in one file and blame in the other is read by the kind of text it stands in."""
    monkeypatch.setattr("stream_app.training.making.DOMAIN_ROWS_PER_LABEL_MIN", 20)
    chosen = random.Random(4)
    kitchen = {"good": ["hot", "sharp", "heavy"], "bad": ["cold", "dull", "light"]}
    travel = {"good": ["cold", "dull", "light"], "bad": ["hot", "sharp", "heavy"]}

    def rows(domain: dict[str, list[str]], things: list[str], count: int) -> list[LabelledRow]:
        pairs = [(at, ("good", "bad")[at % 2]) for at in range(count)]
        return [
            LabelledRow(str(at), f"The {chosen.choice(things)} was {chosen.choice(domain[label])} today.", label)
            for at, label in pairs
        ]

    pans, trips = ["pan", "knife", "stove", "kettle"], ["beach", "bus", "tour", "guide"]
    files = [
        write(tmp_path / "kitchen.jsonl", rows(kitchen, pans, 400)),
        write(tmp_path / "travel.jsonl", rows(travel, trips, 400)),
    ]
    made = train(files, task="mixed", out=tmp_path / "models")
    with np.load(made.folder / "1" / "weights.npz") as weights:
        assert weights["experts"].shape[0] == 2
        assert weights["gate"].shape[0] == 1
    unseen = [*rows(kitchen, pans, 60), *rows(travel, trips, 60)]
    assert answer_rows(made.folder, unseen).accuracy(unseen) > 0.95


def test_small_files_are_learned_as_one(trained: Trained) -> None:
    """Files too small for an expert of their own share one."""
    with np.load(trained.folder / "1" / "weights.npz") as weights:
        assert weights["experts"].shape[0] == 1

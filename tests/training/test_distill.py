"""`shunt distill`: feedback in, the next version of the model out, and nothing held out in it."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from stream_app.codec import encode_feedback
from stream_app.errors import SettingsError
from stream_app.training import challenger as challenger_module
from stream_app.training import distil as distil_module
from stream_app.training.challenger import make_challenger, taught
from stream_app.training.distil import certainty
from stream_app.training.evaluation import answer_rows
from stream_app.training.fast import Trust, fit
from stream_app.training.gated import gate
from stream_app.training.gold import gold_of
from stream_app.training.held_out import LEARNED, HeldOut, dump_held_out, read_held_out
from stream_app.training.making import TrainingSet
from stream_app.training.recipe import LONG_TEXTS, SHORT_TEXTS
from stream_app.training.rows import LabelledRow
from stream_app.training.train import train_rows
from stream_app.training.work import NOT_KEPT
from tests.cli.command import shunt
from tests.training import test_latent as like
from tests.training.test_gated import said

OLD = {"negative": ["broken", "flimsy", "bitter", "late"], "positive": ["lovely", "sturdy", "bright", "quick"]}
NEW = {"negative": ["meh", "naff", "dire", "grim"], "positive": ["ace", "lush", "stellar", "dope"]}
"""Words that no base row has: what the model in force has to ask about."""
NOISE = [f"w{number}" for number in range(60)]


def texts(words, count, seed):
    """(text, label) pairs: a word or two of the label among noise."""
    chosen = random.Random(seed)
    for number in range(count):
        label = ("negative", "positive")[number % 2]
        some = [*chosen.sample(words[label], 2), *chosen.sample(NOISE, 6)]
        chosen.shuffle(some)
        yield " ".join([*some, f"n{seed}x{number}"]), label


BASE = [LabelledRow(f"b-{at}", text, label) for at, (text, label) in enumerate(texts(OLD, 120, 1))]
FEEDBACK = [said(at, text, label) for at, (text, label) in enumerate(texts(NEW, 120, 2))]
UNLABELLED = [(f"u-{at}", text) for at, (text, _) in enumerate(texts(OLD, 60, 3))]
OLD_TEST = [LabelledRow(f"o-{at}", text, label) for at, (text, label) in enumerate(texts(OLD, 60, 4))]
NEW_TEST = [LabelledRow(f"t-{at}", text, label) for at, (text, label) in enumerate(texts(NEW, 60, 5))]
HELD = HeldOut.of((row.id, row.text) for row in (*OLD_TEST, *NEW_TEST))


def made(folder, held_out=HELD, feedback=FEEDBACK, unlabelled=UNLABELLED, base=BASE):
    """A challenger in `folder`, from all of it."""
    gated = gate(base, feedback, unlabelled, "mood", held_out)
    return make_challenger(
        gated, task="mood", folder=folder, sources=["base.jsonl"], seed=7, progress=lambda *_: None
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model repository with the model in force and its challenger."""
    folder = tmp_path_factory.mktemp("models") / "mood_fast"
    train_rows(TrainingSet(BASE, ["base.jsonl"]), task="mood", folder=folder, validation={}, curve=False)
    before = (folder / "config.pbtxt").read_text()
    challenger = made(folder)
    assert (folder / "config.pbtxt").read_text().startswith(before.rstrip("}\n"))
    return folder, challenger


def test_it_learns_what_it_had_to_ask_and_keeps_what_it_knew(repository):
    """Words that only the lessons hold are answered right now; old ones still are."""
    folder, challenger = repository
    assert challenger.version == "2"
    for rows, least in ((OLD_TEST, 0.95), (NEW_TEST, 0.9)):
        assert answer_rows(folder, rows, "2").accuracy(rows) >= least
    assert answer_rows(folder, NEW_TEST, "1").accuracy(NEW_TEST) < 0.7


def test_the_version_stands_beside_the_one_in_force(repository):
    """Its weights are named in the config, both versions are served, and the old one is untouched."""
    folder, challenger = repository
    config = (folder / "config.pbtxt").read_text()
    assert "version_policy { all {} }" in config
    assert re.search(r'key: "weights_sha256_2" value \{ string_value: "[0-9a-f]{64}"', config)
    assert {each.name for each in challenger.place.iterdir()} == {
        "MODEL_CARD.md", "learned.jsonl.gz", "model.py", "scoring.py", "weights.npz",
    }  # fmt: skip
    assert [each.name for each in folder.parent.iterdir()] == ["mood_fast"], "nothing is left of the work"


def test_the_card_says_what_it_learned_from(repository):
    """Who labelled how much, and what was refused."""
    card = (repository[1].place / "MODEL_CARD.md").read_text()
    assert card.startswith("# mood_fast, version 2\n")
    assert "* 120 base rows" in card
    assert re.search(r"\* \d+ labels by gpt-4o-mini", card)
    assert "answers of its own and of a second view to unlabelled texts" in card


def test_nothing_held_out_is_in_what_it_learned(tmp_path):
    """The artifact itself is asked: no id and no text of the held-out rows, though all inputs were full of them."""
    leaky = [said(900 + at, row.text, row.label) for at, row in enumerate(NEW_TEST)]
    by_id = [said(0, f"another text {at}", row.label, labelled_by="human") for at, row in enumerate(NEW_TEST)]
    by_id = [type(row)(**{**_fields(row), "id": NEW_TEST[at].id}) for at, row in enumerate(by_id)]
    challenger = made(
        tmp_path / "mood_fast",
        feedback=[*FEEDBACK, *leaky, *by_id],
        unlabelled=[*UNLABELLED, *((None, row.text) for row in OLD_TEST)],
        base=[*BASE, *(LabelledRow(f"copy-{row.id}", row.text, row.label) for row in OLD_TEST)],
    )
    learned = read_held_out(challenger.place / LEARNED)
    held = (*OLD_TEST, *NEW_TEST)
    assert not any(learned.holds_id(row.id) or learned.holds_text(row.text) for row in held)
    assert all(learned.holds_text(row.text) for row in BASE)
    assert challenger.version == "1"


def _fields(row):
    return {name: getattr(row, name) for name in type(row).__dataclass_fields__}


def test_the_same_rows_make_the_same_version_and_an_interrupted_run_goes_on(tmp_path, repository, monkeypatch):
    """Killed before stage two it keeps stage one, and ends with the same weights to the byte."""
    folder = tmp_path / "mood_fast"
    shutil.copytree(repository[0], folder)
    shutil.rmtree(folder / "2")
    calls = []

    def killed(*given, **named):
        calls.append(given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stream_app.training.latent.placed", killed)
        with pytest.raises(KeyboardInterrupt):
            made(folder)
    assert not (folder / "2").exists()
    again = made(folder)
    assert calls
    assert again.went_on
    assert not repository[1].went_on
    assert (again.place / "weights.npz").read_bytes() == (repository[1].place / "weights.npz").read_bytes()
    assert (folder / "config.pbtxt").read_text().count("weights_sha256_2") == 1


def test_rows_that_cannot_teach_are_refused_before_anything_is_written(tmp_path, repository):
    """No lesson, another model's labels, too few base rows: one line each."""
    folder = tmp_path / "mood_fast"
    with pytest.raises(SettingsError, match="nothing may teach"):
        made(folder, feedback=[said(1, "x", why="audit")], unlabelled=[])
    with pytest.raises(SettingsError, match=r"label 'negative' has 2 row\(s\)"):
        made(folder, base=BASE[:4])
    renamed = [LabelledRow(row.id, row.text, row.label[:3]) for row in BASE]
    with pytest.raises(SettingsError, match="answers negative, positive, the base rows neg, pos"):
        made(repository[0], base=renamed, feedback=[said(1, "new words", "neg")])
    assert not folder.exists()


def test_guessed_labels_are_never_held_out_and_weigh_what_they_are_told_to():
    """A guess of no weight changes nothing but the n-grams; one of full weight counts as a row."""
    rows = [*BASE, *(LabelledRow(f"g-{at}", row.text, row.label) for at, row in enumerate(NEW_TEST))]
    gold, groups = gold_of(rows, ("negative", "positive")), [row.id for row in rows]
    given = np.arange(len(rows)) < len(BASE)

    def accuracy(weight):
        trust = Trust(np.where(given, 1.0, weight), given)
        domains = np.zeros(len(rows), np.int64)
        text = [row.text for row in rows]
        model = fit(text, gold, groups, domains, SHORT_TEXTS, NOT_KEPT, lambda *_: None, (), trust)
        assert not model.cross_fitted[~given].any()
        assert model.cross_fitted[given].sum(axis=1) == pytest.approx(1)
        fresh = [text for text, _ in texts(NEW, 60, 9)]
        labels = np.array([label == "positive" for _, label in texts(NEW, 60, 9)])
        return float(np.mean(model.answers(fresh).argmax(axis=1) == labels))

    assert accuracy(1e-9) < 0.75
    assert accuracy(1.0) > 0.9


def test_what_stands_aside_is_not_seen_where_its_lesson_is_held_out():
    """A reason says the label: a model that read it is no witness of what the text alone tells."""
    labels = ["negative", "positive"] * 60
    random.Random(1).shuffle(labels)
    rows = [LabelledRow(f"{at}", f"z{at}", label) for at, label in enumerate(labels)]
    twice = [*rows, *rows]  # the second time aside: nothing but its own copy tells a text's label
    gold, groups = gold_of(twice, ("negative", "positive")), [row.id for row in twice]
    trust = Trust(np.ones(len(twice)), np.arange(len(twice)) < len(rows))
    recipe, domains = replace(SHORT_TEXTS, rows_min=1), np.zeros(len(twice), np.int64)
    model = fit([row.text for row in twice], gold, groups, domains, recipe, NOT_KEPT, lambda *_: None, (), trust)
    right = model.cross_fitted[trust.given].argmax(axis=1) == gold.places[trust.given]
    assert right.mean() < 0.65


WORDS = ["".join(random.Random(number).choices("abcdefghijklmnoprstuvwyz", k=6)) for number in range(120)]
MANY = {"negative": WORDS[:60], "positive": WORDS[60:]}
"""So many words of each label that few labelled texts hold only some of them."""


@pytest.mark.parametrize("telling", [True, False])
def test_reasons_are_learned_where_they_make_base_rows_likelier(tmp_path, telling):
    """Reasons that name words of the labels teach; the same reasons with other labels are left out."""
    chosen, feedback = random.Random(1), []
    for at, (text, label) in enumerate(texts(MANY, 60, 11)):
        named = label if telling else chosen.choice(["negative", "positive"])
        feedback.append(
            replace(said(at, text, label), reason=f"it says {' and '.join(chosen.sample(MANY[named], 8))}")
        )
    base = [LabelledRow(f"b-{at}", text, label) for at, (text, label) in enumerate(texts(MANY, 60, 12))]
    challenger = made(tmp_path / "mood_fast", feedback=feedback, unlabelled=[], base=base)
    found = challenger.distilled
    assert (found.reasons, found.reasons_given) == ((60, 60) if telling else (0, 60))
    card = (challenger.folder / "MODEL_CARD.md").read_text()
    assert ("60 reasons of LLMs, each counting 0.5" in card) == telling
    assert ("not learned: 60 reasons" in card) != telling


def test_the_second_view_answers_what_no_label_speaks_of():
    """Texts of words that only keep company with labelled ones: the model guesses, both views together know."""
    chosen = random.Random(1)
    base = [
        LabelledRow(f"b-{label}-{at}", " ".join([chosen.choice(words[:6]), *chosen.sample(like.NOISE, 10)]), label)
        for at in range(40)
        for label, words in zip(("negative", "positive"), like.LIKE, strict=True)
    ]
    asked, truth = like.texts(900, known=False, seed=2)
    given = gate(base, [], [(None, text) for text in asked], "mood", HeldOut()).curriculum
    run = distil_module._Run(given, LONG_TEXTS, NOT_KEPT, lambda *_: None)
    first = run.fit((), distil_module._NOTHING, "one", "stage one")
    strange = like.strange(asked)
    alone = first.answers(asked).argmax(axis=1) == truth
    both = run.guesses((), first).labels == truth
    assert alone[strange].mean() < 0.7
    assert both[strange].mean() > 0.8
    assert both.mean() > max(0.97, alone.mean())


def test_certainty_is_nothing_for_a_blind_guess_and_one_for_a_sure_answer():
    """Whatever the number of labels."""
    for labels in (2, 3, 15):
        assert certainty(np.full((1, labels), 1 / labels))[0] == pytest.approx(0)
        assert certainty(np.eye(labels)[:1])[0] == 1


def test_the_command(tmp_path):
    """Files in, a version out, what was refused and why, and the next commands at the end."""
    dump = {
        "base.jsonl": [{"id": row.id, "text": row.text, "label": row.label} for row in BASE],
        "feedback.jsonl": [row_json(row) for row in (*FEEDBACK, said(900, NEW_TEST[0].text))],
        "texts.jsonl": [{"id": own, "text": text} for own, text in UNLABELLED],
    }
    for name, rows in dump.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "p.held-out.jsonl").write_bytes(dump_held_out(HELD))
    (tmp_path / "p.json").write_text(json.dumps({"tasks": {}}))
    options = ("--task", "mood", "--base", "base.jsonl", "--unlabelled", "texts.jsonl", "--out", "models")
    refused = shunt("distill", "feedback.jsonl", *options, cwd=tmp_path)
    assert refused.status == 2
    assert "--held-out" in refused.err
    done = shunt("distill", "feedback.jsonl", *options, "--held-out", "p.json", cwd=tmp_path)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "models/mood_fast/1: version 1 of mood_fast, distilled from"
    assert "  refused, feedback rows held out, by text: 1" in lines
    assert lines[-2] == "Next: shunt calibrate FILE --task mood --challenger models/mood_fast/1 --out challenger.json"
    learned = gzip.decompress((tmp_path / "models/mood_fast/1" / LEARNED).read_bytes()).decode()
    assert not any(row.id in learned for row in NEW_TEST)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "x"}\n')
    told = shunt("distill", "broken.jsonl", *options, "--held-out", "p.json", cwd=tmp_path)
    assert (told.status, told.err.count("\n")) == (2, 1)
    assert "broken.jsonl:1 is no feedback row" in told.err


def row_json(row):
    """The row as it stands on the feedback topic."""
    return json.loads(encode_feedback(row)[1])


def test_what_taught_is_all_that_taught():
    """The list beside a version holds base rows, believed lessons and unlabelled texts."""
    gated = gate(BASE[:2], FEEDBACK[:2], UNLABELLED[:2], "mood", HeldOut())
    distilled = challenger_module.Distilled(None, tuple(gated.curriculum.lessons[:1]), 1, 0, 0, 2, 0.5)
    held = taught(gated.curriculum, distilled)
    assert len(held.pairs) == 5
    assert held.holds_text(UNLABELLED[1][1])
    assert not held.holds_text(FEEDBACK[1].text)

"""MiniLM: what it is shown of a text in training and in serving, and a whole training where torch is installed."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli import shunt
from stream_app.errors import SettingsError, StartError
from stream_app.training.convert import convert
from stream_app.training.evaluation import load_scorer
from stream_app.training.folder import labels_in, weights_sha256_in
from stream_app.training.making import TrainingSet
from stream_app.training.minilm import (
    HEAD_TOKENS,
    TAIL_TOKENS,
    Recipe,
    batches_by_length,
    head_and_tail,
    network,
    padded,
    pooled_logits,
)
from stream_app.training.minilm_start import go_on_from
from stream_app.training.rows import LabelledRow
from stream_app.training.templates.minilm.scoring import GPU_BATCH_TOKENS, Scorer, weights_sha256
from stream_app.training.train import ModelForm, train_rows

SHIPPED = Path(__file__).parent.parent.parent / "triton_models" / "sentiment_minilm"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(SHIPPED / "1", weights_sha256(SHIPPED / "1"))


@given(st.lists(st.integers(0, 30_000), max_size=1200))
def test_training_sees_both_ends_of_a_text(tokens: list[int]) -> None:
    """A text that fits is learned whole, a longer one by its first and last tokens."""
    seen = head_and_tail(tokens)
    if len(tokens) <= HEAD_TOKENS + TAIL_TOKENS:
        assert seen == tokens
    else:
        assert seen == tokens[:HEAD_TOKENS] + tokens[-TAIL_TOKENS:]


@given(st.lists(st.integers(1, 382), min_size=1, max_size=300), st.integers(1, 16), st.integers(0, 99))
def test_batches_hold_every_row_once(lengths: list[int], batch_rows: int, seed: int) -> None:
    """An epoch shows every row once, in batches of the size asked for, the same for the same seed."""
    batches = batches_by_length(lengths, batch_rows, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= batch_rows
    assert batches == batches_by_length(lengths, batch_rows, seed)


@pytest.mark.parametrize("count", [0, 1, 380, 381, 600, 1000, 5000])
def test_windows_cover_the_text(scorer: Scorer, count: int) -> None:
    """Up to the limit of windows every token is read, in its order; none is longer than the encoder takes."""
    ids = list(range(count))
    windows = scorer.windows(ids)
    assert max(map(len, windows)) <= 380
    assert len(windows) <= 9
    if count <= 2000:
        assert sorted(token for window in windows for token in window) == ids
    if count > 380:
        assert windows[0] == ids[:126] + ids[-254:]


def test_long_text_is_the_mean_of_its_windows(scorer: Scorer) -> None:
    """The log-odds of a long text are its windows', weighed by their tokens."""
    start, middle, end = "A fine story. " * 60, "It drags and drags. " * 80, "I was bored to tears. " * 60
    text = start + middle + end
    ids = scorer._tokenizer.encode(text, add_special_tokens=False).ids
    windows = scorer.windows(ids)
    weights = np.array([len(window) + 1 for window in windows])
    expected = weights @ scorer._run(windows) / weights.sum()
    assert len(windows) > 2
    assert scorer.log_odds([text.encode()])[0] == pytest.approx(expected, abs=1e-6)


def test_an_answer_does_not_depend_on_its_company(scorer: Scorer) -> None:
    """int8 activations are scaled per run, so each window runs alone: company and padding change nothing."""
    texts = [f"{said} {'word ' * length}".encode() for said in ("I love it.", "I hate it.") for length in (0, 30, 90)]
    together, _ = scorer.answer(texts)
    alone = np.concatenate([scorer.answer([text])[0] for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)


def test_missing_training_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the train extra, training a MiniLM says what to install and leaves nothing behind."""
    monkeypatch.setattr("stream_app.training.minilm.ENCODER_PACKAGE", "no_such_encoder")
    with pytest.raises(StartError) as refused:
        train_rows(rows_of(48), task="mood", folder=tmp_path / "mood_minilm", model="minilm", validation={})
    assert "shunt-stream[train]" in refused.value.one_line()
    assert list(tmp_path.iterdir()) == []


def rows_of(count: int) -> TrainingSet:
    chosen = random.Random(5)
    words = {"calm": ["quiet", "gentle", "still", "soft"], "wild": ["loud", "furious", "frantic", "raging"]}
    rows = [
        LabelledRow(str(at), f"A {chosen.choice(words[label])} and {chosen.choice(words[label])} afternoon", label)
        for at, label in ((at, ("calm", "wild")[at % 2]) for at in range(count))
    ]
    return TrainingSet(rows, ["written here"])


def test_going_on_begins_with_what_is_served() -> None:
    """The network has the served model's answers, but for rounding, and of what was never trained no rounding."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    encoder, head = network(torch, 2, Recipe())
    packaged = {name: weights.clone() for name, weights in encoder.state_dict().items()}
    go_on_from(SHIPPED / "1", torch, encoder, head)
    state = encoder.state_dict()
    same = {name for name, weights in state.items() if torch.equal(weights, packaged[name])}
    assert all(name in same for name in state if "embeddings" in name or name.startswith("encoder.layer.0."))
    assert not any(name in same for name in state if name.startswith("encoder.layer.5."))
    texts = ["A joy from start to end.", "Dull, and far too long.", "Not bad at all, I must say."]
    scorer = Scorer(SHIPPED / "1", weights_sha256(SHIPPED / "1"))
    tokens = [scorer._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    with torch.no_grad():
        logits = pooled_logits(encoder.eval(), head, *padded(torch, tokens)).numpy()
    served = scorer.log_odds([text.encode() for text in texts])
    assert logits[:, 1] - logits[:, 0] == pytest.approx(served[:, 1] - served[:, 0], abs=0.7)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model in half precision."""
    pytest.importorskip("torch", reason="needs the train extra")
    out = tmp_path_factory.mktemp("gpu") / "sentiment_gpu"
    done = CliRunner().invoke(shunt, ["convert", str(SHIPPED), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f'tiers = ["{out.name}"]' in done.output
    return out


def test_half_precision_answers_as_int8_does_but_for_rounding(scorer: Scorer, halved: Path) -> None:
    """All but the logits are halves; long texts too; and a batch with padding, as a GPU runs it, is the same."""
    onnx = pytest.importorskip("onnx", reason="needs the train extra")
    graph = onnx.load(halved / "1" / "model.onnx").graph
    kinds = Counter(one.data_type for one in graph.initializer if one.data_type != onnx.TensorProto.INT64)
    assert kinds[onnx.TensorProto.FLOAT16] > 90
    assert kinds[onnx.TensorProto.INT8] == 0
    half = Scorer(halved / "1", weights_sha256_in(halved))
    texts = [b"A joy from start to end.", b"Dull, and far too long.", b"well, " * 700, b"Not bad at all, I must say."]
    alone = half.log_odds(texts)
    assert np.diff(alone) == pytest.approx(np.diff(scorer.log_odds(texts)), abs=0.4)
    half._batch_tokens = GPU_BATCH_TOKENS
    assert half.log_odds(texts) == pytest.approx(alone, abs=0.02)
    assert labels_in(halved) == labels_in(SHIPPED)
    assert (halved / "MODEL_CARD.md").read_text().startswith("> The weights of sentiment_minilm, version 1 (sha-256 ")


def test_half_precision_can_be_gone_on_from(halved: Path) -> None:
    """Weights come back within half precision's step, and what was never trained exactly."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    found, packaged = [], network(torch, 2, Recipe())[0].state_dict()
    for version in (SHIPPED / "1", halved / "1"):
        encoder, head = network(torch, 2, Recipe())
        go_on_from(version, torch, encoder, head)
        found.append(encoder.state_dict())
    assert all(torch.allclose(found[1][name], weights, rtol=1e-3, atol=1e-6) for name, weights in found[0].items())
    frozen = [name for name in packaged if name.startswith(("embeddings.", "encoder.layer.0."))]
    assert all(torch.equal(found[1][name], packaged[name]) for name in frozen)


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    """A fast model, no model, a place that is taken: one line each, and nothing is written."""
    pytest.importorskip("torch", reason="needs the train extra")
    taken = tmp_path / "taken"
    taken.mkdir()
    for folder, out, why in (
        (SHIPPED.parent / "sentiment_fast", tmp_path / "x", "no minilm"),
        (tmp_path, tmp_path / "x", "no model folder"),
        (SHIPPED, taken, "exists"),
    ):
        with pytest.raises(SettingsError, match=why):
            convert(folder, out, "fp16", lambda *_: None)
    with pytest.raises(SettingsError, match="weights are int8"):
        train_rows(rows_of(48), task="mood", folder=tmp_path / "m", validation={}, precision="fp16")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("start", "model", "why"),
    [
        (SHIPPED, "minilm", "answers negative, positive"),
        (SHIPPED.parent / "nothing", "minilm", "no model folder"),
        (SHIPPED, "fast", "learned anew"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused(tmp_path: Path, start: Path, model: ModelForm, why: str) -> None:
    """Before anything is trained: other labels, no model, and a form that has nothing to go on from."""
    pytest.importorskip("torch", reason="needs the train extra")
    with pytest.raises(SettingsError) as refused:
        train_rows(rows_of(48), task="mood", folder=tmp_path / "m", model=model, validation={}, start=start)
    assert why in refused.value.one_line()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(600)
def test_a_minilm_is_trained_and_served(tmp_path: Path) -> None:
    """From rows to an int8 model folder that answers what it was taught."""
    pytest.importorskip("torch", reason="needs the train extra")
    made = train_rows(rows_of(160), task="mood", folder=tmp_path / "mood_minilm", model="minilm", validation={})
    probabilities, known = load_scorer(made.folder).answer([b"A gentle and quiet evening", b"A frantic, loud night"])
    assert probabilities.argmax(1).tolist() == [0, 1]
    assert known.tolist() == [1.0, 1.0]
    again = {"task": "mood", "model": "minilm", "validation": {}, "start": made.folder, "precision": "fp16"}
    further = train_rows(rows_of(48), folder=tmp_path / "mood_again", **again)
    assert "fp16 ONNX" in (further.folder / "MODEL_CARD.md").read_text()
    assert made.weights_sha256 in (further.folder / "MODEL_CARD.md").read_text()
    probabilities, _ = load_scorer(further.folder).answer([b"A gentle and quiet evening", b"A frantic, loud night"])
    assert probabilities.argmax(1).tolist() == [0, 1]
    with pytest.raises(SettingsError, match="learning curve"):
        train_rows(rows_of(48), folder=tmp_path / "curved", curve=True, **again)

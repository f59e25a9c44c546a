"""The shipped models, in their folders and inside Triton: intact, fluent in English only, unshaken by any bytes."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from stream_app.classify.triton import TritonModels
from stream_app.local.stack import Stack
from stream_app.settings import Llm
from stream_app.training.evaluation import TextScorer, answer_rows, load_scorer, targets_of
from stream_app.training.folder import kind_in, labels_in, template, weights_sha256_in
from stream_app.training.gold import TaskKind
from stream_app.training.pruning import department_pruning
from stream_app.training.rows import LabelledRow
from stream_app.training.shipped import validation_sets

MODELS = Path(__file__).parent.parent.parent / "triton_models"
FAST = ("sentiment_fast", "toxicity_fast", "department_fast")
NAMES = (*FAST, "sentiment_minilm")
WEIGHTS_MB_MAX = 40

FOREIGN = [
    "Muy contento con la compra, llegó antes de lo esperado",
    "No lo recomiendo, se rompió a la semana",
    "malisimo",
    "Très déçue, la taille ne correspond pas du tout",
    "Parfait pour mon bureau, rien à dire",
    "bof",
    "Leider nach zwei Tagen kaputt, Geld zurück verlangt",
    "Alles bestens, schnelle Lieferung",
    "Das war die beste Entscheidung",
    "Arrivato rotto, assistenza inesistente",
    "Bellissimo e comodo, ottimo acquisto",
    "Chegou com defeito e ninguém responde",
    "Adorei, vale cada centavo",
    "Helaas kapot aangekomen, nooit meer",
    "Prima stofzuiger, doet wat hij moet doen",
    "Szkoda pieniędzy, po tygodniu przestało działać",
    "swietny sprzet, polecam kazdemu",
    "Paramı çöpe attım resmen, berbat",
    "cok memnun kaldim tesekkurler",
    "Helt värdelös, gick sönder direkt",
    "Virker fint, men leveringen tog for lang tid",
    "Todella huono laatu, en suosittele",
    "Nagyon elégedett vagyok vele, szép darab",
    "Skvělá kvalita, jsem moc spokojená",
    "Foarte mulțumit, merită banii",
    "paisa barbaad, do din mein kharab ho gaya",
    "ekdum mast hai bhai, lelo",
    "Barang rusak, penjual tidak mau tanggung jawab",
    "Sira agad, sayang ang pera ko",
    "Bidhaa mbovu kabisa, usinunue",
    "Hang kem chat luong, khong nen mua",
    "Отличная вещь, всем советую",
    "Жахлива якість, гроші на вітер",
    "Απαράδεκτο προϊόν, χάλασε αμέσως",
    "منتج رائع وسريع التوصيل",
    "מוצר גרוע, לא לקנות",
    "बहुत खराब क्वालिटी है",
    "สินค้าดีมาก ส่งเร็ว",
    "质量太差了，不推荐",
    "とても良い商品でした",
    "배송도 빠르고 품질도 좋아요",
    "👍👍👍",
    "",
    "12345",
]
ENGLISH = [
    "Great product, would buy it again!",
    "Broke after two days. Total waste of money.",
    "Not bad, not great either.",
    "It's fine I guess, but the lid doesn’t close properly",
    "Absolutely love this jacket, fits perfectly and looks fantastic",
    "worst purchase ever",
    "My kids fight over who gets to use it, so I bought a second one.",
    "I wanted to like this film, but the ending ruined it for me.",
    "Arrived on time, works as described.",
    "The soup was cold and the waiter never came back.",
    "Battery lasts maybe an hour. Returned.",
    "10/10 would recommend",
    "you are a complete idiot and so is everyone who sells this junk",
    "DO NOT BUY!!! The seller is a liar",
]
ODD = [b"", b"  \n", b"\x00\x00\x00", b"\xff\xfe\x80", "👍".encode(), b"word " * 200_000, b"x" * 1_000_000]


@pytest.fixture(scope="module", params=FAST)
def fast(request: pytest.FixtureRequest) -> TextScorer:
    return load_scorer(MODELS / request.param)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_folder_is_intact(name: str) -> None:
    """Weights match the config, and the code is the template's, so that training again gives the same folder."""
    kind = "minilm" if name.endswith("minilm") else "fast"
    load_scorer(MODELS / name)
    assert (MODELS / name / "1" / "scoring.py").read_text() == template(kind, "scoring.py")
    assert (MODELS / name / "1" / "model.py").read_text() == template("triton_model.py")
    assert len(labels_in(MODELS / name)) == (15 if name == "department_fast" else 2)
    assert kind_in(MODELS / name) is TaskKind.ONE_OF
    assert "## Limits" in (MODELS / name / "MODEL_CARD.md").read_text()


def test_shipped_models_stay_small() -> None:
    """All that is shipped fits in 40 MB: a clone must not take longer than the demo."""
    files = [path for path in MODELS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < WEIGHTS_MB_MAX * 1_000_000


def test_what_one_model_compiled_no_other_compiles_again(tmp_path: Path) -> None:
    """A second model folder, such as a challenger's, finds all in the cache that the first one filled."""
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    code = (
        "import pathlib, sys; place, sha256 = sys.argv[1:]; sys.path.insert(0, place); import scoring; "
        "scoring.Scorer(pathlib.Path(place), sha256)"
    )
    kept = []
    for name in ("one", "another"):
        shutil.copytree(MODELS / "toxicity_fast", tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        place = tmp_path / name / "1"
        subprocess.run([sys.executable, "-c", code, str(place), weights_sha256_in(tmp_path / name)], check=True)
        assert not list(place.rglob("*.nb?"))
        kept.append({path: path.stat().st_mtime_ns for path in cache.rglob("scoring.*.nb?")})
    assert len(kept[0]) > 20
    assert kept[0] == kept[1]


@pytest.mark.parametrize("text", FOREIGN)
def test_other_languages_are_not_known(fast: TextScorer, text: str) -> None:
    """Another language, in any script and however short, or no words at all: at most half of it is known."""
    assert fast.answer([text.encode()])[1][0] <= 0.5


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_known(fast: TextScorer, text: str) -> None:
    """Plain English, short and sloppy included, is known almost to the word."""
    assert fast.answer([text.encode()])[1][0] >= 0.85


def test_demo_reviews_in_other_languages_are_not_known(fast: TextScorer) -> None:
    """No text of the demo in another language could pass for English by its known share."""
    lines = (MODELS.parent / "stream_app" / "local" / "reviews.jsonl").read_text().splitlines()
    reviews = [json.loads(line) for line in lines]
    known = fast.answer([review["text"].encode() for review in reviews])[1]
    english = np.array([review["language"] == "en" for review in reviews])
    assert known[~english].max() <= 0.5
    assert np.mean(known[english] >= 0.7) > 0.97


def load(stack: Stack, name: str) -> None:
    asked = urllib.request.Request(f"http://{stack.triton_http}/v2/repository/models/{name}/load", method="POST")
    with urllib.request.urlopen(asked, timeout=120) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("name", NAMES)
async def test_triton_answers_as_the_folder_does(stack: Stack, name: str) -> None:
    """Through gRPC the same labels, probabilities and known shares come back as from the code itself."""
    load(stack, name)
    async with TritonModels.connect(stack.triton_grpc, timeout_s=60) as models:
        model = await models.describe(name)
        assert model.labels == labels_in(MODELS / name)
        assert model.weights_sha256 == weights_sha256_in(MODELS / name)
        served = await models.infer(model, ENGLISH)
    probabilities, known = load_scorer(MODELS / name).answer([text.encode() for text in ENGLISH])
    assert served.probabilities == pytest.approx(probabilities, abs=1e-5)
    assert served.known_share == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
async def test_no_bytes_upset_a_served_model(stack: Stack, name: str) -> None:
    """Empty, blank, NUL, invalid UTF-8 and a megabyte: an answer each, and the model goes on."""
    load(stack, name)
    async with TritonModels.connect(stack.triton_grpc, timeout_s=120) as models:
        model = await models.describe(name)
        served = await models.infer(model, ODD)
        after = await models.infer(model, ENGLISH)
    assert np.isfinite(served.probabilities).all()
    assert served.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert after.probabilities.shape == (len(ENGLISH), len(model.labels))


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("sentiment_fast", "Absolutely wonderful, I love every minute of it.", "positive"),
        ("sentiment_fast", "Awful. A complete waste of time and money.", "negative"),
        ("sentiment_minilm", "Absolutely wonderful, I love every minute of it.", "positive"),
        ("sentiment_minilm", "Not a single complaint: it does all I had hoped for.", "positive"),
        ("sentiment_minilm", "Awful. A complete waste of time and money.", "negative"),
        ("toxicity_fast", "You stupid moron, shut up", "toxic"),
        ("toxicity_fast", "The parcel arrived on Tuesday, thank you", "not_toxic"),
        ("department_fast", "The novel's last chapter moved me to tears, and the author writes beautifully", "books"),
        ("department_fast", "I don't like the lens of this camera, and photos come out blurred", "camera_photo"),
        ("department_fast", "My son loves the puzzle, all his toys lie forgotten", "toys_games"),
    ],
)
def test_plain_cases(name: str, text: str, label: str) -> None:
    """What nobody could get wrong, the models get right."""
    probabilities, _ = load_scorer(MODELS / name).answer([text.encode()])
    assert labels_in(MODELS / name)[int(probabilities.argmax())] == label


def data_folder() -> Path:
    if "SHUNT_DATA" not in os.environ:
        pytest.skip("needs the evaluation data: set SHUNT_DATA to its folder")
    return Path(os.environ["SHUNT_DATA"])


def some_rows(task: str, title: str, rows_max: int) -> list[LabelledRow]:
    return list(validation_sets(task, data_folder())[title])[:rows_max]


def test_sentiment_fast_holds_its_figure() -> None:
    """On half B, on films it was never chosen or trained on, at least 91 % right."""
    rows = some_rows("sentiment", "films, half B", 10_000)
    assert answer_rows(MODELS / "sentiment_fast", rows).accuracy(rows) >= 0.91


def test_department_fast_holds_its_figure() -> None:
    """Of fifteen departments the right one for 77 % of the rows, and among the first six for 98.5 %."""
    rows = some_rows("department", "validation", 10_000)
    answers = answer_rows(MODELS / "department_fast", rows)
    truth = targets_of(rows, answers.labels)
    assert answers.accuracy(rows) >= 0.77
    ranked = np.argsort(-answers.probabilities, axis=1)[:, :6]
    assert np.mean((ranked == truth[:, None]).any(axis=1)) >= 0.985


def test_pruned_departments_keep_the_true_one() -> None:
    """At the default `prune_eps` 99 % of escalated rows keep their true label, with under half of the characters."""
    found = department_pruning(data_folder(), MODELS)
    for share in ("20%", "40%", "60%", "100%"):
        at = found[f"{share} escalated, eps {Llm().prune_eps:g}"]
        assert at.kept >= 0.99
        assert at.characters_left <= 0.5


def test_toxicity_fast_holds_its_figure() -> None:
    """On rows it was never trained on, at least 94 % right: above TF-IDF with logistic regression."""
    rows = some_rows("toxicity", "toxicity_llm_replay", 10_000)
    assert answer_rows(MODELS / "toxicity_fast", rows).accuracy(rows) >= 0.94

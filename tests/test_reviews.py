"""The demo's input is what it claims to be, and its gold labels stay at home."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from importlib import resources

import pytest

from stream_app.errors import SettingsError
from stream_app.local.reviews import (
    broken_records,
    demo_samples,
    gold_tasks,
    samples_of_file,
    shipped_reviews,
)

ROWS = [
    json.loads(line)
    for line in resources.files("stream_app.local").joinpath("reviews.jsonl").read_text("utf-8").splitlines()
]


def test_enough_reviews_of_enough_kinds():
    """Hundreds of reviews, hundreds of products, long and short ones, languages and scripts beside English."""
    assert len(ROWS) >= 420
    assert len({row["product"] for row in ROWS}) > 200
    assert sum(row["language"] != "en" for row in ROWS) >= 35
    assert len({row["language"] for row in ROWS}) >= 18
    assert sum(len(row["text"]) < 40 for row in ROWS) >= 30
    assert sum(len(row["text"].split()) >= 150 for row in ROWS) >= 10


def test_every_review_is_complete_and_has_its_own_id():
    """Ids are unique, stars 1 to 5, gold labels from the tasks' label sets; only a few texts come twice."""
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row) == {"id", "product", "stars", "text", "language", "gold"}
        assert row["stars"] in range(1, 6)
        assert row["gold"]["sentiment"] in {"negative", "positive"}
        assert row["gold"]["toxicity"] in {"not_toxic", "toxic"}
    repeated = [text for text, times in Counter(row["text"] for row in ROWS).items() if times > 1]
    assert 2 <= len(repeated) <= 5


def test_both_sentiments_and_some_abuse():
    """Neither sentiment is rare, and abuse occurs with praise too."""
    sentiments = Counter(row["gold"]["sentiment"] for row in ROWS)
    assert min(sentiments.values()) > len(ROWS) // 3
    toxic = [row for row in ROWS if row["gold"]["toxicity"] == "toxic"]
    assert len(toxic) >= 20
    assert {row["gold"]["sentiment"] for row in toxic} == {"negative", "positive"}


def test_gold_labels_are_not_sent():
    """No sent record holds a gold label; the sample beside it does."""
    for sample in shipped_reviews():
        assert "gold" not in json.loads(sample.value)
        assert dict(sample.gold).keys() == {"sentiment", "toxicity"}


def test_broken_records_are_of_several_kinds_with_one_tombstone():
    """At least eight broken records, each told apart by its story, and exactly one null value."""
    broken = broken_records()
    assert sum(sample.value is None for sample in broken) == 1
    assert len({sample.story for sample in broken}) == len(broken) >= 9
    assert any((sample.value or b"").startswith(b"\x00") for sample in broken)
    assert any(len(sample.value or b"") == 10_000 for sample in broken)


@pytest.mark.parametrize("records", [0, 1, 18, 60, 300, 509, 1500])
def test_the_stream_has_as_many_records_as_asked_for(records):
    """Tombstones come on top; ids stay unique however often the reviews are repeated."""
    samples = demo_samples(records)
    assert sum(sample.value is not None for sample in samples) == records
    ids = [sample.id for sample in samples if sample.id is not None]
    assert len(set(ids)) == len(ids)
    for sample in samples:
        assert sample.id is None or json.loads(sample.value)["id"] == sample.id


def test_a_short_run_shows_a_broken_record():
    """Sixty records are enough to see the dead-letter lane."""
    assert sum(sample.story is not None for sample in demo_samples(60)) >= 2


def test_all_broken_records_are_in_the_default_run():
    """Nothing that was written is left out, and the tombstone comes after the review it deletes."""
    samples = demo_samples()
    assert len(samples) == len(shipped_reviews()) + len(broken_records())
    tombstone = next(sample for sample in samples if sample.value is None)
    assert tombstone.key == b"r-0001"


def test_a_file_of_the_users_own(tmp_path):
    """`label`, `llm` and `gold` are kept back, everything else is sent; a missing id is the line's number."""
    rows = [
        {
            "id": "a",
            "text": "Good.",
            "label": "positive",
            "llm": {"m": "positive"},
            "stars": 5,
            "prompt_chars": 400,
        },
        {"text": "Bad.", "gold": {"sentiment": "negative"}, "movie": "x"},
        {"text": "Line\u2028separator", "label": "blue"},
    ]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()))
    first, second, third = samples_of_file(path)
    assert json.loads(first.value) == {"id": "a", "text": "Good.", "stars": 5, "prompt_chars": 400}
    assert first.gold == (("sentiment", "positive"),)
    assert first.prompt_chars == 400
    assert json.loads(second.value) == {"id": "line-2", "text": "Bad.", "movie": "x"}
    assert second.gold == (("sentiment", "negative"),)
    assert third.gold == ()
    assert gold_tasks([first, second, third]) == {"sentiment"}
    assert len(samples_of_file(path, 2)) == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[1]\n", "has no text"), ('{"id": "x"}\n', "has no text"), ("{nope\n", "is not JSON")],
)
def test_a_file_that_does_not_fit_says_where(tmp_path, content, complaint):
    """The complaint is one line with the file and the line."""
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(SettingsError, match=f"line 1, {complaint}"):
        samples_of_file(path)


def test_a_file_that_is_not_there(tmp_path):
    """A missing or damaged file is a settings error."""
    with pytest.raises(SettingsError, match="cannot read"):
        samples_of_file(tmp_path / "none.jsonl")
    damaged = tmp_path / "rows.jsonl.gz"
    damaged.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(SettingsError, match="cannot read"):
        samples_of_file(damaged)

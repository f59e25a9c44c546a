"""`shunt sample`: who is drawn, and what a person gets to fill in."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.drawn import Draw, Drawn
from stream_app.events import Event, Source
from stream_app.training.held_out import text_sha256
from tests.kafka.reading import produce

from .test_on_kafka import pipeline  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .test_on_kafka import Pipeline


def drawn(texts: Sequence[str], count: int, seed: int, doubts: dict[str, float] | None = None) -> list[str]:
    """What is drawn of these texts, offered in this order."""
    draw = Draw(count, seed)
    for number, text in enumerate(texts):
        event = Event(str(number), text, b"{}", Source("t", 0, number, 0), None)
        draw.offer(text_sha256(text), Drawn(event), (doubts or {}).get(text, 0.0))
    return [one.event.text for one in draw.drawn()]


@given(texts=st.lists(st.sampled_from("abcdefghij"), max_size=40), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_text_is_drawn_once_whatever_the_order(texts: list[str], count: int, seed: int) -> None:
    """As many as there are, no copies; read in another order, the same ones come out."""
    found = drawn(texts, count, seed)
    assert len(found) == len(set(found)) == min(count, len(set(texts)))
    other = list(texts)
    random.Random(seed).shuffle(other)
    assert drawn(other, count, seed) == found


def test_every_distinct_text_has_the_same_chance() -> None:
    """Over 2,000 seeds each of ten texts is drawn three times in ten, one that stands there fifty times too."""
    texts = [*"abcdefghi", *["j"] * 50]
    found = Counter(text for seed in range(2_000) for text in drawn(texts, 3, seed))
    assert sum(found.values()) == 6_000
    # 600 expected each, standard deviation 20.5: five of them.
    assert all(abs(count - 600) < 103 for count in found.values()), found


@given(st.dictionaries(st.text("xyz", min_size=1), st.floats(0, 1), min_size=1), st.integers(1, 8))
def test_the_least_sure_come_first(doubts: dict[str, float], count: int) -> None:
    """None that is left out is less sure than one that is drawn, and they stand in the order of doubt."""
    found = [doubts[text] for text in drawn(list(doubts), count, 7, doubts)]
    assert found == sorted(doubts.values(), reverse=True)[:count]


@pytest.fixture
def made(pipeline: Pipeline, stack) -> Pipeline:  # noqa: F811 - the fixture
    """A topic with 40 events, each text twice (in other letters), and what is no event."""
    pipeline.write(triton=stack.triton_grpc, llm_url="http://127.0.0.1:9/v1", tiers='["scripted"]')
    assert pipeline.shunt("topics", "create", "--partitions", "2").status == 0
    values: list[bytes | None] = [b"no event", None]
    for number in range(20):
        text = f"p={0.5 + number / 50:.2f} order {number}"
        values += [
            json.dumps({"id": f"r-{n}-{number}", "text": said}).encode() for n, said in ((0, text), (1, text.upper()))
        ]
    produce(pipeline.kafka.bootstrap_servers, pipeline.topic, values, partitions=2)
    return pipeline


def test_a_uniform_draw_has_empty_labels_and_never_what_is_known(made: Pipeline) -> None:
    """Each text once, with its source; the same seed draws the same; what a file has is not drawn again."""
    rows = made.json_lines("sample", "--count", "8")
    assert len({row["text"].casefold() for row in rows}) == 8
    assert all(row["labels"] == {"sentiment": None} for row in rows)
    assert all("small" not in row for row in rows)
    assert {row["source"]["topic"] for row in rows} == {made.topic}
    assert made.json_lines("sample", "--count", "8") == rows
    assert made.json_lines("sample", "--count", "8", "--seed", "8") != rows
    (made.folder / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = made.json_lines("sample", "--not-in", "known.jsonl")
    assert len(others) == 12
    assert not {row["text"].casefold() for row in others} & {row["text"].casefold() for row in rows}


def test_for_training_the_least_sure_come_first(made: Pipeline) -> None:
    """Scored by the small models on Triton, which say what they think."""
    rows = made.json_lines("sample", "--for", "training", "--count", "5")
    sure = [row["small"]["sentiment"]["confidence"] for row in rows]
    assert sure == sorted(sure)
    assert sure[-1] < 0.61
    assert rows[0]["small"]["sentiment"]["model"].startswith("scripted:")
    ran = made.shunt("sample", "--task", "mood")
    assert ran.status == 2
    assert "there is no task mood" in ran.err

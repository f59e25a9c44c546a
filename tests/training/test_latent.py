"""The second view: what unlabelled texts tell of words that no labelled one has."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stream_app.training import latent
from stream_app.training.corpus import Characters

WORDS = ["".join(random.Random(number).choices("abcdefghijklmnoprstuvwyz", k=7)) for number in range(124)]
LIKE = WORDS[:12], WORDS[12:24]
"""Words of one kind stand together; labelled texts have the first half of each alone."""
NOISE = WORDS[24:]


def texts(count: int, known: bool, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts with three words of their label's kind, and the labels."""
    chosen = random.Random(seed)
    labels = np.array([at % 2 for at in range(count)])
    made = [
        " ".join([*chosen.sample(LIKE[label][: 6 if known else 12], 3), *chosen.sample(NOISE, 4)])
        for label in labels.tolist()
    ]
    return made, labels


def strange(some: list[str]) -> np.ndarray:
    """Which have none of the words that labelled texts have."""
    return np.array([not {*text.split()} & {*LIKE[0][:6], *LIKE[1][:6]} for text in some])


def corpus(some: list[str]):
    return Characters().corpus(some, with_characters=False)


def test_words_that_no_label_speaks_of_are_placed_by_their_company():
    """Of texts with none of the labelled words nearly all are answered right: others were seen beside those."""
    known, labels = texts(40, known=True, seed=1)
    unknown, truth = texts(600, known=False, seed=2)
    points = latent.placed(corpus([*known, *unknown]), seed=7)
    assert points is not None
    assert np.linalg.norm(points, axis=1) == pytest.approx(1)
    crossed, told = latent.answers(points, labels, [str(at) for at in range(40)], folds=4, seed=7)
    assert (crossed.shape, told.shape) == ((40, 2), (600, 2))
    assert strange(unknown).sum() > 20
    assert (told.argmax(axis=1) == truth)[strange(unknown)].mean() > 0.9


def test_a_seed_gives_the_same_points():
    """So that a version can be made again."""
    some = corpus(texts(200, known=False, seed=3)[0])
    assert np.array_equal(latent.placed(some, 7), latent.placed(some, 7))


def test_texts_that_share_nothing_have_no_second_view():
    """Nor have too few that do."""
    assert latent.placed(corpus([f"only{at} here{at}" for at in range(400)]), 7) is None
    sharing = texts(400, known=False, seed=4)[0]
    assert latent.placed(corpus(sharing), 7) is not None
    assert latent.placed(corpus(sharing[:40]), 7) is None


def test_a_text_without_a_shared_word_is_no_harm():
    """It has no place: its answer is that of the middle, and no warning comes of it."""
    known, labels = texts(40, known=True, seed=1)
    points = latent.placed(corpus([*known, *texts(60, known=False, seed=2)[0], "unheard"]), 7)
    assert points is not None
    assert np.isfinite(points).all()
    assert not points[-1].any()
    assert np.isfinite(latent.answers(points, labels, [str(at) for at in range(40)], 4, 7)[1]).all()

"""Which labels the small model doubts, and when its doubts are followed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_app.training.belief import doubted, self_confidence
from stream_app.training.distil import Curriculum, distil
from stream_app.training.lessons import Lesson
from stream_app.training.recipe import SHORT_TEXTS
from stream_app.training.rows import LabelledRow
from stream_app.training.work import NOT_KEPT
from tests.training.test_distill import OLD, texts

LABELS = ("negative", "positive")


def test_a_label_is_doubted_where_another_is_believed_as_much_as_where_it_was_given():
    """By the average where that other label was given, and never where the given one is believed more."""
    beliefs = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.85, 0.15], [0.3, 0.7]])
    given = np.array([0, 0, 1, 1, 1])
    sure = self_confidence(beliefs, given)
    assert sure == pytest.approx([0.8, 0.55])
    assert doubted(beliefs, given, sure).tolist() == [False, False, False, True, False]
    assert doubted(beliefs, given, np.array([0.1, 0.1])).tolist() == [False, False, False, True, False]
    assert self_confidence(beliefs, np.zeros(5, np.intp))[1] == np.inf, "a label that nobody gave is never believed"


def taught(turned_over, llm):
    """What comes of lessons in words that the base rows know, every so-manieth label turned over."""
    base = [LabelledRow(f"b-{at}", text, label) for at, (text, label) in enumerate(texts(OLD, 200, 1))]
    lessons = []
    for at, (text, label) in enumerate(texts(OLD, 120, 2)):
        wrong = turned_over and at // 2 % turned_over == 0
        said = LABELS[label == "negative"] if wrong else label
        lessons.append(Lesson(LabelledRow(f"{'wrong' if wrong else 'right'}-{at}", text, said), llm))
    return distil(Curriculum(LABELS, base, lessons, ()), SHORT_TEXTS, NOT_KEPT, lambda *_: None)


def test_many_wrong_labels_are_left_out_and_a_good_llm_is_believed():
    """Of a bad LLM most wrong labels go; a good one is believed whole; and so is a person, whatever he says."""
    bad = taught(4, "an LLM")
    believed_wrong = sum(lesson.row.id.startswith("wrong") for lesson in bad.believed)
    assert bad.doubted >= 20
    assert believed_wrong <= 10
    assert taught(60, "an LLM").doubted == 0
    assert taught(4, None).doubted == 0

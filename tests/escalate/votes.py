"""Recorded answers that anybody may read: made up, of two LLMs that err by chance, and the rule that fits them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from stream_app.events import Ask, Expecting, VoteRule, Weighing
from stream_app.routing.votes import NO_ANSWER, Seen
from stream_app.training.vote_fit import fit_expected, fit_posterior
from tests.escalate import escalated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_app.events import Escalation

FIRST, SECOND = "gpt-4o-mini", "own-70b"
LABELS = ("negative", "positive")
RIGHT = {FIRST: 0.85, SECOND: 0.8}
SILENT = {FIRST: 0.05, SECOND: 0.08}
"""How often each is right where it answers, and how often it does not."""
WORTH_MIN = 0.02


@dataclass(frozen=True)
class Row:
    """A text that the small model is unsure of; `said` is what each LLM answers, None: it refuses."""

    number: int
    text: str
    positive: float
    truth: str
    said: dict[str, str | None]


@cache
def rows(count: int, seed: int = 1) -> tuple[Row, ...]:
    """So many of them, with texts of different lengths."""
    draw = random.Random(seed)
    made: list[Row] = []
    for number, text in enumerate(escalated.texts(count)):
        positive = round(draw.uniform(0.08, 0.92), 6)
        truth = LABELS[draw.random() < positive]
        said: dict[str, str | None] = {}
        for llm in (FIRST, SECOND):
            right = draw.random() < RIGHT[llm]
            said[llm] = None if draw.random() < SILENT[llm] else LABELS[(truth == "positive") == right]
        made.append(Row(number, text + " and so on" * draw.randrange(9), positive, truth, said))
    return tuple(made)


def rule_of(sample: Sequence[Row], worth_min: float = WORTH_MIN) -> VoteRule:
    """What `shunt calibrate` would make of them: the first weighed, the second expected and weighed beside it."""
    positive = np.array([row.positive for row in sample])
    seen = Seen(
        np.stack([1 - positive, positive], axis=1).astype(np.float32), np.array([len(row.text) for row in sample])
    )
    truth = np.array([LABELS.index(row.truth) for row in sample])
    first, second = (
        np.array([NO_ANSWER if (said := row.said[llm]) is None else LABELS.index(said) for row in sample])
        for llm in (FIRST, SECOND)
    )
    alone = fit_posterior((FIRST,), seen, [first], truth)
    both = fit_posterior((FIRST, SECOND), seen, [first, second], truth)
    expected = fit_expected((FIRST,), seen, [first], second)
    return VoteRule(
        weighing=(
            Weighing(voters=alone.voters, weights=alone.weights),
            Weighing(voters=both.voters, weights=both.weights),
        ),
        expecting=(Expecting(llm=SECOND, voters=expected.voters, weights=expected.weights),),
        worth_min=worth_min,
    )


@cache
def rule() -> VoteRule:
    """That of 3,000 rows which nothing else uses."""
    return rule_of(rows(3_000, seed=2))


def ask_of(row: Row, votes: VoteRule | None = None) -> Ask:
    """The unsure task, as the hot path asks it."""
    label = LABELS[row.positive >= 0.5]
    small = replace(
        escalated.small(label),
        confidence=max(row.positive, 1 - row.positive),
        probabilities={"negative": round(1 - row.positive, 6), "positive": row.positive},
    )
    return Ask("sentiment", LABELS, small, "unsure", votes or rule())


def escalation_of(row: Row, partition: int) -> Escalation:
    """Its escalation, with the rule."""
    return replace(escalated.escalation(row.number, partition=partition), asks=(ask_of(row),))


def recorded(file: Path, sample: Sequence[Row]) -> Path:
    """The file from which a stand-in answers for either."""
    lines = [json.dumps({"text": row.text, "llm": row.said, "prompt_chars": 400}) for row in sample]
    file.write_text("\n".join(lines) + "\n")
    return file

"""Films: is the cascade as good as the LLM, and better, and for which share of its cost? With real LLMs' answers.

    SHUNT_DATA=DIR python -m benchmarks.cascade [--final] [--scores FOLDER]

Each candidate is a dial and the LLMs it may ask: gpt-3.5-turbo, llama-2-70b, or one with the other's second opinion.
Without `--final` it is calibrated on one half of `imdb_llm_calibration` and judged on the other, then the other way
round, so that each row is judged once by a policy that never saw it. With `--final` each candidate is calibrated on
both halves and judged on `imdb_llm_replay`, which chose nothing: every candidate judged there is in these lists.
The shipped models' scores are computed here (a quarter of an hour for the replay rows), and kept under `--scores`.

Printed for each candidate: accuracy, that of the small models and of the first LLM alone (and with the small answer
where it gave none), the difference with its 95 % interval (paired bootstrap), the share escalated, the share asked
twice, and the cost of all calls in parts of the first LLM's for every row, at equal prices unless said. Exits 1 where
a present candidate misses a bar.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation_data import evaluation_data
from benchmarks.kept_scores import add_folder, kept_scores
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Task
from stream_app.training.asked import Asked
from stream_app.training.calibrate import calibrate_task
from stream_app.training.evaluate import with_llm
from stream_app.training.fitted import Terms
from stream_app.training.paired import paired
from stream_app.training.recorded import RecordedFile, label_indexes, read_recorded
from stream_app.training.rows import in_half_a
from stream_app.training.scoring import route_scored
from stream_app.training.voting import Recordings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stream_app.routing.decide import Routed

GPT, LLAMA = "gpt-3.5-turbo-1106", "llama-2-70b-chat"
MODELS = ("sentiment_fast", "sentiment_minilm")
TIERS = ("sentiment_fast", MODELS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be: its dial, who may be asked at which prices, and the bars it is to reach.

    `gain_min` is in shares above the first LLM alone, with a lower bound above `low_min`.
    """

    name: str
    dial: Mapping[str, float]
    llms: tuple[str, ...]
    cost_max: float
    gain_min: float
    low_min: float = 0.0
    prices: Mapping[str, float] = field(default_factory=dict)
    tiers: tuple[str | tuple[str, ...], ...] = TIERS


CANDIDATES = (
    Candidate("gpt, equality", {"escalate_max": 0.048}, (GPT,), 0.06, -1.0, low_min=-0.005),
    Candidate("gpt, a fifth", {"target_error": 0.05}, (GPT,), 0.20, 0.006),
    Candidate("gpt, headline cost", {"target_error": 0.035}, (GPT,), 0.3118, 0.009),
    Candidate("gpt, nearly all of the headline cost", {"escalate_max": 0.28}, (GPT,), 0.3118, 0.009),
    Candidate("gpt, second opinion", {"escalate_max": 0.17}, (GPT, LLAMA), 0.3118, 0.0121),
    Candidate(
        "gpt, second opinion at a fifth", {"escalate_max": 0.22}, (GPT, LLAMA), 0.3118, 0.0121, prices={LLAMA: 0.2}
    ),
    Candidate("llama, a tenth", {"escalate_max": 0.092}, (LLAMA,), 0.10, 0.015),
    Candidate("llama, a tenth, one tier", {"escalate_max": 0.085}, (LLAMA,), 0.10, 0.015, tiers=(MODELS,)),
    Candidate("llama, a fifth", {"escalate_max": 0.175}, (LLAMA,), 0.20, 0.020),
    Candidate("llama, a fifth, one tier", {"escalate_max": 0.17}, (LLAMA,), 0.20, 0.020, tiers=(MODELS,)),
)

BEFORE = (
    Candidate("gpt, equality", {"escalate_max": 0.052}, (GPT,), 0.06, -1.0, low_min=-0.005),
    Candidate("gpt, second opinion", {"escalate_max": 0.18}, (GPT, LLAMA), 0.3118, 0.0121),
    Candidate("llama, a tenth, one tier", {"escalate_max": 0.094}, (LLAMA,), 0.10, 0.015, tiers=(MODELS,)),
    Candidate("llama, a fifth, one tier", {"escalate_max": 0.188}, (LLAMA,), 0.20, 0.020, tiers=(MODELS,)),
)
"""Judged on the replay rows before: they gained what they should, and cost a little more than they may. Those in
their place aim a tenth below the cost on the calibration rows, where these aimed at it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A file with both models' scores of its rows."""

    file: RecordedFile
    scores: Mapping[str, Scores]

    @classmethod
    def of(cls, data: Path, name: str, kept: Path) -> Scored:
        file = read_recorded(data / f"{name}.jsonl.gz", "sentiment")
        return cls(file, {model: kept_scores(model, file, kept) for model in MODELS})

    def rows(self, chosen: Any) -> Scored:
        rows = tuple(self.file.rows[int(place)] for place in chosen)
        scores = {name: scores.rows(chosen) for name, scores in self.scores.items()}
        return Scored(RecordedFile(self.file.name, self.file.sha256, rows), scores)

    def halves(self) -> tuple[Scored, Scored]:
        first = np.array([in_half_a(row) for row in self.file.rows])
        return self.rows(np.flatnonzero(first)), self.rows(np.flatnonzero(~first))


def judged(candidate: Candidate, made_on: Scored, on: Scored) -> tuple[Routed, Asked]:
    """Calibrated on one file's rows, routed on the other's."""
    task = Task(name="sentiment", tiers=candidate.tiers, **candidate.dial)  # pyright: ignore[reportArgumentType]
    labels = ("negative", "positive")
    served = {name: ServedModel(name, "1", labels, "0" * 64, 1) for name in MODELS}
    terms = Terms(0.05, "2026-01-01T00:00:00Z", llms=candidate.llms, prices=dict(candidate.prices))
    made = calibrate_task(task, [made_on.file], served, made_on.scores, terms).task
    (router,) = task_routers([task], served, Policy(name="films", version=1, made_at="", tasks={"sentiment": made}))
    rows = on.file.rows
    routed = route_scored(router, [row.text for row in rows], dict(on.scores))
    recorded = Recordings.of(candidate.llms, rows, labels, candidate.prices)
    return routed, Asked.of(recorded, made.votes, rows, routed)


def alone(scored: Scored) -> dict[str, float]:
    """The small models without any LLM; both of them by the mean of their log-odds."""
    truth = np.array(label_indexes(scored.file.rows, ("negative", "positive")), np.intp)
    logs = [np.log(scored.scores[name].probabilities.astype(np.float64).clip(1e-9)) for name in MODELS]
    said = dict(zip((*MODELS, "both"), (*logs, np.mean(logs, axis=0)), strict=True))
    return {name: round(float((of.argmax(axis=1) == truth).mean()), 4) for name, of in said.items()}


def turns(calibration: Scored, replay: Scored | None) -> Iterator[tuple[Scored, Scored]]:
    """What is calibrated on, and what judged on."""
    if replay is not None:
        yield calibration, replay
        return
    first, second = calibration.halves()
    yield first, second
    yield second, first


def figures(candidate: Candidate, calibration: Scored, replay: Scored | None) -> dict[str, Any]:
    """All turns together, each judged row once."""
    right, llm_right = list[Any](), list[Any]()
    shares = list[tuple[int, dict[str, float]]]()
    for made_on, on in turns(calibration, replay):
        routed, asked = judged(candidate, made_on, on)
        truth = np.array(label_indexes(on.file.rows, asked.recorded.labels), np.intp)
        found = with_llm(asked, on.file.rows, routed, truth)
        right.append(np.where(routed.accepted, routed.label, asked.voted.label) == truth)
        llm_right.append(asked.recorded.answers[0] == truth)
        told = {
            "small_accuracy": found.small_accuracy,
            "llm_filled_accuracy": found.llm_filled_accuracy,
            "escalated_share": 1 - float(routed.accepted.mean()),
            "second_share": found.second_share,
            "cost_share": found.cost_share,
        }
        shares.append((len(truth), told))
    ours, theirs = np.concatenate(right), np.concatenate(llm_right)
    difference = paired(ours, theirs, seed=1)
    rows = len(ours)
    mean = {key: sum(count * told[key] for count, told in shares) / rows for key in shares[0][1]}
    holds = (
        mean["cost_share"] <= candidate.cost_max
        and difference.difference >= candidate.gain_min
        and difference.low > candidate.low_min
    )
    return {
        "candidate": candidate.name,
        "rows": rows,
        "accuracy": round(float(ours.mean()), 4),
        "llm_accuracy": round(float(theirs.mean()), 4),
        **{key: round(value, 4) for key, value in mean.items()},
        "difference": round(difference.difference, 4),
        "low": round(difference.low, 4),
        "high": round(difference.high, 4),
        "bar": {"cost_max": candidate.cost_max, "gain_min": candidate.gain_min, "low_min": candidate.low_min},
        "holds": holds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true")
    add_folder(parser)
    given = parser.parse_args()
    data = evaluation_data()
    calibration = Scored.of(data, "imdb_llm_calibration", given.scores)
    replay = Scored.of(data, "imdb_llm_replay", given.scores) if given.final else None
    print(json.dumps({"alone": alone(replay or calibration)}), flush=True)
    found = list[dict[str, Any]]()
    for candidate in CANDIDATES:
        found.append(figures(candidate, calibration, replay))
        print(json.dumps(found[-1]), flush=True)
    for candidate in BEFORE if given.final else ():
        print(json.dumps({"before": True} | figures(candidate, calibration, replay)), flush=True)
    return 0 if all(one["holds"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

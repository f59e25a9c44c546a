"""How often a promise breaks, over many samples: ours, and the rule that people use instead.

    SHUNT_DATA=DIR python -m benchmarks.guarantees [--splits 1000] [--rows 2000] [--json]

A pool of labelled rows with the shipped models' scores is taken for the population. Each split draws `--rows` of
them, with replacement, fits the tiers on 35 %, certifies on 50 % at delta 5 %, and is then judged by the whole
pool, where the true share of wrong is known exactly: a promise is broken where that share exceeds it. (Judged by a
finite rest of the rows, a promise that holds would seem broken every now and then.) For each target error, with one
threshold and with a promise for every label:

* broken: the share of splits whose policy breaks a promise; delta and two standard errors is the bar;
* coverage: what the policies accept on average; at 5 % beside the oracle's, the most that any cut of the pool's own
  scores could accept within the target;
* naive: the same for the lowest cut at which the sample's own error is within the target.

For moderation, at 5 % toxic: of what is accepted as toxic at least 60 % is, of what is toxic at most 15 % is
accepted as harmless. Both are judged at that prevalence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_app.local.demo.config import shipped_models_path
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.promises import (
    NOT_ACCEPTED,
    ErrorAtMost,
    MissedAtMost,
    Promise,
    WrongAtPrevalence,
    counts_of,
)
from stream_app.training.cut import Judged, accepted_as, certified_cut, cuts_of, planned_cuts
from stream_app.training.evaluation import answer_rows
from stream_app.training.recorded import label_indexes, read_recorded
from stream_app.training.split import CALIBRATION_SHARE, CERTIFICATION_SHARE
from stream_app.training.tier_fit import fit_tier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_app.routing.decide import Tier
    from stream_app.routing.models import FloatArray, IndexArray

TARGETS = (0.02, 0.03, 0.05, 0.08)
DELTA = 0.05
PREVALENCE, PRECISION_MIN, MISS_MAX = 0.05, 0.6, 0.15
POOLS = {
    "films": (("sentiment_fast", "sentiment_minilm"), ("imdb_llm_calibration",)),
    "moderation": (("toxicity_fast",), ("toxicity_validation", "toxicity_llm_replay")),
}


@dataclass(frozen=True, slots=True)
class Pool:
    """The population: what each model answers to every row, and the truth."""

    labels: tuple[str, ...]
    models: tuple[ServedModel, ...]
    scores: Mapping[str, Scores]
    truth: IndexArray

    @classmethod
    def of(cls, data: Path, task: str, names: Sequence[str], files: Sequence[str]) -> Pool:
        rows = [row for file in files for row in read_recorded(data / f"{file}.jsonl.gz", task).rows]
        answers = {name: answer_rows(shipped_models_path() / name, rows) for name in names}
        labels = answers[names[0]].labels
        return cls(
            labels,
            tuple(ServedModel(name, "1", labels, "0" * 64, 1) for name in names),
            {name: Scores(found.probabilities, found.known_shares) for name, found in answers.items()},
            np.array(label_indexes(rows, labels), np.intp),
        )

    def tiers(self, drawn: IndexArray) -> list[Tier]:
        """Fitted on these rows: the first model, then all together."""
        names = [self.models[:1], self.models] if len(self.models) > 1 else [self.models]
        of_drawn = {name: scores.rows(drawn) for name, scores in self.scores.items()}
        everything = np.arange(len(drawn))
        return [fit_tier(models, of_drawn, everything, self.truth[drawn]) for models in names]

    def judged(self, tiers: Sequence[Tier]) -> list[Judged]:
        """What they answer to every row of the pool."""
        found = [tier.judge([self.scores[model.name] for model in tier.models]) for tier in tiers]
        return [Judged(label, confidence) for _, label, confidence in found]


@dataclass(slots=True)
class Seen:
    """What came of many splits."""

    broken: int = 0
    nothing: int = 0
    coverage: float = 0.0
    splits: int = 0

    def add(self, taken: IndexArray | None, broken: bool) -> None:
        self.splits += 1
        self.nothing += taken is None
        self.broken += broken
        self.coverage += 0.0 if taken is None else float((taken != NOT_ACCEPTED).mean())

    def row(self) -> dict[str, float]:
        return {
            "broken": round(self.broken / self.splits, 4),
            "coverage": round(self.coverage / self.splits, 4),
            "nothing": round(self.nothing / self.splits, 4),
        }


def is_broken(pool: Pool, taken: IndexArray, promises: Sequence[Promise]) -> bool:
    """Whether the whole pool, where nothing is left to chance, breaks a promise."""
    counts = counts_of(pool.truth, taken, len(pool.labels))
    return any(rate(promise, counts) > promise.share for promise in promises)


def rate(promise: Promise, counts: Any) -> float:
    """The true share that the promise bounds; 0 where nothing is accepted that it speaks of."""
    match promise:
        case ErrorAtMost(about=about):
            columns = list(about or range(len(counts)))
            accepted = counts[:, columns].sum()
            return float((accepted - counts[columns, columns].sum()) / max(1, accepted))
        case WrongAtPrevalence(label=label, prevalence=prevalence, mix=mix):
            rates = counts[:, label] / counts.sum(axis=1)
            false = (1 - prevalence) * sum(part * rates[other] for other, part in mix.items())
            total = prevalence * rates[label] + false
            return float(false / total) if total else 0.0
        case MissedAtMost(label=label):
            return float((counts[label, :-1].sum() - counts[label, label]) / counts[label].sum())
        case _:
            raise TypeError(promise)


def oracle_coverage(pool: Pool, target: float) -> float:
    """The most that one cut of the last tier's confidence could accept, were all labels known."""
    (*_, last) = pool.judged(pool.tiers(np.arange(len(pool.truth))))
    wrong = (last.label != pool.truth)[np.argsort(-last.confidence, kind="stable")]
    within = np.flatnonzero(np.cumsum(wrong) <= target * (np.arange(len(wrong)) + 1))
    return float((within.max() + 1) / len(wrong)) if len(within) else 0.0


def splits(pool: Pool, given: argparse.Namespace, ways: Mapping[str, Sequence[Promise]]) -> dict[str, Seen]:
    """Draw, fit, certify and judge, for every way of promising with the same draws."""
    draw = np.random.default_rng(given.seed)
    seen = {name: Seen() for name in (*ways, *(f"naive {name}" for name in ways))}
    inside = np.ones(len(pool.truth), np.bool_)
    first = int(CALIBRATION_SHARE * given.rows)
    second = first + int(CERTIFICATION_SHARE * given.rows)
    for _ in range(given.splits):
        drawn = draw.integers(0, len(pool.truth), given.rows)
        judged = pool.judged(pool.tiers(drawn[:first]))
        shared = cuts_of(judged, drawn[:first], np.zeros(len(pool.labels)))
        for name, promises in ways.items():
            by_label = len(promises) > 1
            cuts = (
                planned_cuts(judged, pool.truth, inside, drawn[:first], promises, len(pool.labels))
                if by_label
                else shared
            )
            cut = certified_cut(cuts, judged, pool.truth, inside, [drawn[first:second]], promises, DELTA)
            taken = None if cut is None else accepted_as(cut.by_label, judged, inside)
            seen[name].add(taken, taken is not None and is_broken(pool, taken, promises))
            taken = naive(pool, judged, shared, drawn[:second], promises)
            seen[f"naive {name}"].add(taken, taken is not None and is_broken(pool, taken, promises))
    return seen


def naive(
    pool: Pool, judged: Sequence[Judged], cuts: FloatArray, drawn: IndexArray, promises: Sequence[Promise]
) -> IndexArray | None:
    """The lowest cut at which these rows themselves keep the promises, as if they were the population."""
    inside = np.ones(len(pool.truth), np.bool_)
    for cut in cuts[::-1]:
        taken = accepted_as(cut, judged, inside)
        counts = counts_of(pool.truth[drawn], taken[drawn], len(pool.labels))
        if all(rate(promise, counts) <= promise.share for promise in promises):
            return taken
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = Path(os.environ["SHUNT_DATA"])
    rows = list[dict[str, Any]]()
    bar = DELTA + 2 * (DELTA * (1 - DELTA) / given.splits) ** 0.5
    for name, (models, files) in POOLS.items():
        task = "sentiment" if name == "films" else "toxicity"
        pool = Pool.of(data, task, models, files)
        for target in TARGETS:
            ways: dict[str, Sequence[Promise]] = {
                "one threshold": [ErrorAtMost(target)],
                "by label": [ErrorAtMost(target, (label,)) for label in range(len(pool.labels))],
            }
            for way, found in splits(pool, given, ways).items():
                oracle = round(oracle_coverage(pool, target), 4)
                rows.append({"pool": name, "promise": f"{target:.0%}, {way}", **found.row(), "oracle": oracle})
                print(rows[-1], file=sys.stderr, flush=True)
        if name == "moderation":
            toxic = pool.labels.index("toxic")
            promises: list[Promise] = [
                WrongAtPrevalence(1 - PRECISION_MIN, toxic, PREVALENCE, {1 - toxic: 1.0}),
                MissedAtMost(MISS_MAX, toxic),
            ]
            for way, found in splits(pool, given, {"rare": promises}).items():
                rows.append({"pool": name, "promise": f"{way} label", **found.row()})
                print(rows[-1], file=sys.stderr, flush=True)
    missed = [
        f"{row['pool']}, {row['promise']}: broken in {row['broken']:.2%}"
        for row in rows
        if "naive" not in row["promise"] and row["broken"] > bar
    ]
    print(
        json.dumps(
            {"splits": given.splits, "rows_drawn": given.rows, "bar": round(bar, 4), "rows": rows, "misses": missed}
        )
    )
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()

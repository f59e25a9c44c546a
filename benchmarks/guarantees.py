"""How often a promise breaks, over many samples: ours, and the rule that people use instead.

    SHUNT_DATA=DIR python -m benchmarks.guarantees [--splits 1000] [--rows 2000] [--scores FOLDER]

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
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.evaluation_data import evaluation_data
from benchmarks.kept_scores import add_folder, kept_scores
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
from stream_app.training.folder import labels_in
from stream_app.training.recorded import label_indexes, read_recorded
from stream_app.training.split import CALIBRATION_SHARE, CERTIFICATION_SHARE
from stream_app.training.tier_fit import fit_tier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_app.routing.calibration import BoolArray
    from stream_app.routing.decide import Tier
    from stream_app.routing.models import FloatArray, IndexArray

TARGETS = (0.02, 0.03, 0.05, 0.08)
DELTA = 0.05
OF_ORACLE_MIN = 0.75
"""What is accepted at 5 % with one threshold, in parts of what the oracle accepts."""
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
    def of(cls, data: Path, task: str, names: Sequence[str], files: Sequence[str], kept: Path) -> Pool:
        read = [read_recorded(data / f"{file}.jsonl.gz", task) for file in files]
        rows = [row for file in read for row in file.rows]
        labels = labels_in(shipped_models_path() / names[0])
        return cls(
            labels,
            tuple(ServedModel(name, "1", labels, "0" * 64, 1) for name in names),
            {name: joined([kept_scores(name, file, kept) for file in read]) for name in names},
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


def joined(parts: Sequence[Scores]) -> Scores:
    """The rows of several files, one after the other."""
    return Scores(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.known_share for part in parts])
    )


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


def ways_of(pool: Pool, *, rare: bool) -> dict[str, Sequence[Promise]]:
    """Every way of promising that is tried on the same draws."""
    labels = range(len(pool.labels))
    ways: dict[str, Sequence[Promise]] = {}
    for target in TARGETS:
        ways[f"{target:.0%}, one threshold"] = [ErrorAtMost(target)]
        ways[f"{target:.0%}, by label"] = [ErrorAtMost(target, (label,)) for label in labels]
    if rare:
        toxic = pool.labels.index("toxic")
        ways["rare label"] = [
            WrongAtPrevalence(1 - PRECISION_MIN, toxic, PREVALENCE, {1 - toxic: 1.0}),
            MissedAtMost(MISS_MAX, toxic),
        ]
    return ways


def oracle_coverage(pool: Pool, target: float) -> float:
    """The most that one cut of the last tier's confidence could accept, were all labels known."""
    (*_, last) = pool.judged(pool.tiers(np.arange(len(pool.truth))))
    wrong = (last.label != pool.truth)[np.argsort(-last.confidence, kind="stable")]
    within = np.flatnonzero(np.cumsum(wrong) <= target * (np.arange(len(wrong)) + 1))
    return float((within.max() + 1) / len(wrong)) if len(within) else 0.0


def splits(pool: Pool, given: argparse.Namespace, ways: Mapping[str, Sequence[Promise]]) -> dict[str, Seen]:
    """Draw, fit, certify and judge: every way of promising with the same draws."""
    draw = np.random.default_rng(given.seed)
    seen = {name: Seen() for name in (*ways, *(f"naive {name}" for name in ways))}
    everything = np.ones(len(pool.truth), np.bool_)
    for _ in track(range(given.splits), console=Console(stderr=True), description="splits"):
        split = Split.of(pool, draw.integers(0, len(pool.truth), given.rows))
        for name, promises in ways.items():
            for rule, cuts in ((name, split.certified(promises)), (f"naive {name}", split.naive(promises))):
                taken = None if cuts is None else accepted_as(cuts, split.judged, everything)
                seen[rule].add(taken, taken is not None and is_broken(pool, taken, promises))
    return seen


@dataclass(frozen=True, slots=True)
class Split:
    """Rows drawn with replacement, and tiers fitted on the first of them.

    `judged` is what those answer to the whole pool, `own` to the rows drawn; `cuts` are those for one threshold.
    """

    labels: int
    judged: Sequence[Judged]
    own: Sequence[Judged]
    truth: IndexArray
    inside: BoolArray
    calibration: IndexArray
    certification: IndexArray
    cuts: FloatArray

    @classmethod
    def of(cls, pool: Pool, drawn: IndexArray) -> Split:
        first = int(CALIBRATION_SHARE * len(drawn))
        calibration, certification = np.arange(first), np.arange(first, first + int(CERTIFICATION_SHARE * len(drawn)))
        judged = pool.judged(pool.tiers(drawn[:first]))
        own = [tier.rows(drawn) for tier in judged]
        cuts = cuts_of(own, calibration, np.zeros(len(pool.labels)))
        inside = np.ones(len(drawn), np.bool_)
        return cls(len(pool.labels), judged, own, pool.truth[drawn], inside, calibration, certification, cuts)

    def certified(self, promises: Sequence[Promise]) -> FloatArray | None:
        """The cuts by label that may be promised, as `shunt calibrate` finds them."""
        cuts = self.cuts
        if len(promises) > 1:
            cuts = planned_cuts(self.own, self.truth, self.inside, self.calibration, promises, self.labels)
        found = certified_cut(cuts, self.own, self.truth, self.inside, [self.certification], promises, DELTA)
        return None if found is None else found.by_label

    def naive(self, promises: Sequence[Promise]) -> FloatArray | None:
        """The lowest cut at which these rows themselves keep the promises, as if they were the population."""
        used = np.concatenate([self.calibration, self.certification])
        own, truth, inside = [tier.rows(used) for tier in self.own], self.truth[used], self.inside[used]
        for cut in self.cuts[::-1]:
            counts = counts_of(truth, accepted_as(cut, own, inside), self.labels)
            if all(rate(promise, counts) <= promise.share for promise in promises):
                return cut
        return None


def misses(rows: Sequence[dict[str, Any]], bar: float) -> list[str]:
    """A line for each bar that is missed."""
    told = [
        f"{row['pool']}, {row['promise']}: broken in {row['broken']:.2%}"
        for row in rows
        if "naive" not in row["promise"] and row["broken"] > bar
    ]
    found = {(row["pool"], row["promise"]): row["coverage"] for row in rows}
    for pool in POOLS:
        coverage, oracle = found[pool, "5%, one threshold"], found[pool, "oracle, 5%"]
        if coverage < OF_ORACLE_MIN * oracle:
            told.append(f"{pool}: accepts {coverage:.1%} at 5 %, the oracle {oracle:.1%}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    add_folder(parser)
    given = parser.parse_args()
    data = evaluation_data()
    rows = list[dict[str, Any]]()
    bar = DELTA + 2 * (DELTA * (1 - DELTA) / given.splits) ** 0.5
    for name, (models, files) in POOLS.items():
        task = "sentiment" if name == "films" else "toxicity"
        pool = Pool.of(data, task, models, files, given.scores)
        ways = ways_of(pool, rare=name == "moderation")
        for way, found in splits(pool, given, ways).items():
            rows.append({"pool": name, "promise": way, **found.row()})
        for target in TARGETS:
            oracle = round(oracle_coverage(pool, target), 4)
            rows.append({"pool": name, "promise": f"oracle, {target:.0%}", "broken": 0.0, "coverage": oracle})
        for row in rows:
            if row["pool"] == name:
                print(row, file=sys.stderr, flush=True)
    missed = misses(rows, bar)
    print(
        json.dumps(
            {"splits": given.splits, "rows_drawn": given.rows, "bar": round(bar, 4), "rows": rows, "misses": missed}
        )
    )
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()

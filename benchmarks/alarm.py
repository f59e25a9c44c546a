"""The alarm on audited answers: how often it cries wolf, and how soon it sees that something has changed.

    SHUNT_DATA=DIR python -m benchmarks.alarm [--streams 1000] [--orders 1000] [--json]

Simulated: streams of audits that are lost with a stated risk, looked at after every one of them.

* at exactly the bound, 5,000 audits: the share that ever alarm (bar: 5 %);
* at twice the bound from the first audit on: the median delay in audits (bar: 700);
* the same after 2,000 audits at half the bound: the median delay after the change.

Recorded: the answers of real LLMs. A set's groups are split into halves at random, `--orders` times. One half fits
the tier, certifies a cut and says how often the LLM disagrees with what is accepted (as `shunt calibrate` does); the
accepted of the other half are audited, drawn with replacement, 4,000 of them. Told are the splits that certify
anything; the share that ever alarm, over all of them (bar: 5 %) and over those where the
other half's own disagreement is within the bound; and the median delay when so many of the small model's answers are
turned that the risk is twice the bound, from the first audit on and after 1,000.

The small models are the shipped fast ones, which saw none of these rows; for hate one is trained on two fifths of its
set, which are left out of the halves. Exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation_data import evaluation_data
from stream_app.local.demo.config import shipped_models_path
from stream_app.routing.alarms import ALARM_DELTA
from stream_app.routing.audit import RiskMonitor
from stream_app.routing.certification import error_bound
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.promises import NOT_ACCEPTED, ErrorAtMost
from stream_app.training.cut import Judged, accepted_as, certified_cut, cuts_of
from stream_app.training.evaluation import answer_rows
from stream_app.training.recorded import label_indexes, read_recorded
from stream_app.training.split import CALIBRATION_SHARE, CERTIFICATION_SHARE, folds
from stream_app.training.tier_fit import fit_tier
from stream_app.training.train import train

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stream_app.routing.models import IndexArray
    from stream_app.training.recorded import RecordedRow

BOUNDS = (0.02, 0.05, 0.10)
AUDITS, DELAY_MAX, GOOD_BEFORE = 5_000, 700, 2_000
RECORDED_AUDITS, RECORDED_GOOD_BEFORE = 4_000, 1_000
FIFTHS, TRAINED_ON = 5, (0, 1)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A set: its file and task, the model's folder or None for one that is trained, the target, and the LLMs."""

    file: str
    task: str
    model: str | None
    target: float
    llms: tuple[str, ...]


SETS = {
    "films": Recorded(
        "imdb_llm_calibration", "sentiment", "sentiment_fast", 0.05, ("gpt-3.5-turbo-1106", "llama-2-70b-chat")
    ),
    "toxicity": Recorded("toxicity_llm_replay", "toxicity", "toxicity_fast", 0.10, ("gpt-4o-mini-2024-07-18",)),
    "hate": Recorded("hatespeech18_llm_replay", "hate", None, 0.10, ("gpt-3.5-turbo-1106", "llama-2-70b-chat")),
}


def first_alarm(losses: Iterable[bool], bound: float) -> int | None:
    """After how many audits there is an alarm."""
    monitor = RiskMonitor(bound, ALARM_DELTA)
    for number, lost in enumerate(losses, 1):
        if monitor.observe(float(lost)):
            return number
    return None


def told(delays: Sequence[int | None], before: int = 0) -> dict[str, Any]:
    """Delays after the change; a stream that had alarmed before it is left out."""
    after = [float("inf") if delay is None else delay - before for delay in delays if delay is None or delay > before]
    low, middle, high = np.quantile(after, [0.1, 0.5, 0.9], method="lower")
    return {"median": _number(middle), "from_10": _number(low), "to_90": _number(high)}


def _number(delay: float) -> int | None:
    return int(delay) if np.isfinite(delay) else None


def simulated(bound: float, streams: int) -> dict[str, Any]:
    """One bound, in streams whose risk is known."""
    draw = np.random.default_rng(int(bound * 1000))

    def losses(risk: float, count: int) -> list[bool]:
        return (draw.random(count) < risk).tolist()

    alarms = sum(first_alarm(losses(bound, AUDITS), bound) is not None for _ in range(streams))
    at_once = [first_alarm(losses(2 * bound, AUDITS), bound) for _ in range(streams)]
    late = [first_alarm(losses(bound / 2, GOOD_BEFORE) + losses(2 * bound, AUDITS), bound) for _ in range(streams)]
    return {
        "bound": bound,
        "streams": streams,
        "false_alarms": alarms / streams,
        "delay_at_twice": told(at_once),
        "delay_at_twice_later": told(late, GOOD_BEFORE),
    }


@dataclass(frozen=True, slots=True)
class Pool:
    """A set's rows with the model's scores, the truth, and whose rows stay together."""

    rows: Sequence[RecordedRow]
    model: ServedModel
    scores: Scores
    truth: IndexArray
    groups: IndexArray

    @classmethod
    def of(cls, rows: Sequence[RecordedRow], folder: Path) -> Pool:
        found = answer_rows(folder, rows)
        names = [row.id if row.group is None else row.group for row in rows]
        return cls(
            rows,
            ServedModel(folder.name, "1", found.labels, "0" * 64, 1),
            Scores(found.probabilities, found.known_shares),
            np.array(label_indexes(rows, found.labels), np.intp),
            np.unique(names, return_inverse=True)[1],
        )

    def said(self, llm: str) -> IndexArray:
        """What the LLM said of each row; -2 where it gave no label."""
        places = {label: place for place, label in enumerate(self.model.labels)}
        return np.array([places.get(row.answer_of(llm) or "", -2) for row in self.rows], np.intp)


def accepted(pool: Pool, fitted: IndexArray, certified: IndexArray, target: float) -> IndexArray | None:
    """What the certified cut accepts of all rows, NOT_ACCEPTED elsewhere; None where nothing is certified."""
    scores = {pool.model.name: pool.scores.rows(fitted)}
    tier = fit_tier((pool.model,), scores, np.arange(len(fitted)), pool.truth[fitted])
    _, label, confidence = tier.judge([pool.scores])
    judged, inside = [Judged(label, confidence)], np.ones(len(label), np.bool_)
    cuts = cuts_of(judged, fitted, np.zeros(len(pool.model.labels)))
    cut = certified_cut(cuts, judged, pool.truth, inside, [certified], [ErrorAtMost(target)], ALARM_DELTA)
    return None if cut is None else accepted_as(cut.by_label, judged, inside)


def splits(pool: Pool, orders: int) -> Iterator[tuple[IndexArray, IndexArray, IndexArray, np.random.Generator]]:
    """Rows to fit on, to certify and look at, and to stream, with draws of their own."""
    draw, groups = np.random.default_rng(11), int(pool.groups.max()) + 1
    for _ in range(orders):
        ours = (draw.permutation(groups) < groups // 2)[pool.groups]
        half = draw.permutation(np.flatnonzero(ours))
        first = int(CALIBRATION_SHARE * len(half))
        yield half[:first], half[first:], np.flatnonzero(~ours), draw


def recorded(name: str, pool: Pool, target: float, llm: str, orders: int) -> dict[str, Any]:
    """One LLM's answers over many splits."""
    said, alarms, held, held_alarms = pool.said(llm), 0, 0, 0
    bounds, rates = list[float](), list[float]()
    at_once, late = list[int | None](), list[int | None]()
    for fitted, rest, stream, draw in splits(pool, orders):
        certified = rest[: int(len(rest) * CERTIFICATION_SHARE / (1 - CALIBRATION_SHARE))]
        taken = accepted(pool, fitted, certified, target)
        if taken is None:
            continue
        seen, streamed = (rows[taken[rows] != NOT_ACCEPTED] for rows in (rest, stream))
        bound = error_bound(int((said[seen] != taken[seen]).sum()), len(seen), ALARM_DELTA)
        lost = said[streamed] != taken[streamed]
        if not (0 < bound < 0.5 and len(lost)):
            continue
        bounds.append(bound)
        rates.append(float(lost.mean()))
        audits = lost[draw.integers(0, len(lost), RECORDED_AUDITS)]
        alarm = first_alarm(audits.tolist(), bound) is not None
        alarms += alarm
        held += rates[-1] <= bound
        held_alarms += alarm and rates[-1] <= bound
        turned = max(0.0, 2 * bound - rates[-1]) / (1 - rates[-1])
        worse = audits | (draw.random(RECORDED_AUDITS) < turned)
        at_once.append(first_alarm(worse.tolist(), bound))
        later = [*audits[:RECORDED_GOOD_BEFORE].tolist(), *worse[RECORDED_GOOD_BEFORE:].tolist()]
        late.append(first_alarm(later, bound))
    count = len(bounds)
    return {
        "set": name,
        "llm": llm,
        "target": target,
        "splits": orders,
        "certified": count,
        "bound": round(float(np.mean(bounds)), 4),
        "disagreement": round(float(np.mean(rates)), 4),
        "alarms": round(alarms / count, 4),
        "bound_held": held,
        "alarms_where_held": round(held_alarms / max(1, held), 4),
        "delay_at_twice": told(at_once),
        "delay_at_twice_later": told(late, RECORDED_GOOD_BEFORE),
    }


def pool_of(data: Path, one: Recorded, folder: Path) -> Pool:
    """The set's rows that no model was trained on."""
    rows = read_recorded(data / f"{one.file}.jsonl.gz", one.task).rows
    if one.model is not None:
        return Pool.of(rows, shipped_models_path() / one.model)
    fifth = folds(rows, FIFTHS)
    file = folder / "train.jsonl"
    chosen = [rows[int(place)] for place in np.flatnonzero(np.isin(fifth, TRAINED_ON))]
    file.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in chosen))
    done = train([file], task=one.task, out=folder / "model", model="fast", name=f"{one.task}_fast")
    return Pool.of([rows[int(place)] for place in np.flatnonzero(~np.isin(fifth, TRAINED_ON))], done.folder)


def misses(figures: dict[str, Any]) -> list[str]:
    """The bars that are missed, for a person."""
    found = list[str]()
    for one in figures["simulated"]:
        delay = one["delay_at_twice"]["median"]
        if one["false_alarms"] > ALARM_DELTA:
            found.append(f"{one['false_alarms']:.1%} of streams at the bound {one['bound']:.0%} alarm")
        if delay is None or delay >= DELAY_MAX:
            found.append(f"at twice the bound {one['bound']:.0%} half of the streams take {delay} audits")
    for one in figures["recorded"]:
        if one["alarms"] > ALARM_DELTA:
            found.append(f"{one['set']}, {one['llm']}: {one['alarms']:.1%} of splits alarm")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--orders", type=int, default=1_000)
    parser.add_argument("--json", action="store_true", help="one object instead of a line for each")
    given = parser.parse_args()
    figures: dict[str, Any] = {"simulated": [], "recorded": []}

    def say(kind: str, figure: dict[str, Any]) -> None:
        figures[kind].append(figure)
        print(json.dumps(figure), file=sys.stderr if given.json else sys.stdout, flush=True)

    for bound in BOUNDS:
        say("simulated", simulated(bound, given.streams))
    with tempfile.TemporaryDirectory() as folder:
        for name, one in SETS.items():
            pool = pool_of(evaluation_data(), one, Path(folder))
            for llm in one.llms:
                say("recorded", recorded(name, pool, one.target, llm, given.orders))
    missed = misses(figures)
    print(json.dumps({**figures, "misses": missed}) if given.json else "\n".join(missed) or "every bar is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

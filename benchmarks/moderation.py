"""Moderation: a cascade as good as the LLM at a quarter of its cost, and one that weighs misses against false alarms.

    SHUNT_DATA=DIR python -m benchmarks.moderation

Toxicity: the shipped fast model, calibrated on the validation rows at an error of 3 %, decides the rows that
gpt-4o-mini answered. Printed: accuracy, that of the LLM alone, their difference with its 95 % interval (paired
bootstrap), and the share of the LLM's cost. Bars: at most 25 % of the cost, the interval above -2 points.

Hate: rows of a forum, one in nine of them hate, split in five by thread. In turn two fifths train a fast model, two
calibrate it with gpt-3.5's recorded answers and the costs of wrong answers, and the last is judged. Printed for each
ratio of costs: what is escalated, and the mean cost of a row by the small model alone (with the answer that costs
least), by the LLM alone, and together. Exits 1 where a bar is missed: where a miss costs ten times a false alarm,
together must cost less than either alone; where both cost the same, nothing must be escalated but what is out of the
calibrated domain, and that cost less than the LLM.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation_data import evaluation_data
from stream_app.local.demo.config import shipped_models_path
from stream_app.routing.decide import Route
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.payoff import Payoff, costs_of, plain
from stream_app.routing.policy import Policy
from stream_app.routing.routers import task_routers
from stream_app.settings import LabelCost, Task
from stream_app.training.asked import Asked
from stream_app.training.calibrate import Calibrated, calibrate_task
from stream_app.training.evaluate import with_llm
from stream_app.training.evaluation import answer_rows
from stream_app.training.fitted import Terms
from stream_app.training.paired import paired
from stream_app.training.recorded import RecordedFile, label_indexes, read_recorded
from stream_app.training.scoring import route_scored
from stream_app.training.split import folds
from stream_app.training.train import train
from stream_app.training.voting import Recordings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.routing.decide import Routed
    from stream_app.training.recorded import RecordedRow

TOXICITY_LLM, HATE_LLM = "gpt-4o-mini-2024-07-18", "gpt-3.5-turbo-1106"
TARGET_ERROR, COST_MAX, LOSS_MAX = 0.03, 0.25, 0.02
FIFTHS = 5
RATIOS = (1.0, 10.0)


class Model:
    """A model folder, asked in this process."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder, self.task = folder, task

    def calibrated(self, rows: Sequence[RecordedRow], terms: Terms) -> Calibrated:
        scores, served = self._scored(rows)
        return calibrate_task(self.task, [RecordedFile("rows", "0" * 64, tuple(rows))], served, scores, terms)

    def routed(self, made: Calibrated, rows: Sequence[RecordedRow]) -> Routed:
        scores, served = self._scored(rows)
        policy = Policy(name="moderation", version=1, made_at="", tasks={self.task.name: made.task})
        (router,) = task_routers([self.task], served, policy)
        return route_scored(router, [row.text for row in rows], scores)

    def _scored(self, rows: Sequence[RecordedRow]) -> tuple[dict[str, Scores], dict[str, ServedModel]]:
        (name,) = self.task.models
        found = answer_rows(self.folder, rows)
        served = ServedModel(name, "1", found.labels, "0" * 64, 1)
        return {name: Scores(found.probabilities, found.known_shares)}, {name: served}


def toxicity(data: Path) -> dict[str, Any]:
    """The shipped fast model and a recorded LLM."""
    task = Task(name="toxicity", tiers=("toxicity_fast",), target_error=TARGET_ERROR)
    model = Model(shipped_models_path() / "toxicity_fast", task)
    made = model.calibrated(
        read_recorded(data / "toxicity_validation.jsonl.gz", task.name).rows, Terms(0.05, "2026-01-01T00:00:00Z")
    )
    rows = read_recorded(data / "toxicity_llm_replay.jsonl.gz", task.name).rows
    routed, labels = model.routed(made, rows), made.task.labels
    truth = np.array(label_indexes(rows, labels), np.intp)
    asked = Asked.of(Recordings.of((TOXICITY_LLM,), rows, labels, {}), made.task.votes, rows, routed)
    found = with_llm(asked, rows, routed, truth)
    answer = np.where(routed.accepted, routed.label, asked.voted.label)
    told = paired(answer == truth, asked.recorded.answers[0] == truth, seed=1)
    return {
        "rows": len(rows),
        "small_accuracy": round(found.small_accuracy, 4),
        "llm_accuracy": round(found.llm_accuracy, 4),
        "accuracy": round(found.accuracy, 4),
        "difference": round(told.difference, 4),
        "low": round(told.low, 4),
        "high": round(told.high, 4),
        "cost_share": round(found.cost_share, 4),
        "holds": found.cost_share <= COST_MAX and told.low > -LOSS_MAX,
    }


def hate(data: Path, ratio: float, folders: Sequence[Path]) -> dict[str, Any]:
    """All five turns, each row judged once. `folders` hold the models of the turns."""
    rows = read_recorded(data / "hatespeech18_llm_replay.jsonl.gz", "hate").rows
    fifth = folds(rows, FIFTHS)
    task = Task(name="hate", tiers=("hate_fast",), costs={"hate": LabelCost(missed=ratio, false_alarm=1.0)})
    spent: dict[str, list[Any]] = {"small": [], "llm": [], "together": []}
    escalated = list[Any]()
    for turn in range(FIFTHS):
        model = Model(folders[turn], task)
        own = [
            rows[int(place)] for place in np.flatnonzero(np.isin(fifth, [(turn + 3) % FIFTHS, (turn + 4) % FIFTHS]))
        ]
        made = model.calibrated(own, Terms(0.05, "2026-01-01T00:00:00Z", llms=(HATE_LLM,)))
        judged = [rows[int(place)] for place in np.flatnonzero(fifth == turn)]
        routed, labels = model.routed(made, judged), made.task.labels
        truth = np.array(label_indexes(judged, labels), np.intp)
        asked = Asked.of(Recordings.of((HATE_LLM,), judged, labels, {}), made.task.votes, judged, routed)
        payoff = Payoff.of(labels, costs_of(task)) or plain(len(labels))
        answer = np.where(routed.accepted, routed.label, asked.voted.label)
        for who, label in (("small", routed.label), ("llm", asked.recorded.answers[0]), ("together", answer)):
            spent[who].append(payoff.cost(truth, label))
        escalated.append(routed.route)
    costs = {who: np.concatenate(parts) for who, parts in spent.items()}
    shown = {f"{who}_cost": round(float(cost.mean()), 4) for who, cost in costs.items()}
    cheap = shown["together_cost"] < min(shown["llm_cost"], shown["small_cost"])
    routes = np.concatenate(escalated)
    share = round(float((routes == Route.UNSURE).mean()), 4)
    return {
        "rows": len(rows),
        "miss_to_false_alarm": ratio,
        "escalated_share": share,
        "out_of_domain_share": round(float((routes == Route.OUT_OF_DOMAIN).mean()), 4),
        **shown,
        "saved_against_small": interval(costs["small"] - costs["together"]),
        "saved_against_llm": interval(costs["llm"] - costs["together"]),
        "holds": cheap if ratio > 1 else share == 0 and shown["together_cost"] < shown["llm_cost"],
    }


def interval(saved: Any) -> tuple[float, float, float]:
    """The mean and its 95 % interval by a bootstrap over rows."""
    draw = np.random.default_rng(1)
    means = [saved[draw.integers(0, len(saved), len(saved))].mean() for _ in range(2_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(saved.mean()), 4), round(float(low), 4), round(float(high), 4)


def trained(data: Path, folder: Path) -> list[Path]:
    """A fast model for each turn, from the two fifths after it."""
    rows = read_recorded(data / "hatespeech18_llm_replay.jsonl.gz", "hate").rows
    fifth = folds(rows, FIFTHS)
    made = list[Path]()
    for turn in range(FIFTHS):
        file = folder / f"train-{turn}.jsonl"
        chosen = np.flatnonzero(np.isin(fifth, [(turn + 1) % FIFTHS, (turn + 2) % FIFTHS]))
        lines = ({"text": rows[int(place)].text, "label": rows[int(place)].label} for place in chosen)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        done = train([file], task="hate", out=folder / f"turn-{turn}", kind="fast", name="hate_fast")
        made.append(done.folder)
        print(f"turn {turn}: trained on {len(chosen):,} rows", file=sys.stderr, flush=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    data = evaluation_data()
    with tempfile.TemporaryDirectory() as folder:
        folders = trained(data, Path(folder))
        found = {"toxicity": toxicity(data), "hate": [hate(data, ratio, folders) for ratio in RATIOS]}
    print(json.dumps(found, indent=1))
    return 0 if found["toxicity"]["holds"] and all(one["holds"] for one in found["hate"]) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The loop on film reviews in the live stream: half B's escalated share before and after, counted from the topics.

    SHUNT_DATA=DIR python -m benchmarks.loop [--target 0.05] [--draw N]

Real Kafka and Triton, workers and commands as a user starts them, gpt-3.5's recorded answers behind the stand-in
LLM's interface. A fast model of a tenth of `imdb_train` is calibrated on another fifth. Half B of
`imdb_llm_calibration` streams first. Then two rounds, each with a part of half A: it streams; `shunt distill
--from-topic` learns from all that was escalated of half A until then (half B is held out, though its answers are on
the topic too) and from the rest of `imdb_train` without labels; `shunt calibrate --challenger`; the challenger sees
the stream's events in the shadow; `shunt promote`, which may refuse: then the policy before stays. Half B streams
again, and `shunt rollback` goes back. Exits 1 where an event has no final decision or two, where half B taught, or
where half B's escalated share fell by less than a third.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.distillation import GPT, LABELS, SAVED_MIN, TASK, Films
from benchmarks.evaluation_data import evaluation_data
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.local.stack import Stack
from stream_app.training.held_out import LEARNED, read_held_out
from stream_app.training.making import TrainingSet
from stream_app.training.train import train_rows
from tests.conftest import run_apart
from tests.faults.fleet import Fleet
from tests.faults.pipeline import Pipeline
from tests.kafka.reading import each_message, produce
from tests.settings_file import write_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.training.recorded import RecordedRow

PARTITIONS = 2
SETTLED_WITHIN_S = 600.0
SHADOWED = 1_000
"""Events that each challenger sees before it is promoted."""


class Run:
    """The pipeline in a folder; `stream` sends rows and waits for their decisions."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.folder, self.pipeline = folder, pipeline
        self.written = 0

    def tried(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command's output and its exit status, whatever it is."""
        print(f"shunt {' '.join(arguments)}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "stream_app.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def shunt(self, *arguments: str) -> str:
        """A command that must succeed; what it prints."""
        done = self.tried(*arguments)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout

    def finals(self) -> dict[tuple[int, int], dict[str, Any]]:
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for message in each_message(self.pipeline.bootstrap_servers, self.pipeline.topic("decisions")):
            decision = json.loads(message.value())
            place = decision["source"]["partition"], decision["source"]["offset"]
            if place in found:
                raise SystemExit(f"{place} was decided twice")
            found[place] = decision
        return found

    def stream(self, rows: Sequence[RecordedRow], turn: str) -> dict[str, float]:
        """Sends the rows once more; what was decided of them, by whom, and how much of it is right."""
        values = [json.dumps({"id": f"{turn}/{row.id}", "text": row.text}).encode() for row in rows]
        produce(self.pipeline.bootstrap_servers, self.pipeline.name, values, partitions=PARTITIONS)
        self.written += len(rows)
        deadline_s = time.monotonic() + SETTLED_WITHIN_S
        while len(found := self.finals()) < self.written:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{self.written - len(found):,} events have no decision")
            time.sleep(2)
        label = {f"{turn}/{row.id}": row.label for row in rows}
        mine = [decision for decision in found.values() if decision["id"] in label]
        by = Counter(decision["decided_by"] for decision in mine)
        right = [decision["answers"][TASK]["label"] == label[decision["id"]] for decision in mine]
        sure = [ok for ok, decision in zip(right, mine, strict=True) if decision["decided_by"] == "small"]
        found_ = {
            "policies": sorted({decision["policy"] for decision in mine}),
            "events": len(mine),
            "escalated": round(1 - by["small"] / len(mine), 4),
            "right": round(sum(right) / len(right), 4),
            "accepted_wrong": round(1 - sum(sure) / max(1, len(sure)), 4),
        }
        print(json.dumps({turn: found_}), file=sys.stderr, flush=True)
        return found_


def written(path: Path, rows: Sequence[RecordedRow]) -> None:
    """JSON Lines with all that calibration and a replay need."""
    lines = (
        {"id": row.id, "text": row.text, "label": row.label, "group": row.group, "llm": dict(row.llm)} for row in rows
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def prepared(folder: Path, films: Films) -> None:
    """All files that the commands are given, and version 1 of the model."""
    stream = [row for part in films.stream for row in part]
    written(folder / "base.jsonl", films.base)
    written(folder / "calibration.jsonl", films.calibration)
    written(folder / "half_b.jsonl", films.half_b)
    written(folder / "recorded.jsonl", [*stream, *films.half_b])
    written(folder / "texts.jsonl", films.unlabelled)
    data = TrainingSet(films.base, ["imdb_train, a tenth of its films"])
    train_rows(data, task=TASK, folder=folder / "models" / "films_fast", validation={}, curve=False)


def loop(run: Run, films: Films) -> dict[str, Any]:
    """Both rounds, between two streams of half B."""
    before = run.stream(films.half_b, "before")
    rounds, in_force = list[dict[str, Any]](), "policy"
    for number, part in enumerate(films.stream, 2):
        run.stream(part, f"taught {number}")
        found = one_round(run, films, number, in_force)
        in_force = in_force if found["promoted"] is None else f"challenger-{number}"
        rounds.append(found)
    after = run.stream(films.half_b, "after")
    back = None if in_force == "policy" else json.loads(run.shunt("rollback", "--json"))
    return {
        "before": before,
        "rounds": rounds,
        "after": after,
        "rollback": back,
        "saved": round(1 - after["escalated"] / before["escalated"], 4),
        "saved_aim": round(SAVED_MIN, 4),
        "events": run.written,
    }


def one_round(run: Run, films: Films, number: int, in_force: str) -> dict[str, Any]:
    """Version `number` of the model as a challenger: calibrated, shadowed, and promoted unless that is refused."""
    told = run.shunt(
        "distill", "--from-topic", "--task", TASK, "--name", "films_fast", "--base", "base.jsonl", "--held-out",
        "policy.json", "--held-out", "half_b.jsonl", "--unlabelled", "texts.jsonl", "--out", "models",
    )  # fmt: skip
    model = f"models/films_fast/{number}"
    learned = read_held_out(run.folder / model / LEARNED)
    if any(learned.holds_text(row.text) for row in (*films.half_b, *films.calibration)):
        raise SystemExit("something that is held out has taught")
    challenger = f"challenger-{number}"
    for ending in (".json", ".held-out.jsonl"):
        shutil.copy(run.folder / f"{in_force}{ending}", run.folder / f"{challenger}{ending}")
    run.shunt("calibrate", "calibration.jsonl", "--challenger", model, "--out", f"{challenger}.json")
    limit = str(SHADOWED)  # a shadow goes on where the last one ended: each round has so many to see
    shadow = run.shunt("run", "--shadow", "--policy", f"{challenger}.json", "--limit", limit, "--json")
    promoting = run.tried("promote", f"{challenger}.json", "--json")
    if promoting.returncode and "is not promoted" not in promoting.stderr:
        raise SystemExit(promoting.stderr)
    return {
        "learned": told.splitlines()[1:-2],
        "shadow": json.loads(shadow)["against_live"],
        "promoted": json.loads(promoting.stdout) if promoting.returncode == 0 else None,
        "refused": promoting.stderr.strip() if promoting.returncode else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.05)
    parser.add_argument("--draw", type=int, default=1, help="which tenth is trained on, which fifth calibrates")
    given = parser.parse_args()
    films = Films.of(evaluation_data(), given.draw)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        folder = Path(scratch)
        prepared(folder, films)
        stack = Stack(folder / "stack", llm=False, model_repository=folder / "models", load_models=["films_fast"])
        replay = StandInOptions(latency_median_ms=20, replay=folder / "recorded.jsonl", replay_names=(GPT,))
        llm = LlmServer(folder / "llm.log", replay)
        run_apart(stack.open())
        running.callback(lambda: run_apart(stack.close()))
        run_apart(llm.start())
        running.callback(lambda: run_apart(llm.process.stop()))
        pipeline = Pipeline(stack.bootstrap_servers, stack.triton_grpc, llm.base_url, "films", PARTITIONS)
        pipeline.create_topics()
        write_settings(
            folder,
            pipeline.name,
            bootstrap_servers=stack.bootstrap_servers,
            triton=stack.triton_grpc,
            llm_base_url=llm.base_url,
            task={"name": TASK, "tiers": ["films_fast"], "target_error": given.target},
            policy={"file": "policy.json"},
            llm={"usd_per_hour": 1_000.0, "usd_per_day": 1_000.0, "hint": False, "prune": False},
            endpoint={
                "model": GPT,
                "requests_per_minute": 60_000,
                "tokens_per_minute": 60_000_000,
                "usd_per_million_input": 1.0,
                "usd_per_million_output": 2.0,
            },
            web={"port": 0},
        )
        run = Run(folder, pipeline)
        run.shunt("calibrate", "calibration.jsonl", "--out", "policy.json")
        fleet = Fleet(folder)
        running.callback(fleet.abandon)
        fleet.add("fast", "classify")
        fleet.add("slow", "escalate")
        found = loop(run, films)
    print(json.dumps({"target": given.target, "labels": LABELS, **found}, indent=1))
    raise SystemExit(0 if found["saved"] >= SAVED_MIN else 1)


if __name__ == "__main__":
    main()

"""Makes the policy the demo ships with: `python -m stream_app.training.demo_policy DATA`.

DATA is the folder of the evaluation data. Only rows set aside for choosing are used: half A of the recorded
film reviews, the raw product reviews for validation, the toxicity validation set. The targets were chosen on
the same rows; half B and the test files are for measuring and are not opened here.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from stream_app.classify.triton import TritonModels
from stream_app.errors import ShuntError
from stream_app.local.demo.config import shipped_models_path, shipped_policy_path
from stream_app.local.stack import Stack
from stream_app.routing.policy import Policy, dump_policy
from stream_app.settings import Task
from stream_app.training.calibrate import calibrate_on
from stream_app.training.evaluate import helped
from stream_app.training.fitted import Terms
from stream_app.training.recorded import Half, RecordedFile, read_recorded
from stream_app.training.verdict import verdict

TASKS: Final = (
    Task(name="sentiment", tiers=("sentiment_fast", ("sentiment_fast", "sentiment_minilm")), target_error=0.05),
    Task(name="toxicity", tiers=("toxicity_fast",), target_error=0.06),
)
"""At 5 % a ninth of half A's film reviews goes to the LLM, and 1.1 points of accuracy come back (.943 to .954); at
4.5 %, with one half certifying for the other, a fifth more goes there and next to nothing comes back."""

DELTA: Final = 0.05 / len(TASKS)
"""All promises together hold with probability 95 %."""

LLMS: Final[dict[str, tuple[str, ...]]] = {"sentiment": ("gpt-3.5-turbo-1106",)}
"""Whose recorded answers say what asking is worth, for the task that has some to spare."""

TIMEOUT_S: Final = 60.0
"""Nothing waits for these answers, and other work may share the cores."""

Chosen = tuple[str, Half | None, str | None]
FILES: Final[dict[str, tuple[Chosen, ...]]] = {
    "sentiment": (("imdb_llm_calibration", "A", None), ("product_reviews_validation", None, "raw")),
    "toxicity": (("toxicity_validation", None, None),),
}
"""For each task: file, half of its groups, style of its rows; None takes all."""


async def demo_policy(data: Path, models: TritonModels, version: int) -> Policy:
    """Calibrate every task of the demo on the models served."""
    made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {}
    for task in TASKS:
        files = [_read(data, task.name, *chosen) for chosen in FILES[task.name]]
        terms = Terms(DELTA, made_at, each_file=True, llms=LLMS.get(task.name, ()))
        found = await calibrate_on(models, task, files, terms, lambda _: None)
        made[task.name] = found.task
        print(verdict(task.name, found.task, helped(found, terms.llms, terms.prices)), flush=True)
    return Policy(name="demo", version=version, made_at=made_at, tasks=made)


def _read(data: Path, task: str, name: str, half: Half | None, style: str | None) -> RecordedFile:
    file = read_recorded(data / f"{name}.jsonl.gz", task, half)
    return replace(file, rows=tuple(row for row in file.rows if style is None or row.style == style))


async def _run(data: Path) -> Policy:
    names = [name for task in TASKS for name in task.models]
    with TemporaryDirectory() as folder:
        stack = Stack.start(
            Path(folder), kafka=False, llm=False, model_repository=shipped_models_path(), load_models=names
        )
        async with stack as running, TritonModels.connect(running.triton_grpc, TIMEOUT_S) as models:
            return await demo_policy(data, models, version=1)


def main(arguments: Sequence[str]) -> int:
    """Write the shipped policy; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m stream_app.training.demo_policy DATA", file=sys.stderr)
        return 2
    try:
        policy = asyncio.run(_run(Path(arguments[0])))
    except ShuntError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    shipped_policy_path().write_bytes(dump_policy(policy))
    print(f"{policy.ref} is in {shipped_policy_path()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

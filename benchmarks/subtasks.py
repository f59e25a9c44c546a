"""Subtasks (Data Shunt+, arXiv 2406.15471): what asking only the unsure task saves, in tokens.

    SHUNT_DATA=DIR python -m benchmarks.subtasks

The tasks of `docs/examples/moderation` over product reviews: sentiment, toxicity and department, each certified (at
5 %, the fifteen departments at 10 %) on half A of `product_reviews_validation` (toxicity on `toxicity_validation`),
judged on half B. The prompts are rendered by the LLM lane's own prompter, hint, pruning and all, and counted by its
estimate. Beside it: the same events with all three tasks asked in one call, one call for each unsure task, and every
event with all three tasks asked (the LLM alone, plain prompts). Answers are counted as the JSON they
are. Prints one JSON object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.evaluation_data import evaluation_data
from stream_app.cli.escalations import Escalations
from stream_app.escalate.prompt import tokens_of
from stream_app.escalate.prompters import prompter_of
from stream_app.events import Answer, Ask, Escalation, Event, Source
from stream_app.local.demo.config import shipped_models_path
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Settings, Task
from stream_app.training.calibrate import calibrate_task
from stream_app.training.evaluation import answer_rows
from stream_app.training.fitted import Terms
from stream_app.training.folder import weights_sha256_in
from stream_app.training.recorded import RecordedFile, RecordedRow, read_recorded
from stream_app.training.rows import in_half_a
from stream_app.training.scoring import route_scored
from stream_app.training.shipped import joined_up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_app.routing.decide import Routed, TaskRouter

TASKS = {"sentiment": "sentiment_fast", "toxicity": "toxicity_fast", "department": "department_fast"}
TARGETS = {"sentiment": 0.05, "toxicity": 0.05, "department": 0.1}
MADE_AT = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Asking:
    """Tokens of one way to ask about an event."""

    input: int = 0
    output: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def __add__(self, other: Asking) -> Asking:
        return Asking(self.input + other.input, self.output + other.output)


class Prompts:
    """What asking costs, by the lane's own prompter."""

    def __init__(self, settings: Settings) -> None:
        plain = settings.model_copy(update={"llm": settings.llm.model_copy(update={"hint": False})})
        self._hinted, self._plain = prompter_of(settings), prompter_of(plain)

    def asking(self, escalation: Escalation, event: Event, *, plain: bool = False) -> Asking:
        """One call about all of an escalation's asks."""
        request = (self._plain if plain else self._hinted).render(escalation, event)
        answer = json.dumps({ask.task: ask.small.label for ask in escalation.asks})
        return Asking(request.input_tokens, tokens_of(len(answer)))


def reviews_of(data: Path) -> list[RecordedRow]:
    """Product reviews that name their department, as people write them."""
    rows = read_recorded(data / "product_reviews_validation.jsonl.gz", "sentiment").rows
    kept = [row for row in rows if row.domain is not None]
    return [replace(row, text=joined_up(row).text) for row in kept]


def scores_of(model: str, rows: Sequence[RecordedRow]) -> tuple[Scores, tuple[str, ...]]:
    found = answer_rows(shipped_models_path() / model, rows)
    return Scores(found.probabilities, found.known_shares), found.labels


@dataclass(frozen=True, slots=True)
class Reviews:
    """What the three tasks made of reviews: a batch of outcomes for each router."""

    settings: Settings
    escalations: Escalations
    routers: tuple[TaskRouter, ...]
    rows: Sequence[RecordedRow]
    routed: Sequence[Routed]

    def event(self, place: int) -> Event:
        row = self.rows[place]
        return Event(row.id, row.text, b"{}", Source(self.settings.kafka.input_topic, 0, place, 0), key=None)

    def all_asked(self, place: int) -> Escalation:
        """Every task with all its labels, whatever the small models are sure of; their answers are not told."""
        asks = list[Ask]()
        for router, routed in zip(self.routers, self.routed, strict=True):
            label = router.labels[int(routed.label[place])]
            small = Answer(label, 1.0, {}, None, "small", router.tiers[0].ref, None, None)
            asks.append(Ask(router.task, router.labels, small, "unsure"))
        tasks = tuple(ask.task for ask in asks)
        return Escalation(self.event(place).source, tasks, tuple(asks), {}, None, 0, 0, 0)


def routed(data: Path) -> Reviews:
    """Each task calibrated on its half A; what it makes of the reviews' half B."""
    rows = reviews_of(data)
    first = [row for row in rows if in_half_a(row)]
    second = [row for row in rows if not in_half_a(row)]
    named = {
        "sentiment": first,
        "department": [replace(row, label=row.domain or "") for row in first],
        "toxicity": list(read_recorded(data / "toxicity_validation.jsonl.gz", "toxicity").rows),
    }
    served, made, outcomes = dict[str, ServedModel](), dict[str, object](), list[Scores]()
    tasks = [Task(name=name, tiers=(model,), target_error=TARGETS[name]) for name, model in TASKS.items()]
    for task in tasks:
        model = TASKS[task.name]
        scores, labels = scores_of(model, named[task.name])
        served[model] = ServedModel(model, "1", labels, weights_sha256_in(shipped_models_path() / model), 1)
        file = RecordedFile(task.name, "0" * 64, tuple(named[task.name]))
        terms = Terms(0.05 / len(TASKS), MADE_AT)
        made[task.name] = calibrate_task(task, [file], served, {model: scores}, terms).task
        outcomes.append(scores_of(model, second)[0])
    policy = Policy(name="moderation", version=1, made_at=MADE_AT, tasks=made)  # pyright: ignore[reportArgumentType]
    routers = task_routers(tasks, served, policy)
    texts = [row.text for row in second]
    settings = Settings.model_validate({"tasks": [task.model_dump() for task in tasks]})
    found = [
        route_scored(router, texts, {TASKS[router.task]: scores})
        for router, scores in zip(routers, outcomes, strict=True)
    ]
    return Reviews(settings, Escalations(settings, routers, policy.ref), routers, second, found)


def everything(escalation: Escalation, labels: dict[str, tuple[str, ...]]) -> Escalation:
    """The same event with every task asked, with all its labels, and the hints of all."""
    sure = [Ask(task, labels[task], answer, "unsure") for task, answer in escalation.sure.items()]
    asks = {ask.task: replace(ask, labels=labels[ask.task]) for ask in (*escalation.asks, *sure)}
    return replace(escalation, asks=tuple(asks[task] for task in escalation.tasks), sure={})


def apart(escalation: Escalation) -> list[Escalation]:
    """An escalation for each unsure task, as if the others were unknown."""
    return [replace(escalation, asks=(ask,), sure={}) for ask in escalation.asks]


def main() -> None:
    reviews = routed(evaluation_data())
    prompts = Prompts(reviews.settings)
    labels = {router.task: router.labels for router in reviews.routers}
    ours = together = each = alone = Asking()
    asked = tasks = 0
    for place in range(len(reviews.rows)):
        event = reviews.event(place)
        alone += prompts.asking(reviews.all_asked(place), event, plain=True)
        escalation = reviews.escalations.of(place, event, reviews.routed)
        if escalation is None:
            continue
        asked += 1
        tasks += len(escalation.asks)
        ours += prompts.asking(escalation, event)
        together += prompts.asking(everything(escalation, labels), event)
        for one in apart(escalation):
            each += prompts.asking(one, event)
    ways = {"all_three_of_the_unsure": together, "one_call_for_each_unsure_task": each, "llm_alone": alone}
    accepted = zip(labels, reviews.routed, strict=True)
    told = {
        "reviews": len(reviews.rows),
        "asked": asked,
        "tasks_asked": tasks,
        "accepted": {task: round(float(one.accepted.mean()), 4) for task, one in accepted},
        "tokens": {name: {"input": way.input, "output": way.output} for name, way in {"shunt": ours, **ways}.items()},
        "saved_against": {name: round(1 - ours.tokens / way.tokens, 4) for name, way in ways.items()},
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()

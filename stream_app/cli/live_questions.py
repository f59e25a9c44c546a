"""The variants of a live evaluation: one escalation asked without hint, with it, and with pruned labels. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from stream_app.cli.escalations import Escalations
from stream_app.escalate.budget import NANO
from stream_app.escalate.endpoint_facts import REASONING_MODEL
from stream_app.escalate.prompt import tokens_of
from stream_app.escalate.prompters import prompter_of
from stream_app.events import Event, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_app.escalate.prices import Price
    from stream_app.escalate.prompt import Request
    from stream_app.events import Ask, Escalation
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.settings import Settings
    from stream_app.training.recorded import RecordedRow


class Variant(StrEnum):
    """A way to ask, the plainest first."""

    PLAIN = "plain"  # every label, no hint
    HINT = "hint"  # every label, the small model's probabilities
    PRUNED = "pruned"  # the labels that the small model has not ruled out, with its probabilities: as the worker asks


@dataclass(frozen=True, slots=True)
class LiveRow:
    """An escalated row of the file, as the worker would send it to the LLM lane."""

    place: int
    truth: str
    event: Event
    escalation: Escalation

    @property
    def ask(self) -> Ask:
        """The one task that is asked."""
        return self.escalation.asks[0]


def live_rows(
    settings: Settings, router: TaskRouter, policy: str, rows: Sequence[RecordedRow], routed: Routed
) -> list[LiveRow]:
    """The rows that the policy escalates, their labels pruned whatever the settings say."""
    pruning = _with(settings, prune=True)
    escalations = Escalations(pruning, (router,), policy)
    found: list[LiveRow] = []
    for place, row in enumerate(rows):
        event = Event(row.id, row.text, b"{}", Source(settings.kafka.input_topic, 0, place, 0), key=None)
        escalation = escalations.of(place, event, [routed])
        if escalation is not None:
            found.append(LiveRow(place, row.label, event, escalation))
    return found


class Questions:
    """Renders rows in the variants, by the worker's own prompter with other options."""

    def __init__(self, settings: Settings, router: TaskRouter, variants: Sequence[Variant]) -> None:
        """Raises SettingsError as `prompter_of` does."""
        self._variants = variants
        self._labels = (*router.labels, *router.llm_only)
        self._plain = prompter_of(_with(settings, hint=False))
        self._hinting = prompter_of(_with(settings, hint=True))

    def labels(self, row: LiveRow, variant: Variant) -> tuple[str, ...]:
        """What the LLM may answer."""
        return row.ask.labels if variant is Variant.PRUNED else self._labels

    def of(self, row: LiveRow) -> dict[Variant, Request]:
        """The row's request in every variant."""
        return {variant: self._render(row, variant) for variant in self._variants}

    def _render(self, row: LiveRow, variant: Variant) -> Request:
        ask = replace(row.ask, labels=self.labels(row, variant))
        prompter = self._plain if variant is Variant.PLAIN else self._hinting
        return prompter.render(replace(row.escalation, asks=(ask,)), row.event)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking may cost, before anything was asked: tokens are guessed from characters."""

    requests: int
    usd: float


def estimated(questions: Questions, rows: Iterable[LiveRow], price: Price, model: str) -> Estimate:
    """An estimate over the different requests of all rows. An answer of labels alone is as long as its JSON;
    one with a reason or more, or of a model that reasons, may take all it is allowed.
    """
    seen: set[bytes] = set()
    nusd = 0
    for row in rows:
        for request in questions.of(row).values():
            if request.fingerprint not in seen:
                seen.add(request.fingerprint)
                nusd += price.cost_nusd(request.input_tokens, _output_tokens(request, model))
    return Estimate(len(seen), nusd / NANO)


def _output_tokens(request: Request, model: str) -> int:
    if request.form.keys or REASONING_MODEL.match(model):
        return request.output_tokens_max
    return min(request.output_tokens_max, tokens_of(len(orjson.dumps(request.longest_answer))))


def _with(settings: Settings, **llm: object) -> Settings:
    return settings.model_copy(update={"llm": settings.llm.model_copy(update=llm)})

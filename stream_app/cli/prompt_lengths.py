"""How much longer the LLM lane's prompts are than plain ones: hint and pruned labels, as the settings have them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_app.cli.escalations import Escalations
from stream_app.escalate.prompters import prompter_of
from stream_app.events import Event, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.settings import Settings
    from stream_app.training.recorded import RecordedRow


def extra_tokens(
    settings: Settings, router: TaskRouter, policy: str, rows: Sequence[RecordedRow], routed: Routed
) -> list[int]:
    """By how many input tokens each escalated row's prompt is longer than one with every label and no hint, in order.

    Both are rendered by the lane's own prompter, and its estimate of tokens is taken. Raises SettingsError as
    `prompter_of` does.
    """
    plainly = settings.model_copy(update={"llm": settings.llm.model_copy(update={"hint": False})})
    asked, plain = prompter_of(settings), prompter_of(plainly)
    escalations = Escalations(settings, (router,), policy)
    every = (*router.labels, *router.llm_only)
    found: list[int] = []
    for place, row in enumerate(rows):
        event = Event(row.id, row.text, b"{}", Source(settings.kafka.input_topic, 0, place, 0), key=None)
        escalation = escalations.of(place, event, [routed])
        if escalation is not None:
            unpruned = replace(escalation, asks=tuple(replace(ask, labels=every) for ask in escalation.asks))
            longer = asked.render(escalation, event).input_tokens - plain.render(unpruned, event).input_tokens
            found.append(longer)
    return found

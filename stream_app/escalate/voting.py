"""What the votes cast for an event's tasks come to, and for which of them another vote is worth asking for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stream_app.routing.votes import Opinions

if TYPE_CHECKING:
    from stream_app.events import Ask, Said, VoteRule

Cast = Mapping[str, "Said | None"]
"""What each LLM that was asked says of a task, in the order of asking; None where it gave no usable answer."""


def voted(ask: Ask, chars: int, cast: Cast) -> Said:
    """The task's label, for a text of so many characters: weighed where its rule has weights for just these voters.

    Else the first that answered is obeyed; without any answer the small model's label stands.
    """
    weighed = None if ask.votes is None else opinions(ask.votes, ask, chars, cast).label()
    if weighed is not None:
        return weighed
    return next((said for said in cast.values() if said is not None), ask.small.label)


def worth(ask: Ask, chars: int, cast: Cast, llm: str) -> float:
    """What that LLM's opinion too is expected to add to the chance of being right; 0 where the rule does not ask.

    With costs: what it is expected to save, in parts of the dearest wrong answer.
    """
    if ask.votes is None:
        return 0.0
    together = opinions(ask.votes, ask, chars, cast)
    return together.worth(llm) / _dearest(ask.votes) if together.asks(llm) else 0.0


def opinions(rule: VoteRule, ask: Ask, chars: int, cast: Cast) -> Opinions:
    """The votes as a rule weighs them: it is about one label, and lists of labels have none."""
    labels = {llm: said if isinstance(said, str) else None for llm, said in cast.items()}
    return Opinions(rule, ask.small.probabilities, chars, labels)


def _dearest(rule: VoteRule) -> float:
    """What the dearest wrong answer costs: 1 where all cost the same."""
    missed = max((cost.missed for cost in rule.costs.values()), default=1.0)
    false_alarm = max((cost.false_alarm for cost in rule.costs.values()), default=0.0)
    return missed + false_alarm or 1.0

"""What an LLM's answer would count for, and where a second opinion would be asked for, in words for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from stream_app.escalate.voting import opinions, voted

if TYPE_CHECKING:
    from stream_app.events import Ask, Escalation, VoteRule
    from stream_app.settings import Llm


def votes_shown(escalation: Escalation, chars: int, llm: Llm) -> list[Text]:
    """A line for each answer that the first LLM may give, of tasks whose votes are weighed; none where none is.

    With an endpoint for second opinions each says whether it would be asked.
    """
    lines: list[Text] = []
    for ask in escalation.asks:
        if ask.votes is not None:
            answers = (*ask.labels, None)
            lines += [_line(ask, ask.votes, chars, llm, said) for said in answers]
        elif (second := llm.second_opinion) is not None:
            lines.append(Text(f"{ask.task}: the answer is taken as it is, and {second.model} is not asked", "dim"))
    return lines


def _line(ask: Ask, rule: VoteRule, chars: int, llm: Llm, said: str | None) -> Text:
    """One possible answer; None is a refusal."""
    cast = {llm.endpoints[0].model: said}
    line = Text(f"{ask.task}: if it says ") if said is not None else Text(f"{ask.task}: if it gives ")
    line.append(said or "no answer", "bold")
    alone = "the small model's stands" if said is None else f"the answer is {voted(ask, chars, cast)}"
    second = llm.second_opinion
    if second is None:
        return line.append(f", {alone}")
    together = opinions(rule, ask, chars, cast)
    worth = f"worth {100 * together.worth(second.model):.1f} points, {100 * rule.worth_min:.1f} needed"
    if rule.costs:
        worth = f"saves {together.worth(second.model):.3g} of the costs, {rule.worth_min:.3g} needed"
    if together.asks(second.model):
        return line.append(f", {second.model} is asked too ({worth}); without it {alone}", "magenta")
    return line.append(f", {alone}; {second.model} is not asked ({worth})")

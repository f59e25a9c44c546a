"""One line for one outcome: by which route, what was decided and how sure, how long, how much, which text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from stream_app.local.demo.outcomes import Dead, Decided, Outcome, Passed
from stream_app.local.demo.words import duration, excerpt, usd

if TYPE_CHECKING:
    from stream_app.local.demo.outcomes import Reply

ROUTE_CELLS, LATENCY_CELLS, COST_CELLS = 9, 8, 10
DECISION_CELLS_MIN, DECISION_CELLS_MAX = 28, 50
GOOD_LABELS = frozenset({"positive", "not_toxic"})
STYLES = {"small": "green", "LLM": "bold magenta", "degraded": "yellow", "DLQ": "bold red", "deleted": "dim"}

LEGEND = (
    "small: the small models were sure · LLM: they were not, and the LLM decided (← what they leaned to) · "
    "DLQ: not an event"
)


def route_of(outcome: Outcome) -> str:
    """The word in front of the line."""
    match outcome:
        case Dead():
            return "DLQ"
        case Passed():
            return "deleted"
        case Decided(degraded_reason=str()):
            return "degraded"
        case Decided():
            return "LLM" if outcome.decided_by == "llm" else "small"


def outcome_line(outcome: Outcome, text: str, width: int) -> Text:
    """The line for an outcome, never wider than `width` cells; `text` is what was sent."""
    route = route_of(outcome)
    decision_cells = max(DECISION_CELLS_MIN, min(DECISION_CELLS_MAX, width * 3 // 8))
    line = Text(no_wrap=True, overflow="ellipsis", end="")
    line.append_text(_cell(Text(route, STYLES[route]), ROUTE_CELLS))
    line.append_text(_cell(decision_words(outcome), decision_cells))
    line.append_text(_cell(Text(_latency(outcome), "dim"), LATENCY_CELLS, right=True))
    line.append_text(_cell(Text(_cost(outcome), "magenta"), COST_CELLS, right=True))
    shown = outcome.value_start if isinstance(outcome, Dead) else text
    line.append("  ").append(excerpt(shown), "dim" if route == "DLQ" else "")
    line.truncate(width, overflow="ellipsis")
    line.rstrip()
    return line


def decision_words(outcome: Outcome) -> Text:
    """The labels with what the small models thought of them, or why there are none."""
    match outcome:
        case Dead():
            return Text(outcome.cause or outcome.message, "red")
        case Passed():
            return Text("a null value passes as a tombstone", "dim")
        case Decided():
            return Text(" · ", "dim").join(_reply_words(reply) for reply in outcome.replies)


def _reply_words(reply: Reply) -> Text:
    """`positive 98%`; where the LLM took part `negative ← positive 61%`, or `negative ← 61%` if it agreed."""
    words = Text(reply.label, "green" if reply.label in GOOD_LABELS else "red")
    if not reply.probabilities:
        return words
    small = reply.small_label
    share = f"{100 * reply.probabilities[small]:.0f}%"
    small_too = share if small == reply.label else f"{small} {share}"
    return words.append(f" {small_too}" if reply.decided_by == "small" else f" ← {small_too}", "dim")


def _latency(outcome: Outcome) -> str:
    return duration(outcome.latency_ms) if isinstance(outcome, Decided) else ""


def _cost(outcome: Outcome) -> str:
    if not isinstance(outcome, Decided) or outcome.call is None:
        return ""
    return "cached" if outcome.call.cached else usd(outcome.call.cost_usd)


def _cell(content: Text, cells: int, *, right: bool = False) -> Text:
    """The content in exactly so many cells (wide letters take two), one of them kept free."""
    content = content.copy()
    content.truncate(cells - 1, overflow="ellipsis")
    free = Text(" " * max(0, cells - content.cell_len))
    return free + content if right else content + free

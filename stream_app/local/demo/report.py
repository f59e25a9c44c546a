"""What the demo says at its end: the balance as a table, and three decisions told in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream_app.local.demo.lines import route_of
from stream_app.local.demo.outcomes import Dead, Decided, Outcome
from stream_app.local.demo.words import duration, excerpt, percent, plural, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rich.console import RenderableType

    from stream_app.local.demo.audit import Audit
    from stream_app.local.demo.options import DemoLlm
    from stream_app.local.demo.outcomes import Reply
    from stream_app.local.demo.summary import Quantiles, Summary

BAR_CELLS = 18
BARS_WIDTH_MIN = 100
DECIDING = frozenset({"green", "magenta", "yellow"})
"""The styles of rows that are decisions: shares are of these."""
STORY_CHARS = 320


def balance(
    summary: Summary, *, llm: DemoLlm, seconds: float, audit: Audit | None, calls_made: int | None, width: int
) -> RenderableType:
    """The table: decided by whom, how fast, for how much; and what follows from it.

    `calls_made` is the stand-in's own count, `width` the terminal's.
    """
    parts: list[RenderableType] = [_routes(summary, llm.shown_name, bars=width >= BARS_WIDTH_MIN)]
    facts = [*_accounted(summary, audit), *_conclusions(summary, llm, seconds, calls_made)]
    parts += [Text(), _facts(facts)]
    title = f"[bold]{plural(summary.sent, 'record')} in, {plural(summary.sent - summary.missing, 'outcome')} out"
    return Panel(Group(*parts), title=title, box=ROUNDED, padding=(1, 2), expand=False)


def examples(outcomes: Iterable[Outcome], texts: Mapping[str, str]) -> RenderableType:
    """Three told in full: an easy one, one the LLM decided, and one that went another way."""
    seen = list(outcomes)
    easy = _best((one for one in seen if route_of(one) == "small"), texts)
    asked = _best((one for one in seen if route_of(one) == "LLM"), texts)
    other = next((one for one in seen if route_of(one) == "degraded"), None)
    other = other or next((one for one in seen if isinstance(one, Dead)), None)
    told = [("easy", easy), ("unsure", asked), ("not as usual", other)]
    return Group(*(_story(title, one, texts) for title, one in told if one is not None))


def next_commands(config: Path, page: str | None) -> RenderableType:
    """Where to go from here; while the stack is up, where to look."""
    rows: list[tuple[str, Text]] = []
    if page is not None:
        rows += [
            ("live page", Text(page, "bold cyan")),
            ("read on", Text(f"shunt --config {config} consume", "cyan")),
            ("end", Text("Ctrl-C")),
        ]
    rows += [
        ("one text", Text('shunt try "Not bad at all!"', "cyan")),
        ("your own", Text("shunt stack up, then shunt init", "cyan")),
    ]
    return _facts(rows)


def _accounted(summary: Summary, audit: Audit | None) -> Iterable[tuple[str, Text]]:
    """Lost and twice, as our reader counted and, where it was asked, as Kafka's own did."""
    ours = _verdict(summary.missing, summary.extra)
    yield "accounted for", ours.append(", as read back from the output topics", "not bold default")
    if audit is not None:
        theirs = _verdict(audit.lost, audit.duplicated)
        words = f", as Kafka's own console consumer counts: {audit.sent:,} records sent, {audit.closing:,} outcomes"
        yield "after kill -9", theirs.append(words, "not bold default")


def _verdict(lost: int, twice: int) -> Text:
    return Text(f"{lost} lost, {twice} twice", "bold green" if lost == twice == 0 else "bold red")


def _routes(summary: Summary, llm_name: str, *, bars: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", caption_justify="left")
    table.caption = "p50, p99: from a record's timestamp to its decision"
    table.add_column("decided by")
    for heading in ("records", "share", "p50", "p99", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    for name, style, count, cells in _route_rows(summary, llm_name):
        share = count / summary.decisions if style in DECIDING and summary.decisions else None
        bar = "" if share is None else "█" * round(BAR_CELLS * share) or ("▏" if count else "")
        shown = [f"{count:,}", "" if share is None else percent(share), *cells, *([Text(bar, style)] if bars else [])]
        table.add_row(Text(name, style), *shown)
    return table


def _route_rows(summary: Summary, llm_name: str) -> Iterable[tuple[str, str, int, tuple[str, str, str]]]:
    """Who decided, its style, how many records, and p50, p99 and cost."""
    yield "the small models", "green", summary.accepted, (*_times(summary.latency_small_ms), "$0")
    yield llm_name, "magenta", summary.by_llm, (*_times(summary.latency_llm_ms), usd(summary.cost_usd))
    for reason, count in summary.degraded.items():
        yield f"small, without the LLM ({reason})", "yellow", count, ("", "", "")
    if summary.dlq:
        yield "nobody (dead letters)", "red", summary.dlq, ("", "", "")
    if summary.tombstones:
        yield "nobody (tombstones)", "dim", summary.tombstones, ("", "", "")


def _times(latency: Quantiles) -> tuple[str, str]:
    return duration(latency.p50), duration(latency.p99)


def _causes(dead_letters: Mapping[str, int]) -> Text:
    return Text(", ".join(f"{cause} {count}" for cause, count in dead_letters.items()))


def _facts(rows: list[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, words in rows:
        table.add_row(name, words)
    return table


def _conclusions(
    summary: Summary, llm: DemoLlm, seconds: float, calls_made: int | None
) -> Iterable[tuple[str, Text]]:
    share = Text(f"{percent(summary.share_escalated)} of decisions went to the LLM lane")
    if summary.dead_letters:
        yield "dead letters", _causes(summary.dead_letters)
    yield "escalated", share.append(_why_escalated(summary), "dim")
    yield "cost", _cost_words(summary)
    if calls_made is not None and calls_made > summary.llm_calls:
        vain = f"{plural(calls_made - summary.llm_calls, 'call')} more than decisions used"
        yield "paid in vain", Text(f"{vain}: under way when a worker was killed, or asked again")
    if summary.small_accuracy is not None:
        yield "accuracy", _accuracy_words(summary, llm)
    yield "speed", Text(f"{summary.sent / max(seconds, 1e-9):,.0f} records/s over {seconds:.1f} s")


def _why_escalated(summary: Summary) -> str:
    if not summary.out_of_domain:
        return ""
    return f" ({summary.out_of_domain:,} because their texts are unlike what the policy was calibrated on)"


def _cost_words(summary: Summary) -> Text:
    words = Text(usd(summary.cost_usd), "bold")
    words.append(f" for {plural(summary.llm_calls, 'call')}", "not bold default")
    if summary.cached:
        words.append(f" and {plural(summary.cached, 'cached answer')}")
    if summary.llm_only_usd is not None and summary.share_saved is not None:
        words.append("; the LLM for every text (estimate): about ").append(usd(summary.llm_only_usd))
        saved = summary.share_saved
        words.append(f", so {percent(abs(saved), 0)} {'less' if saved >= 0 else 'more'}", "bold")
    if summary.llm_only_bare_usd:
        words.append(f"; in a bare prompt {usd(summary.llm_only_bare_usd)}", "dim")
    return words


def _accuracy_words(summary: Summary, llm: DemoLlm) -> Text:
    if llm.follows_rule:
        words = Text(f"{percent(summary.accuracy)} of the small models' decisions are right", "bold")
        rest = f" (had they decided all: {percent(summary.small_accuracy)}); a stand-in's answers are not judged"
    else:
        words = Text(f"{percent(summary.accuracy)} of decisions are right", "bold")
        rest = f"; the small models alone: {percent(summary.small_accuracy)}"
    return words.append(rest, "not bold default")


def _best(candidates: Iterable[Outcome], texts: Mapping[str, str]) -> Decided | None:
    """One with a text that is neither a word nor a novel, overturned by the LLM where there is such a one."""
    decided = [one for one in candidates if isinstance(one, Decided)]
    return min(decided, key=lambda one: (not _overturned(one), abs(len(texts.get(one.id, "")) - 180)), default=None)


def _overturned(one: Decided) -> bool:
    return any(reply.label != reply.small_label for reply in one.replies)


def _story(title: str, one: Outcome, texts: Mapping[str, str]) -> Panel:
    if isinstance(one, Dead):
        shown = _dead_story(one)
        return Panel(shown, title=f"[red]{title}[/]: a dead letter", title_align="left", box=ROUNDED, style="")
    if not isinstance(one, Decided):
        return Panel("", title=title)
    text = excerpt(texts.get(one.id, ""))
    quote = Text(f"“{text[:STORY_CHARS]}{'…' if len(text) > STORY_CHARS else ''}”", "italic")
    facts = _facts([(reply.task, _why(reply)) for reply in one.replies] + list(_footing(one)))
    heading = f"[bold]{title}[/]: {one.id}, decided by {route_of(one)} after {duration(one.latency_ms)}"
    return Panel(Group(quote, Text(), facts), title=heading, title_align="left", box=ROUNDED)


def _dead_story(one: Dead) -> RenderableType:
    quote = Text(excerpt(one.value_start)[:STORY_CHARS], "italic")
    facts = _facts([("record", Text(one.source)), ("cause", Text(f"{one.cause}: {one.message}", "red"))])
    kept = Text("Key, value and headers are kept byte for byte on the dead-letter topic.", "dim")
    return Group(quote, Text(), facts, kept)


def _why(reply: Reply) -> Text:
    """One task's answer and the reason for it."""
    label = Text(reply.label, "bold")
    small = reply.small_label
    probability = reply.probabilities.get(small)
    sure = "" if probability is None else f"{small} {percent(probability)}"
    cut = "" if reply.threshold is None else f", needed {percent(reply.threshold)}"
    if reply.escalated_because is None:
        return label.append(f"  {reply.model} was sure: {sure}{cut}", "not bold dim")
    reason = "unlike the calibration texts" if reply.escalated_because == "out_of_domain" else "not sure enough"
    label.append(f"  {reason}: {sure}{cut}", "not bold dim")
    votes = ", ".join(f"{model}: {vote or 'no answer'}" for model, vote in (reply.votes or {}).items())
    return label.append(f"\nvotes  {votes}", "not bold dim") if votes else label


def _footing(one: Decided) -> Iterable[tuple[str, Text]]:
    if one.call is not None:
        call = one.call
        tokens = f"{call.input_tokens} + {call.output_tokens} tokens"
        yield "call", Text(f"{call.model}, {tokens}, {usd(call.cost_usd)}, {duration(call.latency_ms)}", "dim")
    if one.degraded_reason is not None:
        yield "degraded", Text(f"the small answer stands: {one.degraded_reason}", "yellow")
    certified = {True: "certified", False: "not certified", None: "nothing to certify"}[one.certified]
    yield "policy", Text(f"{one.policy or 'none'}, {certified}", "dim")

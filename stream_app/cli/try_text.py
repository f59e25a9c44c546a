"""`shunt try`: one text through tiers, threshold, domain check and prompt, step by step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from stream_app.classify.start import deciding
from stream_app.cli.trace import trace
from stream_app.cli.votes_shown import votes_shown
from stream_app.escalate.prices import price_of
from stream_app.escalate.prompters import prompter_of
from stream_app.events import in_words
from stream_app.local.demo import config as shipped
from stream_app.local.demo.options import DemoLlm, DemoOptions, choose_llm
from stream_app.local.demo.screen import console
from stream_app.local.demo.words import duration, excerpt, percent, plural, usd
from stream_app.local.stack import Stack, StackInfo
from stream_app.routing.decide import Route
from stream_app.settings import load_settings, settings_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from rich.console import Console, RenderableType

    from stream_app.cli.trace import TaskTrace, TierStep, Trace
    from stream_app.escalate.prompt import Request
    from stream_app.events import Cut
    from stream_app.routing.models import Scores
    from stream_app.settings import Settings

NANO = 1e9


@click.command(name="try")
@click.argument("text")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The settings file.")
@click.pass_context
def try_(ctx: click.Context, text: str, config: Path | None) -> None:
    """Show what would become of TEXT: each tier's answer, the cut it is held to, and the LLM's prompt.

    Asks the Triton that the settings name. Without a settings file, starts one with the shipped models. No LLM
    is called.
    """
    asyncio.run(_try(config or ctx.obj, text, console(stderr=False)))


async def _try(path: Path | None, text: str, screen: Console) -> None:
    own = path is not None or settings_path().is_file()
    async with _settings(path, screen) as settings, deciding(settings, in_force=own) as parts:
        traced = await trace(settings, parts, text)
        screen.print(told(traced, settings))


@asynccontextmanager
async def _settings(path: Path | None, screen: Console) -> AsyncGenerator[Settings]:
    """The user's settings, or the demo's on a Triton of our own that ends with the block."""
    if path is not None or settings_path().is_file():
        yield load_settings(path)
        return
    shipped.require_platform()
    policy = shipped.shipped_policy()
    tasks = frozenset(policy.tasks)
    folder = Path(tempfile.mkdtemp(prefix="shunt-try-"))
    models = shipped.models_of(policy, tasks)
    stack = Stack(folder, kafka=False, llm=False, model_repository=shipped.shipped_models_path(), load_models=models)
    try:
        with screen.status("No settings file here: starting Triton with the shipped models …"):
            await stack.open()
        file = folder / "shunt.toml"
        file.write_text(
            shipped.settings_text(policy, tasks, _anywhere(stack.info), _llm(), web_port=0), encoding="utf-8"
        )
        yield load_settings(file)
    finally:
        await stack.close()
        shutil.rmtree(folder, ignore_errors=True)


def _llm() -> DemoLlm:
    return choose_llm(DemoOptions())


def _anywhere(info: StackInfo) -> StackInfo:
    """The settings need addresses of what is not asked here."""
    return StackInfo("127.0.0.1:9092", info.triton_grpc, info.triton_http, "http://127.0.0.1:9000/v1", info.dir)


def told(traced: Trace, settings: Settings) -> RenderableType:
    """The whole story of a text, for a terminal."""
    parts: list[RenderableType] = [Text(f"“{excerpt(traced.event.text)}”", "italic"), Text()]
    for task in traced.tasks:
        parts += [*_task(task), Text()]
    parts += _ending(traced, settings)
    return Group(*parts)


def _task(task: TaskTrace) -> list[Text]:
    router = task.router
    heading = Text(router.task, "bold").append(f"  {' or '.join((*router.labels, *router.llm_only))}", "not bold dim")
    lines = [heading, *_domain(task)]
    for number, step in enumerate(task.steps, 1):
        lines += _step(
            number, step, router.labels, last=number == len(router.tiers), foreign=task.route is Route.OUT_OF_DOMAIN
        )
    return lines


def _domain(task: TaskTrace) -> list[Text]:
    """Whether the text is like those the policy was calibrated on."""
    router = task.router
    if router.policy is None:
        return []
    words = Text("  domain  ")
    if not task.script_known:
        return [words.append("letters the calibration texts are not written in", "yellow")]
    known = f"{percent(task.known_share, 0)} of its words are known, {percent(router.known_share_min, 0)} needed"
    return [words.append(known, "yellow" if task.route is Route.OUT_OF_DOMAIN else "green")]


def _step(number: int, step: TierStep, labels: Sequence[str], *, last: bool, foreign: bool) -> list[Text]:
    """One tier: what its models said, what that is worth, and what follows."""
    line = Text(f"  tier {number}  ").append(in_words(step.label), "bold")
    sure = percent(step.confidence)
    line.append(f" {sure}" if isinstance(step.label, str) else f", each label at least {sure} sure", "bold")
    line.append(" calibrated, " if step.tier.knots is not None or len(step.scores) > 1 else ", ", "not bold dim")
    line.append(_needed(step.threshold), "not bold dim")
    if foreign:
        line.append("  → not trusted on such a text: escalated", "yellow")
    elif step.accepted:
        line.append("  → accepted", "green")
    else:
        line.append("  → not sure: escalated" if last else "  → not sure: next tier", "yellow")
    raw = [f"{ref} says {_listed(labels, scores)}" for ref, scores in step.scores.items()]
    return [line, Text(f"          {'; '.join(raw)}", "dim")]


def _needed(cut: Cut) -> str:
    """What the tier is held against."""
    if isinstance(cut, dict):
        own = {label: "never accepted" if one is None else percent(one) for label, one in cut.items()}
        if len(set(own.values())) > 1:
            return ", ".join(f"{label} {needed}" for label, needed in own.items()) + " needed"
        cut = next(iter(cut.values()), None)
    return "accepts nothing" if cut is None else f"{percent(cut)} needed"


def _listed(labels: Sequence[str], scores: Scores) -> str:
    shares: list[float] = scores.probabilities[0].tolist()
    return ", ".join(f"{label} {share:.3f}" for label, share in zip(labels, shares, strict=True))


def _ending(traced: Trace, settings: Settings) -> list[RenderableType]:
    took = f"the small models took {duration(traced.took_ms)}"
    escalation = traced.escalation
    if escalation is None:
        labels = ", ".join(f"{task.router.task} {in_words(task.steps[-1].label)}" for task in traced.tasks)
        return [Text(f"Decided: {labels}. ", "bold green").append(f"No LLM call; {took}.", "not bold default")]
    asked = ", ".join(ask.task for ask in escalation.asks)
    sure = ", ".join(f"{task} {in_words(answer.label)}" for task, answer in escalation.sure.items())
    line = Text(f"To the LLM: {asked}", "bold magenta")
    line.append(f"; sure already: {sure}" if sure else "").append(f"; {took}.", "not bold default")
    request = prompter_of(settings).render(escalation, traced.event)
    votes = votes_shown(escalation, len(traced.event.text), settings.llm)
    return [line, Text(), *_prompt(request, settings), *votes]


def _prompt(request: Request, settings: Settings) -> list[RenderableType]:
    endpoint = settings.llm.endpoints[0]
    most = price_of(endpoint).cost_nusd(request.input_tokens, request.output_tokens_max) / NANO
    first = " (the first endpoint)" if len(settings.llm.in_turn) > 1 else ""
    tokens = plural(request.input_tokens, "token")
    title = f"what {endpoint.model}{first} would be asked: about {tokens}, at most {usd(most)}"
    labels = "; ".join(
        f"{task}: {'any of ' if task in request.any_of else ''}{' or '.join(allowed)}"
        for task, allowed in request.allowed.items()
    )
    return [
        Panel(
            Text(request.system), title=title, title_align="left", subtitle="system message", border_style="magenta"
        ),
        Panel(Text(request.user), subtitle="user message", border_style="magenta"),
        Text(f"The answer's form allows nothing but  {labels}", "dim"),
    ]

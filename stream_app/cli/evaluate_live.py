"""`shunt evaluate --live`: what hint and pruning are worth with the user's own LLM, measured under a dollar cap."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import sys
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import click
import orjson

from stream_app.cli.live_asking import LiveAsking, Stopped
from stream_app.cli.live_questions import Questions, Variant, estimated, live_rows
from stream_app.cli.live_shown import Asked, Report, as_object, as_text, row_lines
from stream_app.cli.scoring_bar import scoring_bar
from stream_app.errors import SettingsError, StartError
from stream_app.escalate.endpoint_facts import LOOPBACK, api_key
from stream_app.escalate.prices import price_of
from stream_app.local.demo.words import plural, usd
from stream_app.training.compared import Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_app.cli.live_asking import Measured
    from stream_app.cli.live_questions import LiveRow
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.routing.models import IndexArray
    from stream_app.settings import Settings
    from stream_app.training.recorded import RecordedRow

P = ParamSpec("P")
R = TypeVar("R")

USD_MAX = 1.0
ALL_VARIANTS = ",".join(Variant)
PROBE_S = 2.0
STAND_IN_OWNER = "shunt-stand-in"
"""Whose models the stand-in says it has."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How to ask. `seed` orders the rows and draws the intervals."""

    variants: tuple[Variant, ...]
    usd_max: float
    limit: int | None
    seed: int
    yes: bool


@dataclass(frozen=True, slots=True)
class RoutedFile:
    """The labelled rows, and what the policy made of them."""

    router: TaskRouter
    policy: str
    rows: Sequence[RecordedRow]
    routed: Routed
    truth: IndexArray

    @property
    def whole(self) -> Whole:
        """What the small models decide alone."""
        accepted = self.routed.accepted
        right = accepted & (self.routed.label == self.truth)
        return Whole(len(self.rows), int(accepted.sum()), int(right.sum()))


def with_live_options(command: Callable[Concatenate[LiveOptions | None, P], R]) -> Callable[P, R]:
    """Gives `command` the options of a live run as its first argument, None without `--live`."""

    @click.option("--live", is_flag=True, help="Ask the LLM of the settings about the escalated rows; costs money.")
    @click.option("--compare", help=f"With --live: ways to ask, among {ALL_VARIANTS}.  [default: all]")
    @click.option("--usd-max", type=float, help=f"With --live: what it may cost at most.  [default: {USD_MAX}]")
    @click.option("--limit", type=click.IntRange(min=1), help="With --live: ask about so many rows at most.")
    @click.option("--seed", type=click.IntRange(min=0), help="With --live: which rows come first.  [default: 0]")
    @click.option("--yes", is_flag=True, help="With --live: ask without a confirmation.")
    @wraps(command)
    def with_options(*args: P.args, **kwargs: P.kwargs) -> R:
        given = cast("dict[str, Any]", kwargs)
        live = given.pop("live")
        mine = {name: given.pop(name) for name in ("compare", "usd_max", "limit", "seed", "yes")}
        if not live:
            for name, value in mine.items():
                if value is not None and value is not False:
                    raise click.UsageError(f"--{name.replace('_', '-')} needs --live")
            return command(None, *args, **kwargs)
        if given.get("llms"):
            raise click.UsageError("--llm takes recorded answers and --live asks for new ones: leave one out")
        return command(_options(**mine), *args, **kwargs)

    return with_options


def _options(
    *, compare: str | None, usd_max: float | None, limit: int | None, seed: int | None, yes: bool
) -> LiveOptions:
    names = [name.strip() for name in (ALL_VARIANTS if compare is None else compare).split(",")]
    if unknown := [name for name in names if name not in set(Variant)]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {ALL_VARIANTS}", param_hint="--compare")
    cap = USD_MAX if usd_max is None else usd_max
    if not (math.isfinite(cap) and cap > 0):
        raise click.BadParameter("it must be more than 0 dollars", param_hint="--usd-max")
    return LiveOptions(tuple(one for one in Variant if one in names), cap, limit, seed or 0, yes)


def require_llm(settings: Settings) -> None:
    """SettingsError where the key or the price of the model is not known. It is the first endpoint that is asked."""
    api_key(settings.llm.endpoints[0])
    price_of(settings.llm.endpoints[0])


def evaluate_live(settings: Settings, live: LiveOptions, file: RoutedFile, out: Path | None, *, as_json: bool) -> int:
    """Asks, prints the report, and gives the exit status."""
    endpoint, ids = settings.llm.endpoints[0], [row.id for row in file.rows]
    questions = Questions(settings, file.router, live.variants)
    escalated = live_rows(settings, file.router, file.policy, file.rows, file.routed)
    random.Random(live.seed).shuffle(escalated)  # noqa: S311 - a repeatable order, not a secret
    rows = escalated[: live.limit]
    asked = Asked(
        task=file.router.task,
        policy=file.policy,
        model=endpoint.model,
        endpoint=urlsplit(endpoint.base_url).netloc,
        stand_in=asyncio.run(_is_stand_in(endpoint.base_url)),
        variants=live.variants,
        to_ask=len(rows),
        escalated=len(escalated),
        usd_max=live.usd_max,
        seed=live.seed,
        estimate=estimated(questions, rows, price_of(endpoint), endpoint.model),
    )
    _announce(asked, len(ids), endpoints=len(settings.llm.in_turn))
    if rows and not live.yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("Ask now?", abort=True, err=True)
    report = Report.of(asked, file.whole, asyncio.run(_measured(settings, live, questions, rows)))
    _require_rows(report)
    if out is not None:
        lines = row_lines(report.measured, ids)
        out.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
    click.echo(orjson.dumps(as_object(report)).decode() if as_json else as_text(report))
    if report.measured.stopped is Stopped.INTERRUPTED:
        click.echo("shunt: interrupted: the figures are those of the rows measured so far", err=True)
    return 1 if report.measured.stopped in {Stopped.INTERRUPTED, Stopped.OUTAGE} else 0


def _announce(asked: Asked, rows: int, *, endpoints: int) -> None:
    """What is about to be asked, of which of the `endpoints`, and about what it will cost."""
    if not asked.to_ask:
        click.echo(
            f"The policy escalates none of {plural(rows, 'row')}: nothing is asked, nothing is paid.", err=True
        )
        return
    ways, estimate = ", ".join(asked.variants), asked.estimate
    whom = "the stand-in" if asked.stand_in else f"{asked.model} at {asked.endpoint}"
    whom += f", the first of the {endpoints} endpoints," if endpoints > 1 else ""
    click.echo(
        f"Asking {whom} about {asked.to_ask:,} of {plural(rows, 'row')} (of {asked.escalated:,} that the policy "
        f"escalates; the others cost nothing) as {ways}: {plural(estimate.requests, 'different question')}.",
        err=True,
    )
    short = estimate.usd > asked.usd_max
    reach = f"; the cap will be reached after about {asked.usd_max / estimate.usd:.0%} of the rows" if short else ""
    click.echo(
        f"Estimated cost: {usd(estimate.usd)} (an estimate from characters), at most {usd(asked.usd_max)}{reach}.",
        err=True,
    )


def _require_rows(report: Report) -> None:
    """Raises where rows were to be asked and nothing can be said: the cap was too small, or nobody answered."""
    asked, measured = report.asked, report.measured
    if measured.stopped is Stopped.OUTAGE and not measured.answers:
        raise StartError(
            f"the LLM endpoint {asked.endpoint} gave no answer ({measured.problem})",
            advice="correct [[llm.endpoints]] or its key",
        )
    if measured.stopped is Stopped.CAP and not measured.rows:
        raise SettingsError(
            f"{usd(asked.usd_max)} does not cover one row in every variant, each call at its worst",
            advice="raise --usd-max, or lower llm.text_tokens_max or llm.output_tokens_max",
        )


async def _measured(settings: Settings, live: LiveOptions, questions: Questions, rows: Sequence[LiveRow]) -> Measured:
    """Asks until all is done or Ctrl-C, which ends it with what was measured so far."""
    from stream_app.escalate.client import OpenAiClient  # noqa: PLC0415 - it takes a second, also of `--help`

    endpoint, stop = settings.llm.endpoints[0], asyncio.Event()
    client = OpenAiClient(endpoint, connections_max=settings.llm.max_in_flight)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    try:
        with scoring_bar(f"Asking {endpoint.model}", len(rows)) as progress:
            asking = LiveAsking(settings, client, price_of(endpoint), questions, live.usd_max)
            return await asking.run(rows, stop, progress)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        await client.aclose()


async def _is_stand_in(base_url: str) -> bool:
    """Whether a local endpoint says of itself that it is the stand-in; others are not asked."""
    if urlsplit(base_url).hostname not in LOOPBACK:
        return False
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_S)) as session,
            session.get(f"{base_url.rstrip('/')}/models") as response,
        ):
            return STAND_IN_OWNER in json.dumps(await response.json(content_type=None))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False

"""`shunt promote` and `shunt rollback`: another policy comes into force in every worker, or the last one again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.classify.swap import Proposal, Swap
from stream_app.cli.configured import configured
from stream_app.errors import SettingsError, ShuntError
from stream_app.routing.policy import load_policy
from stream_app.routing.promotion import held_back_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from stream_app.classify.swap import Swapped
    from stream_app.routing.control import InForce
    from stream_app.routing.policy import Policy
    from stream_app.settings import Settings


def _swap_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
        click.option("--keep-old", is_flag=True, help="Leave the old versions loaded: others ask for them too."),
        click.option(
            "--within",
            "within_s",
            type=click.FloatRange(1, 3_600),
            default=60.0,
            show_default=True,
            help="Seconds to wait for the workers, twice at most.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("file", metavar="CHALLENGER", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Also where it is not better; the reasons are recorded.")
@_swap_options
@configured
def promote(settings: Settings, file: Path, force: bool, within_s: float, keep_old: bool, as_json: bool) -> None:
    """Bring the policy CHALLENGER into force in every running worker, without a pause.

    Only if it promises the same and its certified coverage is higher. Triton serves the new versions beside the old
    ones until every worker has changed over. From then on it goes before the policy file.
    """
    challenger = load_policy(file.read_bytes(), str(file))

    def propose(current: Policy | None, told: InForce | None) -> Proposal:
        del told
        if current == challenger:
            raise SettingsError(f"{challenger.ref} is in force already")
        reasons = held_back_by(current, challenger)
        if reasons and not force:
            raise SettingsError(
                f"{challenger.ref} is not promoted: {'; '.join(reasons)}",
                advice="--force does it all the same, and records why not",
            )
        return Proposal(challenger, "promote", reasons)

    _run(settings, propose, within_s, keep_old=keep_old, as_json=as_json)


@click.command()
@_swap_options
@configured
def rollback(settings: Settings, within_s: float, keep_old: bool, as_json: bool) -> None:
    """Bring the policy that was in force before the last swap back into force."""

    def propose(current: Policy | None, told: InForce | None) -> Proposal:
        del current
        if told is None or told.previous is None:
            raise SettingsError("there is nothing to go back to: no policy was promoted over another one")
        return Proposal(told.previous, "rollback")

    _run(settings, propose, within_s, keep_old=keep_old, as_json=as_json)


def _run(
    settings: Settings,
    propose: Callable[[Policy | None, InForce | None], Proposal],
    within_s: float,
    *,
    keep_old: bool,
    as_json: bool,
) -> None:
    swap = Swap(settings, within_s=within_s, keep_old=keep_old, tell=lambda line: click.echo(line, err=True))
    done = asyncio.run(swap.run(propose))
    click.echo(orjson.dumps(asdict(done)).decode() if as_json else "\n".join(_lines(done)))
    if done.behind:
        raise ShuntError(
            f"{len(done.behind)} of {done.workers} workers have not said that they changed over: "
            f"{', '.join(done.behind)}",
            advice=f"{done.now} is in force all the same, and the old versions stay loaded; look at their logs",
        )


def _lines(done: Swapped) -> list[str]:
    lines = [f"{done.before or 'no policy'} -> {done.now}, in {done.workers - len(done.behind)} workers"]
    lines += [f"  forced: {why}" for why in done.forced]
    if done.let_go:
        lines.append(f"  let go: {', '.join(done.let_go)}")
    return [*lines, "Next: shunt status; and shunt rollback goes back"]

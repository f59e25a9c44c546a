"""`shunt run`: one worker, until SIGTERM or Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_app.app import Role, ShuntApp, create_app, run_worker
from stream_app.cli.configured import configured
from stream_app.routing.policy import load_policy
from stream_app.telemetry import Metrics

if TYPE_CHECKING:
    from stream_app.settings import Settings

ROLES = [role.value for role in Role if role.value]


@click.command()
@click.argument("role", required=False, type=click.Choice(ROLES))
@click.option("--shadow", is_flag=True, help="Decide, but publish nothing and call no LLM; say what it would be.")
@click.option("--limit", type=click.IntRange(min=1), help="With --shadow: end after that many records.")
@click.option("--json", "as_json", is_flag=True, help="With --shadow: the report as one JSON object.")
@click.option(
    "--policy",
    "challenger",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --shadow: decide by this policy, and compare with the live decisions.",
)
@configured
def run(
    settings: Settings, role: str | None, shadow: bool, limit: int | None, as_json: bool, challenger: Path | None
) -> None:
    r"""Run one worker until SIGTERM or Ctrl-C, then drain.

    ROLE is classify, escalate or feeds (the live page); without one, both lanes run in one process.

    \b
    Exit status: 0 drained, 1 failed, 2 settings, 3 lost its membership too often.
    """
    if not shadow:
        if limit is not None or as_json or challenger is not None:
            raise click.UsageError("--limit, --json and --policy go with --shadow")
        run_worker(create_app(settings, Role(role or "")))
    if role not in {None, "classify"}:
        raise click.UsageError(f"--shadow decides as classify does; {role} has none")
    from stream_app.shadow import Shadow  # noqa: PLC0415 - it needs both lanes, which a worker may start without

    metrics = Metrics()
    policy = None if challenger is None else load_policy(challenger.read_bytes(), str(challenger))
    work = Shadow(settings, metrics, limit=limit, as_json=as_json, challenger=policy).run
    run_worker(ShuntApp(settings, {"shadow": work}, metrics, may_end=True))

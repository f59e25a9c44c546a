"""`shunt check`: is everything reachable, and does it fit together? Says for each thing what to change."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.cli.checks import all_checks
from stream_app.cli.configured import configured

if TYPE_CHECKING:
    from stream_app.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: what, state, detail.")
@configured
def check(settings: Settings, as_json: bool) -> int:
    """Check Kafka, the topics, Triton, the models, the policy and the LLM. Exit status 1 where something fails."""
    findings = asyncio.run(all_checks(settings))
    failed = [finding for finding in findings if finding.state == "fails"]
    for finding in findings:
        if as_json:
            click.echo(orjson.dumps(asdict(finding)).decode())
        else:
            click.echo(f"{finding.mark} {finding.what:<28} {finding.detail}".rstrip())
    if not as_json:
        click.echo(f"\n{len(failed)} to put right, then: shunt check" if failed else "\nNext: shunt run")
    return 1 if failed else 0

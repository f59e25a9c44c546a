"""`shunt demo`: everything at once on this machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from stream_app.local.demo.options import DemoOptions
from stream_app.local.demo.runner import Demo
from stream_app.local.demo.screen import Screen, console
from stream_app.local.demo.signals import Interrupted

FILE = click.Path(path_type=Path, exists=True, dir_okay=False, readable=True)


@click.command()
@click.option(
    "--events", "records", type=click.IntRange(min=1), help="Send so many records.  [default: all there are]"
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Records a second.  [default: 20]")
@click.option("--input", "input_", type=FILE, help="Your own texts: JSON Lines, plain or .gz, a `text` in each.")
@click.option("--llm-replay", type=FILE, help="The stand-in gives the answers recorded in this file.")
@click.option("--llm-name", "llm_names", multiple=True, help="The LLM to ask, or whose recorded answers to replay.")
@click.option("--kill", is_flag=True, help="SIGKILL workers during the run, then count lost and duplicated.")
@click.option("--exit", "exit_", is_flag=True, help="Run flat out, and end.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
def demo(
    records: int | None,
    rate: float | None,
    input_: Path | None,
    llm_replay: Path | None,
    llm_names: tuple[str, ...],
    kill: bool,
    exit_: bool,
    as_json: bool,
) -> int:
    """Reviews through real Kafka and real Triton, before your eyes.

    Starts the embedded stack and its workers, feeds reviews, and shows each decision with its route and cost;
    at the end, the balance. With OPENAI_API_KEY (and OPENAI_BASE_URL) it asks that LLM, else a stand-in.
    """
    options = DemoOptions(
        records=records,
        rate=rate,
        input=input_,
        replay=llm_replay,
        llm_names=llm_names,
        kill=kill,
        exit=exit_,
    )
    screen = Screen(console(stderr=as_json))
    try:
        ended = asyncio.run(Demo(options, screen).run())
    except Interrupted:
        return 0
    except asyncio.CancelledError:  # a second Ctrl-C: no balance
        return 1
    if as_json:
        click.echo(json.dumps(ended.told))
    return 0 if ended.whole else 1

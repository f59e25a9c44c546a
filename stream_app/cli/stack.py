"""`shunt stack`: Kafka, Triton and the stand-in LLM on this machine, left running in the background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import orjson

from stream_app.errors import StartError
from stream_app.local.demo.config import require_platform, shipped_models_path
from stream_app.local.detached import stack_down, stack_status, stack_up
from stream_app.local.stack import DEFAULT_DIR

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.local.stack import StackInfo

R = TypeVar("R")
FOLDER = click.Path(path_type=Path, file_okay=False)
MODELS = click.Path(path_type=Path, file_okay=False, exists=True)


def _dir_option(command: Callable[..., R]) -> Callable[..., R]:
    decorate = click.option(
        "--dir", "folder", type=FOLDER, default=DEFAULT_DIR, show_default=True, help="Where its data and logs are."
    )
    return decorate(command)


@click.group()
def stack() -> None:
    """Start, stop or show Kafka, Triton and a stand-in LLM on this machine.

    Real Apache Kafka and a real Triton from Python packages; no Docker, no system Java. For trying things and
    for tests: one broker, no replication.
    """


@stack.command()
@_dir_option
@click.option(
    "--models", "repositories", type=MODELS, multiple=True, help="Model repositories.  [default: the shipped models]"
)
@click.option("--load", multiple=True, help="Models to load.  [default: all in the repositories]")
@click.option("--llm/--no-llm", default=True, help="With the stand-in LLM, or without.")
@click.option("--json", "as_json", is_flag=True, help="The addresses as one JSON object.")
def up(folder: Path, repositories: tuple[Path, ...], load: tuple[str, ...], llm: bool, as_json: bool) -> None:
    """Start the stack, and print its addresses when it is ready. One that runs already is left as it is."""
    require_platform()
    models = repositories or _shipped()
    names = load or sorted(config.parent.name for models_in in models for config in models_in.glob("*/config.pbtxt"))
    info = stack_up(
        folder,
        model_repository=models,
        load_models=names,
        llm=llm,
        progress=lambda words: click.echo(words, err=True),
    )
    _tell(info, as_json=as_json)
    if not as_json:
        click.echo("\nNext: shunt init")


@stack.command()
@_dir_option
def down(folder: Path) -> None:
    """Stop the stack. Its data stays in the folder."""
    click.echo("stopped" if stack_down(folder) else f"no stack runs in {folder}")


@stack.command()
@_dir_option
@click.option("--json", "as_json", is_flag=True, help="The addresses as one JSON object; null where none runs.")
def status(folder: Path, as_json: bool) -> int:
    """Show the addresses of the stack that runs. Exit status 1 where none does."""
    info = stack_status(folder)
    if info is not None:
        _tell(info, as_json=as_json)
        return 0
    click.echo("null" if as_json else f"no stack runs in {folder}")
    return 1


def _shipped() -> tuple[Path, ...]:
    """The shipped models. They come with a clone of the repository, not with an installed wheel."""
    folder = shipped_models_path()
    if not folder.is_dir():
        raise StartError("the shipped models are not here", advice="name a model repository with --models")
    return (folder,)


def _tell(info: StackInfo, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(info.as_json()).decode())
        return
    for name, address in info.as_json().items():
        if address is not None:
            click.echo(f"{name:<18} {address}")

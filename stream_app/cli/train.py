"""`shunt train`: a Triton model from labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stream_app.errors import StartError

if TYPE_CHECKING:
    from stream_app.training.train import KindName, Trained

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("--task", required=True, help="What the labels answer, such as sentiment.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model repository to write to."
)
@click.option(
    "--kind",
    type=click.Choice(["fast", "minilm"]),
    default="fast",
    show_default=True,
    help="fast: n-grams, minutes. minilm: an encoder, most of an hour, needs torch.",
)
@click.option("--name", help="The model's name.  [default: TASK_KIND]")
@click.option("--validation", type=FILE, help="Labelled texts that are not trained on, for the model card.")
@click.option("--replace", is_flag=True, help="Write over a model of that name.")
def train(
    files: tuple[Path, ...],
    task: str,
    out: Path,
    kind: KindName,
    name: str | None,
    validation: Path | None,
    replace: bool,
) -> None:
    """Train on labelled JSON Lines (`text` and `label` in each, .gz too) and write a Triton model folder."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task("reading", total=1.0)
        trained = _train(
            files, task=task, out=out, kind=kind, name=name, validation=validation, replace=replace,
            progress=lambda doing, share: bar.update(row, description=doing, completed=share),
        )  # fmt: skip
    for line in _told(trained):
        click.echo(line)
    click.echo(f'Next: load it into Triton, then shunt calibrate with tiers = ["{trained.folder.name}"]')


def _train(files: tuple[Path, ...], **options: object) -> Trained:
    try:
        from stream_app.training.train import train as train_files  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        advice = 'install the training packages: pip install "shunt-stream[train]"'
        raise StartError(f"{error.name} is not installed", advice=advice) from error
    return train_files(files, **options)  # pyright: ignore[reportArgumentType] - passed through by name


def _told(trained: Trained) -> list[str]:
    told = [f"{trained.folder}: {trained.rows:,} rows, labels {', '.join(trained.labels)}"]
    if trained.cross_fitted_accuracy is not None:
        told.append(f"accuracy, cross-fitted on the training rows: {trained.cross_fitted_accuracy:.4f}")
    told += [f"accuracy on {title}: {found.accuracy:.4f}" for title, found in trained.figures.items()]
    return told

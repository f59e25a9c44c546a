"""`shunt train`: a Triton model from labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stream_app.errors import without_training_packages

if TYPE_CHECKING:
    from stream_app.training.evaluation import AnyOfFigures
    from stream_app.training.train import Trained

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("--task", required=True, help="What the labels answer, such as sentiment.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model repository to write to."
)
@click.option(
    "--model",
    type=click.Choice(["fast", "minilm"]),
    default="fast",
    show_default=True,
    help="fast: n-grams, minutes. minilm: an encoder, most of an hour, needs torch.",
)
@click.option(
    "--kind",
    type=click.Choice(["one_of", "any_of"]),
    help="one_of: each text has one label. any_of: each label is a yes or no.  [default: as the rows are labelled]",
)
@click.option("--label-field", help="The field that holds the labels; rows without it are left out.")
@click.option("--name", help="The model's name.  [default: TASK_MODEL]")
@click.option("--validation", type=FILE, help="Labelled texts that are not trained on, for the model card.")
@click.option(
    "--held-out",
    "held_out",
    type=FILE,
    multiple=True,
    help="Learn nothing that is in this file: a policy, a list of what is held out, labelled rows. Again for more.",
)
@click.option(
    "--curve/--no-curve",
    default=None,
    help="Measure whether more labels would pay. minilm: four more trainings.  [default: for fast]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=7, show_default=True, help="The same seed, the same model."
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="minilm: go on from this model's weights (its folder), with the same labels.  [default: the plain encoder]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="minilm: cores to train on; more are faster, and round differently.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="minilm: of the served weights. int8 for processors, fp16 for graphics cards.",
)
@click.option("--replace", "replace_model", is_flag=True, help="Write over a model of that name.")
def train(files: tuple[Path, ...], task: str, kind: str | None, **options: Any) -> None:
    """Train on labelled JSON Lines and write a Triton model folder; run it again to go on where it was interrupted.

    Each line has `text` and `label`, or `labels`: a map of each label to true or false (.gz too).
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task("reading", total=1.0)
        trained = _train(
            files, task=task, kind=kind, **options,
            progress=lambda doing, share: bar.update(row, description=doing, completed=share),
        )  # fmt: skip
    for line in _told(trained):
        click.echo(line)
    click.echo(f'Next: load it into Triton, then shunt calibrate with tiers = ["{trained.folder.name}"]')


def _train(files: tuple[Path, ...], *, kind: str | None, **options: Any) -> Trained:
    try:
        from stream_app.training.gold import TaskKind  # noqa: PLC0415 - beside what follows
        from stream_app.training.train import train as train_files  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise without_training_packages(error) from error
    return train_files(files, kind=None if kind is None else TaskKind(kind), **options)


def _told(trained: Trained) -> list[str]:
    from stream_app.training.evaluation import Figures  # noqa: PLC0415 - its packages are an extra

    told = ["went on where an interrupted run stood"] if trained.went_on else []
    if trained.left_out:
        told.append(f"{trained.left_out:,} rows left out: held out, validated on, or asked by an audit")
    told.append(f"{trained.folder}: {trained.rows:,} rows, {trained.kind}, labels {', '.join(trained.labels)}")
    if trained.cross_fitted_accuracy is not None:
        told.append(f"accuracy on training rows that were held out: {trained.cross_fitted_accuracy:.4f}")
    if trained.held_out is not None:
        told += ["on training rows that were held out:", *_by_label(trained.held_out)]
    for title, found in trained.figures.items():
        if isinstance(found, Figures):
            told.append(f"accuracy on {title}: {found.accuracy:.4f}")
        else:
            told += [f"on {title}:", *_by_label(found)]
    if trained.curve is not None and trained.curve.gain is not None:
        told.append(f"{trained.curve.verdict()} See {trained.folder / 'learning_curve.svg'}")
    return told


def _by_label(found: AnyOfFigures) -> list[str]:
    return [
        f"  {label}: precision {each.precision:.3f}, recall {each.recall:.3f}, "
        f"average precision {each.average_precision:.3f} ({each.yes:,} yes of {each.known:,})"
        for label, each in found.by_label.items()
    ]

"""`shunt distill`: a challenger that has learned from what the model in force had to ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stream_app.cli.configured import config_option
from stream_app.errors import SettingsError, without_training_packages
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.settings import Settings
    from stream_app.training.challenger import Challenger
    from stream_app.training.gated import Gated
    from stream_app.training.rows import LabelledRow

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command was given to learn from, and to hold out."""

    files: tuple[Path, ...]
    bases: tuple[Path, ...]
    held_outs: tuple[Path, ...]
    texts: tuple[Path, ...]
    topic: Settings | None
    """The settings whose feedback topic is read too."""

    @property
    def sources(self) -> list[str]:
        """Their names, for the card."""
        names = [path.name for path in (*self.bases, *self.files, *self.texts)]
        return names if self.topic is None else [*names, f"topic {self.topic.kafka.names.feedback}"]


@click.command()
@click.argument("files", metavar="[FEEDBACK]...", nargs=-1, type=FILE)
@click.option("--from-topic", is_flag=True, help="Read the feedback topic, beside the files or instead of them.")
@click.option("--task", required=True, help="The task whose model learns, such as sentiment.")
@click.option(
    "--base", "bases", multiple=True, required=True, type=FILE, help="What the model was trained on: labelled texts."
)
@click.option(
    "--held-out",
    "held_outs",
    multiple=True,
    required=True,
    type=FILE,
    help="What must not teach: a policy (its list stands beside it), a list, or labelled texts.",
)
@click.option(
    "--unlabelled", "texts", multiple=True, type=FILE, help="Texts that the model and a second view of them answer."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model repository to write to."
)
@click.option("--name", help="The model's name.  [default: TASK_fast]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=7,
    show_default=True,
    help="The same seed, the same model, up to rounding.",
)
@config_option
@click.pass_obj
def distill(
    config: Path | None,
    files: tuple[Path, ...],
    from_topic: bool,
    task: str,
    bases: tuple[Path, ...],
    held_outs: tuple[Path, ...],
    texts: tuple[Path, ...],
    out: Path,
    name: str | None,
    seed: int,
) -> None:
    """Teach the small model what it had to ask, and write it as the next version of its model folder.

    FEEDBACK are rows of the feedback topic (JSON Lines, .gz too). What is held out, by id or by text, never
    teaches, nor what an audit asked. Run it again to go on where it was interrupted.
    """
    if not files and not from_topic:
        raise click.UsageError("name files of feedback, or --from-topic")
    given = Given(files, bases, held_outs, texts, load_settings(config) if from_topic else None)
    gated = _gated(given, task)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task("reading", total=1.0)
        made = _made(
            gated, task, out / (name or f"{task}_fast"), given.sources, seed,
            lambda doing, share: bar.update(row, description=doing, completed=share),
        )  # fmt: skip
    for line in _told(made, gated, task):
        click.echo(line)


def _gated(given: Given, task: str) -> Gated:
    try:
        from stream_app.training.gated import gate  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise without_training_packages(error) from error
    from stream_app.training.feedback_rows import read_feedback  # noqa: PLC0415 - beside what stands above
    from stream_app.training.held_out import HeldOut, read_held_out  # noqa: PLC0415 - as above

    held_out = HeldOut()
    for path in given.held_outs:
        held_out |= read_held_out(path)
    feedback = [row for path in given.files for row in read_feedback(path)]
    if given.topic is not None:
        from stream_app.cli.feedback_topic import read_feedback_topic  # noqa: PLC0415 - as above

        found = asyncio.run(read_feedback_topic(given.topic))
        feedback, held_out = [*feedback, *found.feedback], held_out | found.held_out
        if found.unreadable:
            click.echo(f"{found.unreadable:,} records of the feedback topic cannot be read: left out", err=True)
    if any(row.task == task and not isinstance(row.label, str | None) for row in feedback):
        raise SettingsError(
            f"task {task} is of kind any_of: distillation teaches one right label",
            advice="train it anew on the feedback rows, which name each label: shunt train FILE --kind any_of",
        )
    unlabelled = [pair for path in given.texts for pair in _texts_in(path)]
    return gate(_base_rows(given.bases), feedback, unlabelled, task, held_out)


def _base_rows(paths: Sequence[Path]) -> list[LabelledRow]:
    from stream_app.training.rows import UnreadableRow, read_rows  # noqa: PLC0415 - as above

    try:
        return [row for path in paths for row in read_rows(path)]
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give labelled JSON Lines, plain or gzip") from error


def _texts_in(path: Path) -> list[tuple[str | None, str]]:
    from stream_app.training.rows import UnreadableRow, read_texts  # noqa: PLC0415 - as above

    try:
        return read_texts(path)
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give JSON Lines with a text each") from error


def _made(
    gated: Gated, task: str, folder: Path, sources: Sequence[str], seed: int, progress: Callable[[str, float], None]
) -> Challenger:
    from stream_app.training.challenger import make_challenger  # noqa: PLC0415 - as above

    return make_challenger(gated, task=task, folder=folder, sources=sources, seed=seed, progress=progress)


def _told(made: Challenger, gated: Gated, task: str) -> list[str]:
    from stream_app.training.challenger import learned_lines  # noqa: PLC0415 - as above

    told = ["went on where an interrupted run stood"] if made.went_on else []
    told.append(f"{made.place}: version {made.version} of {made.folder.name}, distilled from")
    told += [f"  {line}" for line in learned_lines(gated, made.distilled)]
    return [
        *told,
        f"Next: shunt calibrate FILE --task {task} --challenger {made.place} --out challenger.json",
        "then: shunt run --shadow --policy challenger.json, and shunt promote challenger.json",
    ]

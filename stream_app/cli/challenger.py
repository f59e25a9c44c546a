"""A version calibrated before it is in force: served beside those in use, and never judged by what taught it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_app.classify.model_control import LOAD_WITHIN_S, ModelControl
from stream_app.errors import SettingsError
from stream_app.training.folder import weights_sha256_in
from stream_app.training.held_out import LEARNED, read_held_out

if TYPE_CHECKING:
    from stream_app.settings import Settings, Task
    from stream_app.training.recorded import RecordedFile


async def serve_challenger(settings: Settings, task: Task, place: Path) -> None:
    """Triton serves the version in the folder `place` beside those it serves. It must be the newest: that is asked.

    Raises SettingsError for a folder that is no version of the task's models, StartError where Triton cannot serve
    it.
    """
    folder, version = Path(os.path.abspath(place.parent)), place.name  # noqa: ASYNC240, PTH100 - asks no disk
    if folder.name not in task.models or not version.isdecimal():
        raise SettingsError(
            f"{place} is no version of {' or '.join(task.models)}", advice="name a folder as triton_models/NAME/2"
        )
    weights = {version: weights_sha256_in(folder, version)}
    async with ModelControl.connect(settings.triton.url, LOAD_WITHIN_S) as models:
        newest = max(await models.served(folder.name), key=int, default=version)
        if int(newest) > int(version):
            raise SettingsError(f"Triton serves version {newest} of {folder.name}, newer than {place}")
        await models.add(folder.name, weights)


def untaught(file: RecordedFile, challenger: Path | None) -> RecordedFile:
    """The file without the rows that taught the challenger, and a line that says how many those were."""
    learned = None if challenger is None else challenger / LEARNED
    if learned is None or not learned.exists():
        return file
    taught = read_held_out(learned)
    kept = tuple(row for row in file.rows if not (taught.holds_id(row.own_id) or taught.holds_text(row.text)))
    if len(kept) < len(file.rows):
        click.echo(f"{file.name}: {len(file.rows) - len(kept):,} rows left out: they taught {challenger}", err=True)
    return replace(file, rows=kept)

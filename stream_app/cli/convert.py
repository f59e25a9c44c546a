"""`shunt convert`: a trained encoder in half precision, for a graphics card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from stream_app.errors import without_training_packages


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model folder to write."
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="fp16",
    show_default=True,
    help="fp16 for graphics cards, int8 for processors.",
)
@click.option("--replace", "replace_model", is_flag=True, help="Write over a model of that name.")
def convert(folder: Path, out: Path, precision: Literal["int8", "fp16"], *, replace_model: bool) -> None:
    """Write the minilm in FOLDER in another precision, as a model folder of its own."""
    try:
        from stream_app.training.convert import convert as convert_folder  # noqa: PLC0415 - its packages are an extra

        sha256 = convert_folder(folder, out, precision, lambda *_: None, replace_model=replace_model)
    except ImportError as error:
        raise without_training_packages(error) from error
    click.echo(f"{out}: {precision}, sha-256 {sha256}")
    click.echo(f'Next: load it into Triton, then shunt calibrate with tiers = ["{out.name}"]')

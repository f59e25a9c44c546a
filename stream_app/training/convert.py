"""A trained MiniLM in another precision: what `shunt convert` does."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stream_app.errors import SettingsError
from stream_app.training import minilm
from stream_app.training.folder import MINILM, check_target, held_in, write_folder
from stream_app.training.gold import Gold
from stream_app.training.minilm_export import write_served
from stream_app.training.minilm_start import go_on_from

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""


def convert(
    folder: Path, out: Path, precision: minilm.Precision, progress: Progress, *, replace_model: bool = False
) -> str:
    """Write the newest version of the minilm in `folder` as the model folder `out`, whole or not at all; its sha-256.

    Weights are those of `folder`, with their rounding and that of the other precision: answers differ a little, and
    a policy that names the one refuses the other. Raises SettingsError where `folder` holds no minilm or `out`
    cannot be written, ImportError without the `train` extra.
    """
    minilm.require_packages()
    held = held_in(folder)
    if not (folder / held.version / "model.onnx").exists():
        raise SettingsError(f"{folder} is no minilm", advice="a fast model needs no other precision")
    check_target(out, held.labels, replace=replace_model)
    torch: Any = importlib.import_module("torch")
    encoder, head = minilm.network(torch, len(held.labels), minilm.Recipe())
    go_on_from(folder / held.version, torch, encoder, head)
    card = (folder / "MODEL_CARD.md").read_text()
    told = (
        f"> The weights of {folder.name}, version {held.version} (sha-256 {held.weights_sha256}), as {precision}. "
        "What follows was written of those: figures were measured with them.\n\n"
    )
    return write_folder(
        out,
        MINILM,
        Gold(held.kind, held.labels, np.zeros((0, len(held.labels)), np.int8)),
        lambda written: write_served(torch, encoder, head, written, precision, progress),
        lambda made: _describe(made, told + card),
    )


def _describe(made: Path, card: str) -> None:
    (made / "MODEL_CARD.md").write_text(card)

"""The shipped models' answers to a file's rows, computed once for these weights and rows and kept in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream_app.local.demo.config import shipped_models_path
from stream_app.routing.models import Scores
from stream_app.training.evaluation import answer_rows
from stream_app.training.folder import weights_sha256_in

if TYPE_CHECKING:
    import argparse

    from stream_app.training.recorded import RecordedFile


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The flag `--scores`: where they are kept."""
    parser.add_argument("--scores", type=Path, default=Path(".shunt") / "scores", help="where scores are kept")


def kept_scores(model: str, file: RecordedFile, kept: Path) -> Scores:
    """The model's answers to all rows of the file, in their order; asked here unless `kept` has them."""
    folder = shipped_models_path() / model
    path = kept / f"{model}-{weights_sha256_in(folder)[:12]}-{file.sha256[:12]}.npz"
    if not path.exists():
        print(f"{model} answers {len(file.rows):,} rows of {file.name}", file=sys.stderr, flush=True)
        found = answer_rows(folder, file.rows)
        kept.mkdir(parents=True, exist_ok=True)
        np.savez(path, probabilities=found.probabilities, known_shares=found.known_shares)
    with np.load(path) as held:
        return Scores(held["probabilities"], held["known_shares"])

"""Recorded answers of real LLMs, found by the exact text they were given for."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from stream_app.local.llm.asked import sha256, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Where a record does not say how long its prompt was: the text, and this much around it.
PROMPT_CHARS_AROUND = 317


class ReplayError(Exception):
    """The file of recorded answers cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answers of one text by model (None: it gave none), and what the prompt took."""

    answers: dict[str, str | None]
    input_tokens: int


class Replay:
    """All records of a file, by text. `names` are the models that are answered for; the first is the default."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._names = names
        self._by_sha256 = dict(_records(path, names))

    def __len__(self) -> int:
        return len(self._by_sha256)

    def find(self, text_sha256: str) -> Recorded | None:
        """What was recorded for the text, or None."""
        return self._by_sha256.get(text_sha256)

    def name_for(self, model: str) -> str:
        """The recorded model that a request for `model` gets."""
        return model if model in self._names else self._names[0]


def _records(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Recorded]]:
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                yield _record(json.loads(line), names, f"{path} line {number}")
    except (OSError, EOFError, ValueError) as error:
        raise ReplayError(f"cannot read {path}: {error}") from error


def _record(row: dict[str, Any], names: tuple[str, ...], place: str) -> tuple[str, Recorded]:
    text, llm = row.get("text"), row.get("llm")
    if not isinstance(text, str) or not isinstance(llm, dict):
        raise ReplayError(f"{place} lacks `text` or `llm`")
    missing = [name for name in names if name not in llm]
    if missing:
        raise ReplayError(f"{place} has no answer of {missing[0]}; it has those of {', '.join(llm)}")
    prompt_chars = row.get("prompt_chars") or len(text) + PROMPT_CHARS_AROUND
    answers = {name: llm[name] for name in names}
    return sha256(text), Recorded(answers, tokens(int(prompt_chars)))


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")

"""The demo's input: reviews written for this project, a few broken records, or a file of the user's own.

Gold labels never travel: they stand beside the record that is sent, for the summary alone.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, replace
from importlib import resources
from itertools import count
from typing import TYPE_CHECKING, Any

from stream_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stream_app.events import Headers

GOLD_FIELDS = frozenset({"gold", "label", "llm"})
"""Fields of an input row that say, or hint at, the right answer: they are not sent."""

TASK_BY_LABELS = {
    frozenset({"negative", "positive"}): "sentiment",
    frozenset({"not_toxic", "toxic"}): "toxicity",
}
"""Which of the demo's tasks a file's plain `label` column answers."""

BROKEN_EVERY = 17
"""One broken record after so many reviews: all of the kinds are seen within the first 200 records."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One record of the demo: the bytes that are sent, and what is known about them and stays here.

    `id` is the event's id, None for a broken record or a tombstone (`value` None). `prompt_chars` is
    the length of a recorded plain prompt, where the file has it.
    `gold` maps a task to its right label. `story` says what a broken record is.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    id: str | None = None
    text: str = ""
    prompt_chars: int | None = None
    gold: tuple[tuple[str, str], ...] = ()
    story: str | None = None


def shipped_reviews() -> list[Sample]:
    """The project's own reviews, in their order."""
    return [_review(json.loads(line)) for line in _shipped_lines("reviews.jsonl")]


def broken_records() -> list[Sample]:
    """Records that are no events, and one tombstone, each with what it is."""
    return [_broken(json.loads(line)) for line in _shipped_lines("broken_records.jsonl")]


def demo_samples(records: int | None = None) -> list[Sample]:
    """The reviews with the broken records spread among them; `records` cuts or repeats to that many.

    A repeat has ids of its own. The tombstone comes on top of `records`: it is no event.
    """
    once = len(shipped_reviews()) + sum(broken.value is not None for broken in broken_records())
    wanted = once if records is None else records
    found: list[Sample] = []
    for sample in _endless():
        if wanted == 0:
            break
        found.append(sample)
        wanted -= sample.value is not None
    return found


def samples_of_file(path: Path, records: int | None = None) -> list[Sample]:
    """The rows of a JSON Lines file (`.gz` or not): `text` is needed, `id`, `label` or `gold` are welcome.

    Raises SettingsError for a file that cannot be read, or a row that is no object with a text.
    """
    try:
        lines = _lines_of(path)
        return [_row(path, number, line) for number, line in enumerate(lines[:records], 1)]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read {path} ({error})", advice="--input wants JSON Lines, plain or .gz"
        ) from error


def gold_tasks(samples: Iterable[Sample]) -> frozenset[str]:
    """The tasks that any of the samples has a right answer for."""
    return frozenset(task for sample in samples for task, _ in sample.gold)


def _endless() -> Iterator[Sample]:
    """The shipped stream, again and again; from the second round on, ids carry the round's number."""
    for round_number in count(1):
        broken = broken_records()
        for position, review in enumerate(shipped_reviews(), 1):
            yield review if round_number == 1 else _again(review, round_number)
            if position % BROKEN_EVERY == 0 and broken:
                yield broken.pop(0)
        yield from broken


def _again(review: Sample, round_number: int) -> Sample:
    """The same review under another id, as if it had been posted again."""
    row: dict[str, Any] = json.loads(review.value or b"{}")
    row["id"] = f"{review.id}-{round_number}"
    return replace(review, id=row["id"], key=row["id"].encode(), value=_encoded(row))


def _shipped_lines(name: str) -> list[str]:
    return resources.files("stream_app.local").joinpath(name).read_text(encoding="utf-8").splitlines()


def _lines_of(path: Path) -> list[str]:
    """The file's lines that are not blank. Only line feeds part them: texts may hold other separators."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    return [line for line in text.split("\n") if line.strip()]


def _row(path: Path, number: int, line: str) -> Sample:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}, line {number}, is not JSON ({error.msg})") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise SettingsError(f"{path}, line {number}, has no text", advice='give each line a "text"')
    return _review({"id": f"line-{number}"} | row)


def _review(row: dict[str, Any]) -> Sample:
    """A row as it is sent, its gold labels taken out."""
    sent = {name: value for name, value in row.items() if name not in GOLD_FIELDS}
    identity = str(row["id"])
    return Sample(
        value=_encoded(sent),
        key=identity.encode(),
        id=identity,
        text=row["text"],
        prompt_chars=row.get("prompt_chars"),
        gold=_gold(row),
    )


def _gold(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The right labels by task: `gold` as a table, or a plain `label` where a demo task has such a label."""
    if isinstance(row.get("gold"), dict):
        return tuple(sorted(row["gold"].items()))
    tasks = [task for labels, task in TASK_BY_LABELS.items() if row.get("label") in labels]
    return tuple((task, row["label"]) for task in tasks)


def _broken(row: dict[str, Any]) -> Sample:
    """A broken record: `value` (times `repeat`) or the bytes of `value_base64`."""
    if "value_base64" in row:
        value: bytes | None = base64.b64decode(row["value_base64"])
    else:
        value = None if row["value"] is None else row["value"].encode() * row.get("repeat", 1)
    headers = tuple((name, text.encode()) for name, text in row.get("headers", {}).items())
    return Sample(value=value, key=row.get("key", row["name"]).encode(), headers=headers, story=row["why"])


def _encoded(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()

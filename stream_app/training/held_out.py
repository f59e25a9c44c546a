"""What must never teach: the rows that calibrate, certify, test and audit, known again by id and by their text.

`shunt calibrate` leaves the list beside the policy, as `POLICY.held-out.jsonl`; `shunt distill` takes it, or any file
of labelled rows, and refuses what it holds wherever it turns up: as feedback, as base rows, as unlabelled texts.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stream_app.errors import SettingsError
from stream_app.training.rows import UnreadableRow, json_objects

LEARNED = "learned.jsonl.gz"
"""In a model version's folder, a list of the same form: what taught it, and so may calibrate no policy of it."""
ID, TEXT_SHA256, TEXT = "id", "text_sha256", "text"
_WORDS = re.compile(r"\w+")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Items that may not teach: pairs of an id and of a text's hash, either of which may be unknown."""

    pairs: frozenset[tuple[str | None, str | None]] = frozenset()
    _ids: frozenset[str] = field(init=False, repr=False)
    _texts: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", frozenset(own for own, _ in self.pairs if own is not None))
        object.__setattr__(self, "_texts", frozenset(text for _, text in self.pairs if text is not None))

    @classmethod
    def of(cls, items: Iterable[tuple[str | None, str]]) -> "HeldOut":
        """These items: the id that names each in every file, None where there is none, and its text."""
        return cls(frozenset((own, text_sha256(text)) for own, text in items))

    def __or__(self, other: "HeldOut") -> "HeldOut":
        """What either holds."""
        return HeldOut(self.pairs | other.pairs)

    def holds_id(self, own_id: str | None) -> bool:
        """Whether an item of this id is held out, whatever its text."""
        return own_id is not None and own_id in self._ids

    def holds_text(self, text: str) -> bool:
        """Whether this text is held out, under whatever id."""
        return text_sha256(text) in self._texts


def text_sha256(text: str) -> str:
    """The content hash: of the text's words alone, so that case, spacing, punctuation and width do not hide a copy.

    A text without words is hashed as it stands, its spaces collapsed.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _WORDS.findall(folded) or folded.split()
    return hashlib.sha256(" ".join(words).encode("utf-8", "replace")).hexdigest()


def held_out_path(policy: Path) -> Path:
    """Where the list of a policy file stands: beside it."""
    return policy.with_name(f"{policy.stem}.held-out.jsonl")


def held_out_before(policy: Path) -> HeldOut:
    """What the policy in this file holds out already; nothing before there is a list. Raises as `read_held_out`."""
    path = held_out_path(policy)
    return read_held_out(path) if path.exists() else HeldOut()


def read_held_out(path: Path) -> HeldOut:
    """The list that a file stands for: a policy's (the list beside it), such a list itself, or labelled rows.

    Lines with an id alone, such as audit results, hold that event. Raises SettingsError where the policy has no list
    beside it, or a line is neither.
    """
    if _is_policy(path):
        path, policy = held_out_path(path), path
        if not path.exists():
            raise SettingsError(
                f"{policy} has no {path.name} beside it",
                advice="calibrate it again, or name the rows it was made from: --held-out FILE",
            )
    try:
        return HeldOut(frozenset(_line(place, fields) for _, place, fields in json_objects(path)))
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give a policy, its list, or labelled JSON Lines") from error


def _is_policy(path: Path) -> bool:
    try:
        found: object = json.loads(path.read_bytes())
    except ValueError:  # several lines, or compressed
        return False
    return isinstance(found, dict) and "tasks" in found


def dump_held_out(held: HeldOut) -> bytes:
    """The list as JSON Lines, sorted: the same items, the same bytes."""
    pairs = sorted(held.pairs, key=lambda pair: (pair[0] or "", pair[1] or ""))
    lines = [{ID: own, TEXT_SHA256: text} for own, text in pairs]
    known = [{name: told for name, told in line.items() if told is not None} for line in lines]
    return b"".join(json.dumps(line).encode() + b"\n" for line in known)


def _line(place: str, fields: Mapping[str, object]) -> tuple[str | None, str | None]:
    own, text, sha256 = fields.get(ID), fields.get(TEXT), fields.get(TEXT_SHA256)
    told = None if own is None else str(own)
    if isinstance(text, str):
        return told, text_sha256(text)
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return told, sha256
    if told is not None and text is None and sha256 is None:
        return told, None
    raise UnreadableRow(f"{place} has neither {ID}, text nor {TEXT_SHA256}")

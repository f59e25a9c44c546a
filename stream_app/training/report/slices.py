"""The same figures for parts of the rows: by domain, style, source, file and length. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.training.recorded import RecordedRow
from stream_app.training.shares import Share, share_of

LENGTHS = ((0, 100), (100, 300), (300, 1_000), (1_000, 3_000), (3_000, None))
"""In characters: a line, a few, a paragraph, a page, more."""
NONE = "(none)"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some test rows. `together` and `llm` are over those of them that have the LLM's answer; None without an LLM."""

    by: str
    name: str
    rows: int
    accepted: Share
    accepted_wrong: Share
    small: Share
    out_of_domain: Share
    together: Share | None
    llm: Share | None


@dataclass(frozen=True, slots=True)
class Judgements:
    """N rows, judged: the small answer right, accepted, of the domain.

    Where the LLM has answered (`known`), whether it and both together are right.
    """

    small_right: BoolArray
    accepted: BoolArray
    inside: BoolArray
    known: BoolArray | None
    llm_right: BoolArray
    together_right: BoolArray


def slices(rows: Sequence[RecordedRow], files: Sequence[str], judged: Judgements) -> tuple[Slice, ...]:
    """All slices that cut these rows in two or more parts; within a kind, the largest first (lengths as they rise).

    `files` names each row's file.
    """
    kinds = {
        "domain": [row.domain for row in rows],
        "style": [row.style for row in rows],
        "source": [row.source for row in rows],
        "file": list(files),
    }
    seen = set[tuple[str | None, ...]]()
    found = list[Slice]()
    for kind, names in kinds.items():
        if len(set(names)) > 1 and tuple(names) not in seen:
            seen.add(tuple(names))
            found += sorted(_by(kind, names, judged), key=lambda one: -one.rows)
    lengths = [_length(row.text) for row in rows]
    return (*found, *(_by("length", lengths, judged) if len(set(lengths)) > 1 else ()))


def _by(kind: str, names: Sequence[str | None], judged: Judgements) -> Iterator[Slice]:
    every = np.array([NONE if name is None else name for name in names])
    order = [_span(*span) for span in LENGTHS] if kind == "length" else sorted(set(every.tolist()))
    for name in order:
        here = every == name
        if here.any():
            yield _slice(kind, name, here, judged)


def _slice(kind: str, name: str, here: BoolArray, judged: Judgements) -> Slice:
    asked = None if judged.known is None else here & judged.known
    return Slice(
        by=kind,
        name=name,
        rows=int(here.sum()),
        accepted=share_of(judged.accepted[here]),
        accepted_wrong=share_of(~judged.small_right[here & judged.accepted]),
        small=share_of(judged.small_right[here]),
        out_of_domain=share_of(~judged.inside[here]),
        together=None if asked is None else share_of(judged.together_right[asked]),
        llm=None if asked is None else share_of(judged.llm_right[asked]),
    )


def _length(text: str) -> str:
    return next(_span(low, high) for low, high in LENGTHS if high is None or len(text) < high)


def _span(low: int, high: int | None) -> str:
    return f"{low:,} and more" if high is None else f"under {high:,}" if not low else f"{low:,} to {high - 1:,}"

"""Dead letters, and what becomes of them, as a person and as a program read them. Pure."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from stream_app.cli.dlq_fate import Before, Refused, Send, receipt_for
from stream_app.cli.lines import printable
from stream_app.cli.table import as_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_app.cli.dlq_fate import Fate
    from stream_app.cli.dlq_reading import Receipts
    from stream_app.cli.dlq_selection import Letter

BYTES_PER_LINE = 16
SHOWN_BYTES_MAX = 4_096
LINES_MAX = 50
"""Of letters that a replay lists; it counts them all, and --json names each."""


# Listing


def listed(letters: Iterable[Letter], receipts: Receipts) -> str:
    """A table, one letter a line."""
    header = ("dead letter", "when", "from", "stage", "cause", "attempts", "replayed", "why")
    return as_table(header, [_row(letter, receipts) for letter in letters])


def _row(letter: Letter, receipts: Receipts) -> tuple[object, ...]:
    cause = letter.told.cause
    receipt = receipt_for(letter, receipts.get(letter.place))
    return (
        f"{letter.partition}/{letter.offset}",
        time_of(letter.timestamp_ms),
        _source(letter),
        printable(cause.stage, 40),
        printable(cause.name, 40),
        letter.attempts,
        None if receipt is None else time_of(receipt.replayed_at_ms),
        printable(cause.message, 80),
    )


def letter_object(letter: Letter, receipts: Receipts) -> dict[str, object]:
    """What `--json` prints of a letter. `attempts`: how often the record had been sent back before it died so."""
    told = letter.told
    receipt = receipt_for(letter, receipts.get(letter.place))
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": time_of(letter.timestamp_ms),
        "key": _text(letter.key),
        "key_base64": _base64(letter.key),
        "source": {"topic": told.topic, "partition": told.partition, "offset": told.offset},
        "stage": told.cause.stage,
        "cause": told.cause.name,
        "exception": told.cause.exception,
        "message": told.cause.message,
        "truncated": told.truncated,
        "attempts": letter.attempts,
        "replay_of": None if letter.mark is None else letter.mark.of,
        "replayed_at": None if receipt is None else time_of(receipt.replayed_at_ms),
    }


def whole_object(letter: Letter, receipts: Receipts) -> dict[str, object]:
    """What `--json` prints of a letter in full: its headers in order, and its value's bytes."""
    headers = [{"name": name, "value_base64": _base64(value)} for name, value in letter.headers]
    return {**letter_object(letter, receipts), "headers": headers, "value_base64": _base64(letter.value)}


def description(letter: Letter, receipts: Receipts) -> list[str]:
    """One letter in full."""
    cause, receipt = letter.told.cause, receipt_for(letter, receipts.get(letter.place))
    lines = [
        f"dead letter  {letter.ref}, {time_of(letter.timestamp_ms)}",
        f"record       {_source(letter)}",
        f"cause        {printable(f'{cause.stage}: {cause.name} ({cause.exception})')}",
        f"why          {printable(cause.message)}",
    ]
    if letter.told.truncated:
        lines.append("cut          it was too large for this topic: the whole record stands at its source")
    if letter.mark is not None:
        lines.append(f"attempts     {letter.attempts}, the last as replay of {printable(letter.mark.of)}")
    if receipt is not None:
        lines.append(f"replayed     {time_of(receipt.replayed_at_ms)}, to {printable(receipt.to)}")
    return [
        *lines,
        "headers",
        *(f"  {printable(name)}: {_bytes(value)}" for name, value in letter.headers),
        f"key          {_bytes(letter.key)}",
        f"value        {len(letter.value or b''):,} bytes" if letter.value is not None else "value        null",
        *_dump(letter.value or b""),
    ]


def _source(letter: Letter) -> str:
    return f"{printable(letter.told.topic)}/{letter.told.partition}/{letter.told.offset}"


def time_of(timestamp_ms: int) -> str:
    """The time in UTC, to the second."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")


def _text(raw: bytes | None) -> str | None:
    """None where there is none, or where it is no text."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _bytes(raw: bytes | None) -> str:
    return "null" if raw is None else printable(raw.decode("utf-8", "backslashreplace"), 200)


def _dump(raw: bytes) -> list[str]:
    """The bytes in hexadecimal with their ASCII beside, as `hexdump -C` shows them."""
    lines: list[str] = []
    for start in range(0, min(len(raw), SHOWN_BYTES_MAX), BYTES_PER_LINE):
        part = raw[start : start + BYTES_PER_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"  {start:08x}  {part.hex(' '):<{3 * BYTES_PER_LINE}} {shown}")
    if len(raw) > SHOWN_BYTES_MAX:
        lines.append(f"  … {len(raw) - SHOWN_BYTES_MAX:,} bytes more: --raw prints them all")
    return lines


# Replaying


@dataclass(slots=True)
class Tally:
    """How a replay went. `sends` and `refusals` hold the first `LINES_MAX` of each."""

    sent: Counter[str] = field(default_factory=Counter[str])
    before: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    sends: list[Send] = field(default_factory=list[Send])
    refusals: list[Refused] = field(default_factory=list[Refused])

    def add(self, fate: Fate) -> None:
        """Counts one letter."""
        match fate:
            case Send():
                self.sent[fate.outgoing.topic] += 1
                if len(self.sends) < LINES_MAX:
                    self.sends.append(fate)
            case Before():
                self.before += 1
            case Refused():
                self.refused[fate.why] += 1
                if len(self.refusals) < LINES_MAX:
                    self.refusals.append(fate)
            case _:
                assert_never(fate)

    @property
    def letters(self) -> int:
        """All of them."""
        return self.sent.total() + self.before + self.refused.total()


def fate_object(fate: Fate, *, dry_run: bool) -> dict[str, object]:
    """What `--json` prints of a letter that was to be replayed."""
    letter = fate.letter
    told: dict[str, object] = {
        "partition": letter.partition,
        "offset": letter.offset,
        "source": {"topic": letter.told.topic, "partition": letter.told.partition, "offset": letter.told.offset},
        "stage": letter.told.cause.stage,
        "cause": letter.told.cause.name,
    }
    match fate:
        case Send():
            to = {"topic": fate.outgoing.topic, "partition": fate.outgoing.partition}
            return {**told, "outcome": "would_send" if dry_run else "sent", "to": to, "attempt": fate.attempt}
        case Before():
            return {**told, "outcome": "replayed_before", "replayed_at": time_of(fate.receipt.replayed_at_ms)}
        case Refused():
            return {**told, "outcome": "refused", "why": fate.why.value, "message": fate.told, "advice": fate.advice}
    assert_never(fate)


def replay_lines(tally: Tally, *, dry_run: bool) -> list[str]:
    """What a replay did, or would do, for a person."""
    lines: list[str] = []
    if dry_run and tally.sends:
        rows = [
            (
                f"{send.letter.partition}/{send.letter.offset}",
                f"{printable(send.outgoing.topic)}/{send.outgoing.partition}",
                send.attempt,
                printable(send.letter.told.cause.name, 40),
                _bytes(send.letter.key),
                len(send.letter.value) if send.letter.value is not None else None,
            )
            for send in tally.sends
        ]
        lines += [as_table(("dead letter", "would go to", "attempt", "cause", "key", "bytes"), rows)]
        lines += [*_more(tally.sent.total() - len(tally.sends)), ""]
    if tally.refusals:
        refused = [
            (f"{refusal.letter.partition}/{refusal.letter.offset}", refusal.told, refusal.advice)
            for refusal in tally.refusals
        ]
        lines += [as_table(("dead letter", "not sent, for", "what to do"), refused)]
        lines += [*_more(tally.refused.total() - len(tally.refusals)), ""]
    return [*lines, f"{'would be sent' if dry_run else 'sent'}: {_counts(tally)}"]


def _more(count: int) -> list[str]:
    return [f"… and {count:,} more: --json names each"] if count else []


def _counts(tally: Tally) -> str:
    sent = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(tally.sent.items())) or "nothing"
    before = f"; {tally.before:,} replayed before" if tally.before else ""
    refused = f"; {tally.refused.total():,} refused" if tally.refused else ""
    return sent + before + refused

"""How the demo writes figures: money, time, shares, excerpts. One way for each, wherever it is shown."""

from __future__ import annotations

import unicodedata


def usd(amount: float) -> str:
    """Dollars with as many decimals as the amount needs to say something."""
    if amount == 0:
        return "$0"
    decimals = next((places for places in (2, 4, 6) if amount >= 10.0 ** (1 - places)), 7)
    return f"${amount:.{decimals}f}"


def duration(milliseconds: float | None) -> str:
    """Milliseconds below a second, seconds above; a dash where there is none."""
    if milliseconds is None:
        return "—"
    if milliseconds < 1000:
        return f"{max(milliseconds, 0):.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def percent(share: float | None, decimals: int = 1) -> str:
    """A share as per cent; a dash where there is none."""
    return "—" if share is None else f"{100 * share:.{decimals}f} %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 dead letter`, `3 dead letters`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def excerpt(text: str) -> str:
    """The text on one line, without anything a terminal would obey."""
    return " ".join("".join(map(_harmless, text)).split())


def _harmless(letter: str) -> str:
    """The letter; a blank for what parts words, nothing for what is no letter at all (joiners, directions)."""
    if letter.isprintable():
        return letter
    return " " if unicodedata.category(letter) in {"Cc", "Zl", "Zp", "Zs"} else ""

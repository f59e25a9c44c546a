"""How the report says its figures. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_app.training.shares import Share
from stream_app.training.verdict import Verdict

if TYPE_CHECKING:
    from stream_app.training.kept import Kept
    from stream_app.training.paired import Paired
    from stream_app.training.report.bounds import PromiseSteps

THIN: Final = "\N{NARROW NO-BREAK SPACE}"
NOTHING: Final = "\N{EN DASH}"


def per_cent(value: float | None, digits: int = 1) -> str:
    """0.9471 as 94.7 %; a dash for None."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}{THIN}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(found: Share | Paired) -> str:
    """From low to high: per cent of a share, points of a difference."""
    if isinstance(found, Share):
        return NOTHING if found.share is None else f"{100 * found.low:.1f}\N{EN DASH}{100 * found.high:.1f}"
    return f"{points(found.low)} to {points(found.high)}"


def told(found: Paired) -> str:
    """Whether a difference is one."""
    return "told" if found.told else "could be chance"


def promise(found: Kept | PromiseSteps, *, any_of: bool = False) -> str:
    """What is promised, in words. With `any_of` a text is wrong where any of its labels is."""
    if found.what == "missed":
        return f"Of what truly is {found.label}, at most {per_cent(found.share_max)} is accepted as something else"
    whose = "accepted" if found.label is None else f"accepted as {found.label}"
    where = "" if found.prevalence is None else f", where {per_cent(found.prevalence)} of the traffic is"
    wrong = "has any label wrong" if any_of else "is wrong"
    return f"Of what is {whose}, at most {per_cent(found.share_max)} {wrong}{where}"


def tone(found: Verdict) -> str:
    """The colour of a verdict, as the page names it."""
    return {Verdict.NOT_NEEDED: "small", Verdict.HELPS: "llm", Verdict.NOT_GOOD_ENOUGH: "wrong"}.get(found, "soft")


def count(value: float) -> str:
    """1234 as 1,234."""
    return f"{value:,.0f}"


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; a dash for None."""
    return NOTHING if value is None else f"{value:.{digits}f}"


FILTERS: Final = {
    "per_cent": per_cent,
    "points": points,
    "interval": interval,
    "told": told,
    "promise": promise,
    "tone": tone,
    "count": count,
    "fixed": fixed,
}

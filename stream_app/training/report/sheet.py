"""One drawing as SVG that takes the page's colours and type.

matplotlib draws in colours that stand for roles; each is then replaced by the page's variable, so that one drawing
serves light, dark and print. It is imported when the first drawing is made.
"""

from __future__ import annotations

import io
import re
from typing import Any, Final, Self

ROLES: Final = {
    "ink": "#010101",
    "soft": "#020202",
    "line": "#030303",
    "card": "#040404",
    "small": "#050505",
    "llm": "#060606",
    "ours": "#070707",
    "wrong": "#080808",
    "other": "#090909",
}
"""A colour that nothing else has, for each variable of the page."""


STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # letters stay letters: they can be read aloud, searched and copied
    "svg.hashsalt": "shunt",  # the same figures give the same page
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": ROLES["line"],
    "axes.labelcolor": ROLES["soft"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": ROLES["line"],
    "grid.linewidth": 0.7,
    "text.color": ROLES["ink"],
    "xtick.color": ROLES["line"],
    "ytick.color": ROLES["line"],
    "xtick.labelcolor": ROLES["soft"],
    "ytick.labelcolor": ROLES["soft"],
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


class Sheet:
    """One figure under way: `axes` to draw on. As a context it sets the style for all that is drawn meanwhile."""

    def __init__(self, size: tuple[float, float], name: str) -> None:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

        self._size, self._name = size, name
        self._style: Any = mpl.rc_context(STYLE)

    def __enter__(self) -> Self:
        """Raises nothing."""
        from matplotlib.figure import Figure  # noqa: PLC0415

        self._style.__enter__()
        self._figure: Any = Figure(figsize=self._size, layout="constrained")
        self.axes: Any = self._figure.subplots()
        return self

    def __exit__(self, *failed: object) -> None:
        """Gives back the style that was."""
        self._style.__exit__(*failed)

    def svg(self, x: str, y: str) -> str:
        """The drawing as an element for a page, `x` and `y` named, both in per cent.

        No prologue, no metadata, no style of its own; ids begin with the figure's name, and colours are the page's.
        """
        self.axes.set_xlabel(x)
        self.axes.set_ylabel(y)
        for axis in (self.axes.xaxis, self.axes.yaxis):
            axis.set_major_formatter(_per_cent)
        self.axes.tick_params(length=0)
        into = io.StringIO()
        self._figure.savefig(into, format="svg", metadata={"Date": None}, transparent=True)
        drawn = into.getvalue()
        drawn = drawn[drawn.index("<svg") :]
        # A style element in a drawing would hold for the whole page.
        drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
        drawn = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawn, count=2)
        drawn = re.sub(r"(?<=[\"; ])font:? ?(-family)?:? ?[^;\"]*(?:sans-serif|DejaVu)[^;\"]*;?", _size_alone, drawn)
        drawn = re.sub(r'\bid="', f'id="{self._name}-', drawn)
        drawn = re.sub(r'(url\(#|href="#)', rf"\g<1>{self._name}-", drawn)
        for role, colour in ROLES.items():
            drawn = drawn.replace(colour, f"var(--{role})")
        return drawn


def _per_cent(value: float, _place: object) -> str:
    return f"{100 * value:.4g} %"


def _size_alone(found: re.Match[str]) -> str:
    """The page's own type, at the drawing's size."""
    size = re.search(r"[\d.]+px", found.group())
    return f"font-size: {size.group()};" if size else ""

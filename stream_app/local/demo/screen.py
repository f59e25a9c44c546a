"""What the demo shows while it runs: outcomes scroll by, figures stand below; plain lines where no one watches."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from stream_app.local.demo.lines import LEGEND, STYLES, outcome_line
from stream_app.local.demo.outcomes import Decided
from stream_app.local.demo.words import percent, plural, usd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import RenderableType

    from stream_app.local.demo.outcomes import Outcome
    from stream_app.local.demo.tally import Tally

LINES_PER_S_MAX = 40
"""More a person cannot see, and a terminal would slow the run; the others are counted."""
PLAIN_WIDTH = 160


def console(*, stderr: bool) -> Console:
    """A console as wide as the terminal; where there is none, wide enough and without any control code."""
    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if watched else PLAIN_WIDTH)


class Screen:
    """Prints above a live last line (on a terminal), or lines alone. Usable from any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._doing = "starting"
        self._tally: Tally | None = None
        self._page = ""
        self._texts: Mapping[str, str] = {}
        self._window_s, self._in_window, self._unseen = 0.0, 0, 0
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            get_renderable=self._last_line, console=console, transient=True, refresh_per_second=8, auto_refresh=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, words: str, style: str = "") -> None:
        """A line of its own."""
        self._console.print(Text(words, style))

    def doing(self, words: str) -> None:
        """What is going on now, on the last line."""
        self._doing = words

    def step(self, words: str) -> None:
        """Something of the start is done, or worth telling."""
        done = "ready" in words
        self._console.print(Text("  ✓ " if done else "  · ", "green" if done else "dim").append(words, "default"))

    def watch(self, tally: Tally, texts: Mapping[str, str], page: str) -> None:
        """From now on outcomes come; `texts` are the texts by event id."""
        self._tally, self._texts, self._page = tally, texts, page
        self._console.print()
        self._console.print(Text(LEGEND, "dim"))

    def outcome(self, outcome: Outcome) -> None:
        """One line for an outcome, unless too many have come within this second."""
        now_s = time.monotonic()
        if now_s - self._window_s >= 1:
            self._window_s, self._in_window = now_s, 0
        self._in_window += 1
        if self._in_window > LINES_PER_S_MAX:
            self._unseen += 1
            return
        self._tell_unseen()
        text = self._texts.get(outcome.id, "") if isinstance(outcome, Decided) else ""
        self._console.print(outcome_line(outcome, text, self._console.width))

    def show(self, what: RenderableType) -> None:
        """The end: nothing live below it any more."""
        self._tell_unseen()
        self._live.stop()
        self._console.print(what)

    @property
    def has_a_reader(self) -> bool:
        """Whether someone sits there who may want to go on looking."""
        return self._console.is_terminal and sys.stdin.isatty()

    @property
    def width(self) -> int:
        """Cells in a line."""
        return self._console.width

    def _tell_unseen(self) -> None:
        if self._unseen:
            self._console.print(Text(f"         … and {self._unseen:,} more", "dim"))
            self._unseen = 0

    def _last_line(self) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        seconds = f"{time.monotonic() - self._began_s:.0f} s"
        words = self._figures(self._tally) if self._tally is not None else Text(f"{self._doing} … {seconds}", "cyan")
        line.add_row(self._spinner, words)
        return line

    def _figures(self, tally: Tally) -> Text:
        words = Text(no_wrap=True, overflow="ellipsis")
        words.append(f"{tally.closed:,} of {tally.planned:,}", "bold")
        decided = sum(tally.routes[route] for route in ("small", "LLM", "degraded"))
        for route in ("small", "LLM", "degraded"):
            if tally.routes[route]:
                words.append(" · ", "dim").append(
                    f"{route} {percent(tally.routes[route] / decided, 0)}", STYLES[route]
                )
        if tally.routes["DLQ"]:
            words.append(" · ", "dim").append(plural(tally.routes["DLQ"], "dead letter"), STYLES["DLQ"])
        words.append(" · ", "dim").append(usd(tally.cost_usd), "magenta")
        words.append(" · ", "dim").append(self._doing if tally.sent < 1 or tally.closed < 1 else self._page, "cyan")
        return words

"""The stand-in's own rate limits: token buckets, as the OpenAI API describes its limits."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(slots=True)
class Bucket:
    """So many units a minute. It holds at most what `burst_s` seconds bring, and is full at first.

    A limit of 0 is no limit. Time is an argument, in seconds on any clock that does not go back.
    """

    per_minute: int
    burst_s: float = WINDOW_S
    _level: float = 0.0
    _filled_at: float | None = None

    @property
    def capacity(self) -> float:
        """The most it holds; never less than one unit, or nothing would ever pass."""
        return max(1.0, self.per_minute * self.burst_s / WINDOW_S)

    def wait_s(self, units: float, now: float) -> float:
        """Seconds until `units` can be taken; 0 when they can be now. More than it ever holds waits until full."""
        if not self.per_minute:
            return 0.0
        self._fill(now)
        lacking = min(units, self.capacity) - self._level
        return max(0.0, lacking * WINDOW_S / self.per_minute)

    def take(self, units: float, now: float) -> None:
        """Take `units`; negative ones are given back. The level may fall below zero."""
        if self.per_minute:
            self._fill(now)
            self._level = min(self.capacity, self._level - units)

    def headers(self, kind: str, now: float) -> dict[str, str]:
        """`x-ratelimit-*` headers for this limit (kind `requests` or `tokens`); none without a limit."""
        if not self.per_minute:
            return {}
        self._fill(now)
        until_full_s = (self.capacity - self._level) * WINDOW_S / self.per_minute
        return {
            f"x-ratelimit-limit-{kind}": str(self.per_minute),
            f"x-ratelimit-remaining-{kind}": str(max(0, int(self._level))),
            f"x-ratelimit-reset-{kind}": go_duration(until_full_s),
        }

    def _fill(self, now: float) -> None:
        if self._filled_at is None:
            self._level = self.capacity
        else:
            gained = (now - self._filled_at) * self.per_minute / WINDOW_S
            self._level = min(self.capacity, self._level + gained)
        self._filled_at = now


def go_duration(seconds: float) -> str:
    """Seconds as the API's headers write them: `12ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    short = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{short}s" if minutes else f"{short}s"

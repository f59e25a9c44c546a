"""How often a worker may lose its membership before it ends."""

from __future__ import annotations

import logging
from collections import deque

from stream_app.errors import MembershipLost, MembershipLostTooOften

log = logging.getLogger(__name__)

LOSSES_MAX = 5
LOSSES_WINDOW_S = 600.0
"""Membership lost five times in ten minutes: this worker hinders the group, and ends with status 3."""


class Losses:
    """The losses in the ten minutes up to the last one. Reads no clock: `now_s` is an argument."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._at_s: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._at_s)

    def note(self, loss: MembershipLost, now_s: float) -> None:
        """Counts one loss. Raises MembershipLostTooOften with the fifth in ten minutes."""
        self._at_s.append(now_s)
        while self._at_s[0] < now_s - LOSSES_WINDOW_S:
            self._at_s.popleft()
        log.warning("membership of group %s lost (%d in ten minutes): %s", self._group, len(self), loss)
        if len(self) >= LOSSES_MAX:
            raise MembershipLostTooOften(
                f"group {self._group}: membership lost {LOSSES_MAX} times in ten minutes, last: {loss.message}",
                advice="look for a worker with the same group that is stalled, or raise kafka.session_timeout_ms; "
                "where transactions take too long, find out why the brokers are slow",
            )

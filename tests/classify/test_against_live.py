"""A challenger's would-be decisions beside the live ones: counted by event, whichever side comes first."""

from __future__ import annotations

import pytest

from stream_app.classify import against_live
from stream_app.classify.against_live import AgainstLive, Live

LIVE = Live({"sentiment": "positive"}, escalated=False, answered=False)
ASKED = Live({"sentiment": "negative"}, escalated=True, answered=True)


@pytest.mark.parametrize("live_first", [True, False])
def test_each_event_is_counted_once_in_any_order(live_first):
    """Coverage of both, the same labels among what the challenger would accept, and those where the LLM answered."""
    seen = AgainstLive()
    sides = [
        [("a", LIVE), ("b", ASKED), ("c", ASKED), ("d", LIVE)],
        [("a", LIVE.labels), ("b", LIVE.labels), ("c", ASKED.labels), ("d", None)],
    ]
    for side in (0, 1) if live_first else (1, 0):
        for source, what in sides[side]:
            (seen.live if side == 0 else seen.would_be)(source, what)
    assert seen.told() == {
        "matched": 4,
        "coverage": 0.75,
        "live_coverage": 0.5,
        "agreement": pytest.approx(2 / 3),
        "answered_and_accepted": 2,
        "agreement_where_answered": 0.5,
        "unmatched": 0,
    }
    assert "66.7% of what it would accept" in "\n".join(seen.lines("p@2"))


def test_what_waits_is_bounded(monkeypatch):
    """Of events that never meet the other side the oldest are let go, and counted."""
    monkeypatch.setattr(against_live, "WAITING_MAX", 2)
    seen = AgainstLive()
    for number in range(5):
        seen.would_be(str(number), None)
    assert seen.told()["unmatched"] == 5
    seen.live("4", LIVE)
    seen.live("0", LIVE)
    assert seen.told()["matched"] == 1
    assert "none of these events" in "\n".join(AgainstLive().lines("p@2"))

"""An LLM that is away, workers as a user starts them: final in time, corrected once, also through a kill."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.escalate.outage import Seen, breaches, outage, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.stand_in import StandIn


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kill", [False, True], ids=["nobody-dies", "one-dies-while-it-corrects"])
def test_every_event_leaves_in_time_and_is_corrected_once(
    stack: Any, llm: StandIn, unique_name: Callable[[str], str], tmp_path: Path, kill: bool
) -> None:
    """15 s of outage, half of it hanging: each final before its deadline + 1 s, marked, and corrected exactly once.

    `python -m benchmarks.outage` does the same for two minutes.
    """
    made = pipeline(tmp_path, stack, llm, unique_name("reviews"))
    try:
        found = outage(made, 15.0, 20.0, kill=kill)
    finally:
        for worker in made.workers:
            worker.kill()
    print(found.as_json())
    assert found.degraded > 100
    assert not found.breaches


def seen(kind: str, at: int, *, revision: int = 0, degraded: bool = False, took_s: float = 1.0, **more: Any) -> Seen:
    """A decision of event 0, at that offset of the output."""
    decision = {
        "kind": kind,
        "revision": revision,
        "replaces": revision - 1 if kind == "correction" else None,
        "degraded": degraded,
        "degraded_reason": "outage" if degraded else None,
        "decided_by": "small" if degraded else "llm",
        "source": {"timestamp": "1970-01-01T00:00:00.000Z"},
        **more,
    }
    return Seen(took_s, 0, (0, at), decision)


FINAL, CORRECTION = seen("final", 1, degraded=True), seen("correction", 2, revision=1)


@pytest.mark.parametrize(
    ("breach", "made"),
    [
        ("without a final", []),
        ("not one final", [FINAL, replace(FINAL, place=(0, 3)), CORRECTION]),
        ("not corrected", [FINAL]),
        ("corrected twice", [FINAL, CORRECTION, replace(CORRECTION, place=(0, 3))]),
        ("corrected though answered", [seen("final", 1), CORRECTION]),
        ("after its deadline", [seen("final", 1, degraded=True, took_s=11.5), CORRECTION]),
        ("not marked with the reason", [seen("final", 1, degraded=True, degraded_reason="refused"), CORRECTION]),
        ("corrects something else", [FINAL, seen("correction", 2, revision=2)]),
        ("not behind its final", [FINAL, replace(CORRECTION, place=(0, 0))]),
        ("not by the LLM", [FINAL, seen("correction", 2, revision=1, decided_by="small")]),
    ],
)
def test_the_account_finds_each_breach(breach: str, made: list[Seen]) -> None:
    """What holds has none, and each promise that is broken by hand is named."""
    assert breaches(1, [FINAL, CORRECTION]) == {}
    assert breaches(1, made) == {breach: 1}

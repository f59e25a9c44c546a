"""The budget in dollars through kills, by the provider's own account. The long form: benchmarks/budget_kills.py."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.escalate.budget_kills import budget_usd, killed, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.stand_in import StandIn

KILLS = 3


@pytest.mark.timeout(420)
def test_spent_and_reserved_never_pass_the_budget_through_kills(
    stack: Any, llm: StandIn, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    """Three workers, three kills and restarts with calls under way: the bill stays within the budget, and is spent.

    What is reserved counts as the provider counts it: input and the longest output of every call in the air.
    """
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    made = pipeline(tmp_path, stack, llm, unique_name("reviews"), budget_usd(KILLS))
    try:
        account = killed(made, KILLS, seed)
    finally:
        for worker in made.workers:
            worker.kill()
    print(account.as_json())
    assert account.holds, account
    assert min(account.in_flight_at_kills) > 0, account
    assert account.spent_usd >= 0.5 * account.budget_usd, account

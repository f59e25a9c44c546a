"""Three workers that spend a budget and are killed meanwhile; what the provider's own account says of it."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stream_app.escalate.budget import DAY_S
from tests.escalate import escalated
from tests.escalate.workers import PARTITIONS, Pipeline, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.escalate.workers import Worker
    from tests.stand_in import StandIn

WORKERS = 3
IN_FLIGHT_EACH = 12
BUSY = WORKERS * IN_FLIGHT_EACH - 6
"""With so many calls under way each worker has some."""
USD_PER_MILLION = 1_000.0
"""So dear that a call may cost $2.50 and costs about 40 cents: a budget lasts a minute."""
CALM_S = 3.0
"""So long without a call while there is work: the budget is spent."""
EXHAUSTED_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Account:
    """Dollars, by the provider's account but for the budget. `most_usd` is the highest of spent and reserved.

    `left_usd` was never spent: what kills left behind in leases, and what no longer reached for a call.
    """

    seed: int
    kills: int
    in_flight_at_kills: tuple[int, ...]
    budget_usd: float
    days: int
    spent_usd: float
    most_usd: float
    left_usd: float
    calls: int
    asked_twice: int
    finals: int
    took_s: float

    @property
    def holds(self) -> bool:
        """Whether spent and reserved never were more than the budget of the days that it went on."""
        return self.most_usd <= self.budget_usd * self.days

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def budget_usd(kills: int) -> float:
    """Enough for the time that so many kills take, and for what they leave unused."""
    return 100.0 + 150.0 * kills


def pipeline(folder: Path, stack: Any, llm: StandIn, name: str, usd: float) -> Pipeline:
    """A pipeline whose workers may spend so much a day, and as much in any hour of it."""
    prices = {"usd_per_million_input": USD_PER_MILLION, "usd_per_million_output": USD_PER_MILLION}
    llm.admin("prices", prices)
    llm.latency(1_500)
    lane = {
        "usd_per_hour": usd,
        "usd_per_day": usd,
        "max_in_flight": IN_FLIGHT_EACH,
        "text_tokens_max": 200,
        "on_budget": "wait",
    }
    return Pipeline(folder, stack, llm, name, lane=lane, endpoint=prices)


def killed(made: Pipeline, kills: int, seed: int) -> Account:
    """Kills a worker and starts another, again and again, with calls under way; then spends what is left."""
    draw, began_s, began_day = random.Random(seed), time.monotonic(), time.time() // DAY_S
    usd = made.settings.llm.usd_per_day
    made.produce(int(usd * 4))  # calls cost more than 25 cents
    running = [made.start() for _ in range(WORKERS)]
    in_flight: list[int] = []
    for _ in range(kills):
        made.busy(BUSY)
        time.sleep(draw.uniform(0.0, 1.0))
        in_flight.append(made.llm.in_flight())
        victim = running.pop(draw.randrange(WORKERS))
        victim.kill()
        running.append(made.start())
    made.busy(BUSY)
    made.llm.latency(100)
    until(lambda: exhausted(made, running), lambda: "the budget is spent", EXHAUSTED_WITHIN_S)
    account = made.llm.admin("account", method="GET")
    calls = made.calls()
    finals = escalated.finals_per_source(escalated.finals(made.servers, made.settings.kafka.names.decisions))
    assert set(finals.values()) == {1}, finals.most_common(3)
    return Account(
        seed=seed,
        kills=kills,
        in_flight_at_kills=tuple(in_flight),
        budget_usd=usd,
        days=int(time.time() // DAY_S - began_day) + 1,
        spent_usd=account["spent_usd"],
        most_usd=account["spent_and_reserved_max_usd"],
        left_usd=round(usd - account["spent_usd"], 3),
        calls=sum(map(len, calls.values())),
        asked_twice=sum(len(each) > 1 for each in calls.values()),
        finals=len(finals),
        took_s=round(time.monotonic() - began_s, 1),
    )


def exhausted(made: Pipeline, running: list[Worker]) -> bool:
    """Whether every partition has its worker, each waits for the next day's budget, and nobody calls."""
    owned = [partition for worker in running for partition in worker.owned()]
    if sorted(owned) != list(range(PARTITIONS)):
        return False
    if not all(worker.samples("shunt_waiting").get(("escalate", "budget")) for worker in running):
        return False
    until_s = time.monotonic() + CALM_S
    while time.monotonic() < until_s:
        if made.llm.in_flight():
            return False
        time.sleep(0.1)
    return True

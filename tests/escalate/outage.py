"""An LLM that is away for a while, before the eyes of a reader that shares no code with the lane."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.beside import Every
from tests.escalate.workers import PARTITIONS, Pipeline, until
from tests.kafka.reading import committed_and_end

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from tests.stand_in import StandIn

DEADLINE_S = 10.0
TIMEOUT_S = 4.0
GRACE_S = 1.0
"""So long after its deadline an event may still be on its way to a reader."""
FAILOVER_S = 11.0
"""What a kill may add: the session's time-out and the opening of partitions."""
CALM_S = 5.0
"""Before the outage, and after the last correction: both are like any other time."""
CORRECTED_WITHIN_S = 120.0
ALLOWED = {"deadline", "outage"}


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the events. `breaches` must be empty; latencies are from the escalation to the reader."""

    outage_s: float
    per_s: float
    killed: bool
    events: int
    degraded: int
    corrected: int
    latest_final_s: float
    """The latest arrival of a degraded final, from its escalation; `DEADLINE_S` and `GRACE_S` are the bound."""
    all_corrected_s: float
    """From the LLM's return to the last correction."""
    calm_ms: tuple[float, float]
    """p50 and p99 of the LLM's finals before the outage, and while parked events are asked."""
    correcting_ms: tuple[float, float]
    calls: int
    breaches: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether every event had what it was promised."""
        return not self.breaches

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision, and when it came (wall clock)."""

    at_s: float
    offset: int
    place: tuple[int, int]
    decision: dict[str, Any]

    @property
    def took_s(self) -> float:
        """From the escalation, whose time is the source's here."""
        return self.at_s - datetime.fromisoformat(self.decision["source"]["timestamp"]).timestamp()


def pipeline(folder: Path, stack: Any, llm: StandIn, name: str) -> Pipeline:
    """A pipeline whose events do not wait for an LLM that is away."""
    llm.latency(200, 0.3)
    lane = {"on_outage": "degrade", "deadline_s": DEADLINE_S, "timeout_s": TIMEOUT_S}
    return Pipeline(folder, stack, llm, name, lane=lane)


def outage(made: Pipeline, outage_s: float, per_s: float, *, kill: bool = False) -> Account:
    """Two workers, events all the time, the LLM away: it hangs for half of the time, then fails at once.

    With `kill` one worker is killed while it corrects, and another one started.
    """
    victim, _ = made.start(), made.start()
    with watched(made) as seen:
        with fed(made, per_s):
            time.sleep(CALM_S)
            for kind in ("hang", "server_error"):
                made.llm.well()
                made.llm.fault(kind)
                time.sleep(outage_s / 2)
            made.llm.well()
            back_s = time.time()
            if kill:
                until(lambda: corrections(seen), lambda: "the first correction", CORRECTED_WITHIN_S)
                victim.kill()
                made.start()
            until(
                lambda: len(corrections(seen)) >= len(degraded(seen)),
                lambda: f"{len(corrections(seen))} corrections of {len(degraded(seen))}",
                CORRECTED_WITHIN_S,
            )
        made.at_rest()
        until(lambda: parked_lag(made) == 0, lambda: "nothing is parked any more", CORRECTED_WITHIN_S)
        time.sleep(CALM_S)  # what came twice would be there by now
    return account(made, list(seen), outage_s, per_s, back_s, killed=kill)


def account(
    made: Pipeline, seen: list[Seen], outage_s: float, per_s: float, back_s: float, *, killed: bool
) -> Account:
    late = [one.at_s for one in seen if one.decision["kind"] == "correction"]
    last_s = max(late, default=back_s)
    answered = [one for one in seen if one.decision["kind"] == "final" and not one.decision["degraded"]]
    first_s = min(one.at_s for one in degraded(seen))
    return Account(
        outage_s=outage_s,
        per_s=per_s,
        killed=killed,
        events=made.produced,
        degraded=len(degraded(seen)),
        corrected=len(corrections(seen)),
        latest_final_s=round(max(one.took_s for one in degraded(seen)), 2),
        all_corrected_s=round(last_s - back_s, 1),
        calm_ms=_quantiles(one.took_s for one in answered if one.at_s < first_s),
        correcting_ms=_quantiles(one.took_s for one in answered if min(late, default=0) <= one.at_s <= last_s),
        calls=sum(map(len, made.calls().values())),
        breaches=breaches(made.produced, seen, DEADLINE_S + GRACE_S + (FAILOVER_S if killed else 0.0)),
    )


def breaches(produced: int, seen: list[Seen], within_s: float = DEADLINE_S + GRACE_S) -> dict[str, int]:
    """How often each promise was broken, those that were. Degraded finals have to come `within_s`."""
    found: Counter[str] = Counter()
    by_offset: dict[int, list[Seen]] = defaultdict(list)
    for one in seen:
        by_offset[one.offset].append(one)
    found["without a final"] = sum(number not in by_offset for number in range(produced))
    for of_event in by_offset.values():
        finals = [one for one in of_event if one.decision["kind"] == "final"]
        late = [one for one in of_event if one.decision["kind"] == "correction"]
        if len(finals) != 1:
            found["not one final"] += 1
            continue
        final = finals[0]
        if final.decision["degraded"]:
            found["not marked with the reason"] += final.decision["degraded_reason"] not in ALLOWED
            found["after its deadline"] += final.took_s > within_s
        found["not corrected"] += bool(final.decision["degraded"]) and not late
        found["corrected though answered"] += not final.decision["degraded"] and bool(late)
        found["corrected twice"] += len(late) > 1
        for one in late:
            found["corrects something else"] += one.decision["replaces"] != final.decision["revision"]
            found["not behind its final"] += one.place[0] != final.place[0] or one.place[1] < final.place[1]
            found["not by the LLM"] += one.decision["decided_by"] != "llm" or one.decision["degraded"]
    return {breach: times for breach, times in found.items() if times}


def degraded(seen: list[Seen]) -> list[Seen]:
    return [one for one in list(seen) if one.decision["kind"] == "final" and one.decision["degraded"]]


def corrections(seen: list[Seen]) -> list[Seen]:
    return [one for one in list(seen) if one.decision["kind"] == "correction"]


def parked_lag(made: Pipeline) -> int:
    found = committed_and_end(made.servers, made.settings.kafka.names.parked, f"{made.settings.kafka.group}-escalate")
    return sum(end - max(committed, 0) for committed, end in found.values())


@contextmanager
def fed(made: Pipeline, per_s: float) -> Generator[None]:
    """So many new events a second while the block runs."""
    began_s, produced = time.monotonic(), made.produced

    def feed() -> None:
        due = int((time.monotonic() - began_s) * per_s) - (made.produced - produced)
        if due > 0:
            made.produce(due)

    with Every(0.25, feed):
        yield


@contextmanager
def watched(made: Pipeline) -> Generator[list[Seen]]:
    """Every decision, from the first one on, as it comes to a reader of committed records."""
    seen: list[Seen] = []
    over = threading.Event()
    consumer = Consumer(
        {
            "bootstrap.servers": made.servers,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    topic = made.settings.kafka.names.decisions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])

    def watch() -> None:
        while not over.is_set():
            for message in consumer.consume(500, 0.1):
                if not message.error():
                    decision = json.loads(message.value() or b"{}")
                    place = (message.partition() or 0, message.offset() or 0)
                    seen.append(Seen(time.time(), decision["source"]["offset"], place, decision))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()
        consumer.close()


def _quantiles(took_s: Iterable[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds; 0 without any."""
    ordered = sorted(took_s)
    if not ordered:
        return (0.0, 0.0)
    return tuple(round(1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in (0.5, 0.99))

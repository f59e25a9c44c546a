"""Asks the LLM about labelled rows, by the slow lane's own calls, limits and dollar budget, without Kafka.

There is one partition, owned from beginning to end, and its leases are granted in the process: nobody else spends
from them. The clock of the budget stands still, so that hour and day are the whole run, and the cap holds over
midnight too. A row is started only when the cap covers all its variants at their worst.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stream_app.cli.live_client import Heard
from stream_app.escalate.admission import WAITS_FOR, Admission
from stream_app.escalate.breaker import Circuit
from stream_app.escalate.budget import NANO
from stream_app.escalate.gate import gate_of
from stream_app.escalate.line import Line, PricedClient
from stream_app.escalate.question import GotAnswer, NoAnswer, Question
from stream_app.events import in_words
from stream_app.telemetry import Metrics
from stream_app.training.compared import AskedAs, AskedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_app.cli.live_questions import LiveRow, Questions, Variant
    from stream_app.escalate.client import LlmClient
    from stream_app.escalate.prices import Price
    from stream_app.escalate.prompt import Request
    from stream_app.escalate.question import AskResult
    from stream_app.settings import Settings

PARTITION = 0
TICK_S = 0.2
"""How soon a spent budget or an outage is seen while no row ends."""
OUTAGE_MAX_S = 30.0
"""How long an endpoint that has answered before may be away."""
QUEUE_MARGIN = 1.25
"""Rows that wait for the rate limit have so much more time than the limit alone makes them wait."""


class Stopped(StrEnum):
    """Why not all rows were asked."""

    CAP = "cap"
    INTERRUPTED = "interrupted"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows asked in all variants, in the order they ended, and what was paid for all that was asked.

    `paid_usd` counts a call that nobody knows the price of at its worst. `problem` is what the endpoint last said
    when it did not answer.
    """

    rows: Sequence[AskedRow]
    stopped: Stopped | None
    calls: int
    answers: int
    paid_usd: float
    problem: str | None


class LiveAsking:
    """One run over the rows, at the first endpoint. `usd_max` is never passed, on its account as on ours."""

    def __init__(
        self, settings: Settings, client: LlmClient, price: Price, questions: Questions, usd_max: float
    ) -> None:
        self._llm = settings.llm
        self._questions = questions
        self._heard = Heard(client)
        wall_s = time.time()
        spends: dict[str, object] = {"usd_per_hour": usd_max, "usd_per_day": usd_max}
        spends |= {"on_budget": "wait", "on_outage": "wait", "endpoints": settings.llm.endpoints[:1]}
        capped = settings.model_copy(update={"llm": settings.llm.model_copy(update=spends)})
        self._gate = gate_of(capped, 1)
        self._admission = Admission(
            self._gate, now_s=time.monotonic, wall_s=lambda: wall_s, want_lease=self._lease, failed=self._failed
        )
        clocks, timeout_s = (time.monotonic, time.time), settings.llm.timeout_s
        asked = (PricedClient(self._heard, price),)
        self._line = Line(asked, self._admission, timeout_s, Metrics(), *clocks, random.random)
        self._wall_s = wall_s
        self._answers: dict[bytes, asyncio.Task[AskResult]] = {}
        self._asking = 0
        self._under_way: dict[asyncio.Task[AskedRow | None], int] = {}
        self._away_since_s: float | None = None
        self._bug: Exception | None = None

    async def run(self, rows: Iterable[LiveRow], stop: asyncio.Event, progress: Callable[[int], object]) -> Measured:
        """Asks row by row until all are done, the cap is reached, `stop` is set or the endpoint is away."""
        self._admission.gain(PARTITION, None)
        measured: list[AskedRow] = []
        try:
            stopped = await self._through(deque(rows), stop, measured, progress)
        finally:
            left: list[asyncio.Task[Any]] = [*self._under_way, *self._answers.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._admission.close()
        paid_usd = self._gate.budgets[PARTITION].settled_day_nusd / NANO
        return Measured(measured, stopped, self._heard.calls, self._heard.answers, paid_usd, self._heard.problem)

    async def _through(
        self, todo: deque[LiveRow], stop: asyncio.Event, measured: list[AskedRow], progress: Callable[[int], object]
    ) -> Stopped | None:
        stopping = asyncio.create_task(stop.wait())
        try:
            while todo or self._under_way:
                while todo and self._start(todo[0]):
                    todo.popleft()
                if not self._under_way:
                    return Stopped.CAP
                await asyncio.wait({stopping, *self._under_way}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                ended = self._ended()
                progress(len(ended))
                measured += [row for row in ended if row is not None]
                why = Stopped.CAP if None in ended else Stopped.INTERRUPTED if stop.is_set() else self._stuck()
                if why is not None:
                    return why
            return None
        finally:
            stopping.cancel()

    def _ended(self) -> list[AskedRow | None]:
        """The rows whose questions have all ended since the last time."""
        done = [task for task in self._under_way if task.done()]
        for task in done:
            del self._under_way[task]
        return [task.result() for task in done]

    def _start(self, row: LiveRow) -> bool:
        """Starts a row, all its variants at once and in order; False where it must wait or cannot be paid."""
        requests = self._questions.of(row)
        if self._under_way and self._asking + len(requests) > self._llm.max_in_flight:
            return False
        new = {request.fingerprint: request for request in requests.values()}
        worst_nusd = sum(
            self._line.costs_max([request])[0].nusd for key, request in new.items() if key not in self._answers
        )
        left_nusd = self._gate.budgets[PARTITION].left_nusd
        if sum(self._under_way.values()) + worst_nusd > left_nusd:
            return False
        answers = {variant: self._answer(request) for variant, request in requests.items()}
        self._under_way[asyncio.create_task(self._row(row, answers))] = worst_nusd
        return True

    def _answer(self, request: Request) -> asyncio.Task[AskResult]:
        """The answer to a request: the same for whoever asks the same."""
        key = request.fingerprint
        if key not in self._answers:
            deadline_s = self._admission.running_s + self._llm.deadline_s + self._queue_s(request)
            question = Question(self._line, PARTITION, [request], deadline_s)
            self._answers[key] = task = asyncio.create_task(question.answer())
            self._asking += 1
            task.add_done_callback(self._answered)
        return self._answers[key]

    def _answered(self, _task: asyncio.Task[AskResult]) -> None:
        self._asking -= 1

    def _queue_s(self, request: Request) -> float:
        """How long the rate limits alone may hold a request back behind those that are under way."""
        endpoint = self._llm.endpoints[0]
        tokens = self._line.costs_max([request])[0].tokens
        each_s = max(60 / endpoint.requests_per_minute, tokens * 60 / endpoint.tokens_per_minute)
        return QUEUE_MARGIN * each_s * (self._asking + 1)

    async def _row(self, row: LiveRow, answers: Mapping[Variant, asyncio.Task[AskResult]]) -> AskedRow | None:
        """The row as it was answered in every variant; None where the cap is less than one call."""
        results = {variant: await task for variant, task in answers.items()}
        ways: dict[str, AskedAs] = {}
        for variant, result in results.items():
            way = _asked_as(result, row, self._questions.labels(row, variant))
            if way is None:
                return None
            ways[variant.value] = way
        return AskedRow(row.place, row.truth, in_words(row.ask.small.label), ways)

    def _stuck(self) -> Stopped | None:
        """Why nothing will move any more, if so. Raises what failed in a callback."""
        if self._bug is not None:
            raise self._bug
        waits_for_money = self._admission.waits_for == WAITS_FOR["budget"]
        if waits_for_money and not self._gate.budgets[PARTITION].reserved_nusd:
            return Stopped.CAP  # a retry that the cap does not cover
        now_s = time.monotonic()
        if self._gate.endpoints[0].breaker.circuit is Circuit.CLOSED:
            self._away_since_s = None
            return None
        self._away_since_s = now_s if self._away_since_s is None else self._away_since_s
        hopeless = self._heard.turned_away or not self._heard.answers
        return Stopped.OUTAGE if hopeless or now_s - self._away_since_s > OUTAGE_MAX_S else None

    def _lease(self, partitions: Iterable[int]) -> None:
        """Grants what the budget asks for: nobody else owns the partition."""
        for partition in partitions:
            budget = self._gate.budgets[partition]
            budget.committed(budget.authority_of(budget.lease(self._wall_s)))
        asyncio.get_running_loop().call_soon(self._admission.pump)

    def _failed(self, error: Exception) -> None:
        self._bug = error


def _asked_as(result: AskResult, row: LiveRow, labels: Sequence[str]) -> AskedAs | None:
    """A question's end as a figure; None where no budget could ever pay it."""
    if isinstance(result, GotAnswer):
        outcome, label = "answered", in_words(result.answer.labels[row.ask.task])
    elif isinstance(result, NoAnswer) and result.reason not in {"budget", "outage"}:
        outcome, label = "refused" if result.reason == "refused" else "no_answer", None
    else:
        return None
    usage = result.usage
    return AskedAs(
        outcome=outcome,
        label=label,
        kept_truth=row.truth in labels,
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        usd=usage.cost_usd if usage else 0.0,
        latency_ms=usage.latency_ms if usage else 0.0,
    )

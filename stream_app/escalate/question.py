"""One event's question to the LLM: wait for a turn, call, judge, perhaps again; it ends with an answer or why not.

Everything here happens inside one deadline, in running time (see `clock`). What to do is decided in `gate`,
`answer`, `retry` and `breaker`; this module obeys them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from stream_app.escalate.admission import NotAdmitted, PartitionClosing
from stream_app.escalate.answer import Invalid, Refused, Valid, judge
from stream_app.escalate.budget import NANO
from stream_app.escalate.call_end import Lost, end_of
from stream_app.escalate.gate import Cost
from stream_app.escalate.results import (
    Answered,
    BadRequest,
    CallResult,
    ContentRefused,
    Failed,
    Misconfigured,
    RateLimited,
    Unusable,
)
from stream_app.escalate.retry import GiveUp, next_step
from stream_app.events import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.escalate.admission import Admission
    from stream_app.escalate.answer import Verdict
    from stream_app.escalate.call_end import CallEnd
    from stream_app.escalate.client import LlmClient
    from stream_app.escalate.gate import Grant
    from stream_app.escalate.prices import Price
    from stream_app.escalate.prompt import Request
    from stream_app.events import DegradedReason
    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)

NAMES: dict[type[CallResult], str] = {
    RateLimited: "rate_limited",
    ContentRefused: "refused",
    Unusable: "unusable",
    Misconfigured: "misconfigured",
    BadRequest: "bad_request",
}
"""Results whose name in the metrics is always the same."""
CALL_MIN_S = 0.05
"""With less than this left until the deadline a call is not worth its start."""


@dataclass(frozen=True, slots=True)
class GotAnswer:
    """The LLM answered every task."""

    answer: Valid
    usage: Usage


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It did not, for this reason. `usage` is what was paid in vain, None if nothing was called."""

    reason: DegradedReason
    why: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """The partition is being handed over: its next owner asks."""


AskResult = GotAnswer | NoAnswer | Dropped


@dataclass(frozen=True, slots=True)
class Line:
    """The way to one endpoint: all that a question needs."""

    client: LlmClient
    admission: Admission
    price: Price
    timeout_s: float
    metrics: Metrics
    now_s: Callable[[], float]
    wall_s: Callable[[], float]
    draw: Callable[[], float]
    """A random number in [0, 1), for the jitter."""

    def cost_max(self, request: Request) -> Cost:
        """The most that a call with `request` can take."""
        use = self.admission.gate.use
        sizes = request.prompt_version, request.input_tokens, request.output_tokens_max
        dollars = self.price.cost_nusd(request.input_tokens_max, request.output_tokens_max)
        return Cost(use.charge(*sizes), dollars, use.held(*sizes))


@dataclass(slots=True)
class Paid:
    """What one event's calls took so far."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    latency_s: float = 0.0
    request_id: str | None = None

    def usage(self, model: str, prompt_version: str, *, cached: bool = False) -> Usage:
        """As it stands on the decision."""
        return Usage(
            model=model,
            prompt_version=prompt_version,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_usd=self.cost_nusd / NANO,
            latency_ms=round(self.latency_s * 1000, 3),
            cached=cached,
            request_id=self.request_id,
        )


class Question:
    """One request on its way. Cancelling `answer` is safe at any moment: what was set aside is settled."""

    def __init__(
        self, line: Line, partition: int, request: Request, deadline_s: float, *, spare: bool = False
    ) -> None:
        """A `spare` question is a parked event's: its calls get what the others leave."""
        self._line, self._spare = line, spare
        self._partition = partition
        self._request = request
        self._deadline_s = deadline_s
        self._paid = Paid()
        self._failures = 0
        self._asked_again = False

    async def answer(self) -> AskResult:
        """Calls until there is an answer or a reason why not."""
        result: AskResult | None = None
        while result is None:
            try:
                grant = await self._turn()
                result = await self._judged(await self._call(grant))
            except PartitionClosing:
                return Dropped()
            except NotAdmitted as refusal:
                return self._none(refusal.reason, f"no turn for a call: {refusal.reason}")
        return result

    async def _turn(self) -> Grant:
        line, asked_s = self._line, self._line.now_s()
        cost = line.cost_max(self._request)
        again = self._paid.calls > 0
        if not again and not self._spare:
            line.admission.spend_on(self._request.change, cost, line.draw())
        grant = await line.admission.reserve(self._partition, cost, self._deadline_s, first=again, spare=self._spare)
        if not self._spare:
            line.metrics.llm_wait(line.now_s() - asked_s)
        return grant

    async def _call(self, grant: Grant) -> CallResult:
        """One call, whose reservation is settled once, whatever happens to it."""
        line, request = self._line, self._request
        left_s = line.admission.left_s(self._deadline_s)
        began_s = line.now_s()
        end: CallEnd = Lost()
        cost_nusd = grant.cost.nusd  # cancelled: nobody knows, so all of it
        outcome = "cancelled"
        try:
            called = await line.client.ask(request, max(CALL_MIN_S, min(line.timeout_s, left_s)))
            cost_nusd = self._paid_for(called, grant)
            use = line.admission.gate.use
            end = end_of(called, request, grant.cost.tokens, use, line.wall_s())
            outcome = _name(called)
            self._tell_breaker(called, grant)
        finally:
            took_s = line.now_s() - began_s
            if outcome == "cancelled":
                line.metrics.llm_wasted("shutdown")
                line.admission.gate.breaker.abandoned(line.now_s(), probe=grant.probe)
            line.admission.settle(grant, end, cost_nusd)
            line.metrics.llm_call(line.client.name, outcome, took_s)
            self._paid.calls += 1
            self._paid.latency_s += took_s
            self._paid.cost_nusd += cost_nusd
        return called

    def _paid_for(self, called: CallResult, grant: Grant) -> int:
        """What a call cost, in nano-dollars, and notes it. What may have been paid unseen counts whole."""
        if isinstance(called, Answered):
            request = self._request
            tokens_in = request.input_tokens if called.input_tokens is None else called.input_tokens
            tokens_out = request.output_tokens_max if called.output_tokens is None else called.output_tokens
            cost_nusd = self._line.price.cost_nusd(tokens_in, tokens_out)
            self._paid.input_tokens += tokens_in
            self._paid.output_tokens += tokens_out
            self._paid.request_id = called.request_id
            self._line.metrics.llm_usage(tokens_in, tokens_out, cost_nusd / NANO)
            return cost_nusd
        if isinstance(called, Unusable) or (isinstance(called, Failed) and called.maybe_paid):
            self._line.metrics.llm_wasted(_name(called))
            return grant.cost.nusd
        return 0

    def _tell_breaker(self, called: CallResult, grant: Grant) -> None:
        breaker, now_s = self._line.admission.gate.breaker, self._line.now_s()
        before = breaker.circuit
        match called:
            case Answered() | ContentRefused():
                breaker.answered()
            case Failed() | BadRequest() | Unusable():
                # A bad request may be the event's fault; one after another is the endpoint's or the settings'.
                breaker.failed(now_s, probe=grant.probe)
            case Misconfigured():
                breaker.failed(now_s, probe=grant.probe, at_once=True)
            case RateLimited():
                breaker.abandoned(now_s, probe=grant.probe)
        if breaker.circuit is not before and not isinstance(called, RateLimited):
            why = "" if isinstance(called, Answered) else f": {called.why}"
            log.warning("LLM endpoint %s: circuit %s%s", self._line.client.name, breaker.circuit.name.lower(), why)

    async def _judged(self, called: CallResult) -> AskResult | None:
        """What a call's result means for the event; None: call again."""
        match called:
            case Answered():
                return self._verdict(judge(self._request, called))
            case Unusable(why=why):
                return self._verdict(Invalid(why))
            case ContentRefused(why=why) | BadRequest(why=why):
                return self._none("refused", why)
            case RateLimited() | Failed() | Misconfigured():
                return await self._back_off(called)
            case _:
                assert_never(called)

    def _verdict(self, verdict: Verdict) -> AskResult | None:
        match verdict:
            case Valid():
                return GotAnswer(verdict, self._usage())
            case Refused(why=why):
                return self._none("refused", why)
            case Invalid(problem=problem):
                if self._asked_again:
                    return self._none("invalid_answer", problem)
                self._line.metrics.llm_wasted("invalid_answer")
                self._asked_again = True
                self._request = self._request.asked_again(problem)
                return None
            case _:
                assert_never(verdict)

    async def _back_off(self, called: RateLimited | Failed | Misconfigured) -> AskResult | None:
        """Waits before the next try, or gives up where the deadline comes first."""
        if isinstance(called, RateLimited):
            return None  # everyone waits at the gate, and a retry stands at the head of the queue
        at_least_s = 0.0 if isinstance(called, Misconfigured) else called.headers.retry_after_s or 0.0
        admission = self._line.admission
        self._failures += 1
        left_s = float("inf") if admission.clock.stopped else admission.left_s(self._deadline_s)
        step = next_step(self._failures, left_s, self._line.draw(), at_least_s)
        if isinstance(step, GiveUp):
            return self._none("deadline", f"no time for another try after {_name(called)}")
        await admission.rest(self._partition, step.s)
        return None

    def _none(self, reason: DegradedReason, why: str) -> NoAnswer:
        return NoAnswer(reason, why, self._usage() if self._paid.calls else None)

    def _usage(self) -> Usage:
        return self._paid.usage(self._line.client.model, self._request.prompt_version)


def _name(called: CallResult) -> str:
    """A result's name in the metrics."""
    match called:
        case Answered(refusal=refusal):
            return "ok" if refusal is None else "refused"
        case Failed(cause=cause):
            return cause
        case _:
            return NAMES[type(called)]

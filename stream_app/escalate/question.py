"""One event's question to the LLM: wait for a turn, call, judge, perhaps again; it ends with an answer or why not.

Everything here happens inside one deadline, in running time (see `clock`). What to do is decided in `gate`, `route`,
`answer`, `retry` and `breaker`; this module obeys them. Each try goes to the endpoint that the gate names for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from stream_app.escalate.admission import NotAdmitted, PartitionClosing
from stream_app.escalate.answer import Invalid, Refused, Valid, judge
from stream_app.escalate.calling import call, name_of
from stream_app.escalate.line import Paid
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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_app.escalate.answer import Verdict
    from stream_app.escalate.gate import Grant
    from stream_app.escalate.line import Line
    from stream_app.escalate.prompt import Request
    from stream_app.escalate.voting import Cast
    from stream_app.events import DegradedReason, Usage


@dataclass(frozen=True, slots=True)
class GotAnswer:
    """The LLM answered every task.

    Where two were asked (`second_opinion`), `answer` is that of the first that gave one, `usage` is of both, and
    `votes` (task -> model -> label, None where that model gave none) has what each said, in the order of asking.
    """

    answer: Valid
    usage: Usage
    votes: Mapping[str, Cast] = field(default_factory=dict[str, "Cast"])

    def cast(self, task: str) -> Cast:
        """What each model that was asked says of a task."""
        return self.votes.get(task) or {self.usage.model: self.answer.labels[task]}


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


class Question:
    """One question on its way. Cancelling `answer` is safe at any moment: what was set aside is settled.

    `requests` put it in the form that each of the line's endpoints takes. A `spare` question is a parked event's:
    its calls get what the others leave, and it does not sleep between two of them.
    """

    def __init__(
        self, line: Line, partition: int, requests: Sequence[Request], deadline_s: float, *, spare: bool = False
    ) -> None:
        self._line, self._spare = line, spare
        self._partition = partition
        self._requests = requests
        self._deadline_s = deadline_s
        self._paid = Paid()
        self._asked = 0  # the endpoint of the last call
        self._failures = 0
        self._asked_again = False

    async def answer(self) -> AskResult:
        """Calls until there is an answer or a reason why not."""
        result: AskResult | None = None
        while result is None:
            try:
                grant = await self._turn()
                result = await self._judged(await self._call(grant), grant)
            except PartitionClosing:
                return Dropped()
            except NotAdmitted as refusal:
                return self._none(refusal.reason, f"no turn for a call: {refusal.reason}")
        return result

    async def _turn(self) -> Grant:
        line, asked_s = self._line, self._line.now_s()
        costs = line.costs_max(self._requests)
        again = self._paid.calls > 0
        if not again and not self._spare:
            line.admission.spend_on(self._requests[0].change, costs, line.draw())
        grant = await line.admission.reserve(self._partition, costs, self._deadline_s, first=again, spare=self._spare)
        if not self._spare:
            line.metrics.llm_wait(line.now_s() - asked_s)
        return grant

    async def _call(self, grant: Grant) -> CallResult:
        self._asked = grant.endpoint
        left_s = self._line.admission.left_s(self._deadline_s)
        return await call(self._line, grant, self._requests[grant.endpoint], left_s, self._paid)

    async def _judged(self, called: CallResult, grant: Grant) -> AskResult | None:
        """What a call's result means for the event; None: call again."""
        match called:
            case Answered():
                return self._verdict(judge(self._requests[grant.endpoint], called))
            case Unusable(why=why):
                return self._verdict(Invalid(why))
            case ContentRefused(why=why) | BadRequest(why=why):
                return self._none("refused", why)
            case RateLimited():
                return None  # everyone waits at the gate, and a retry stands at the head of the queue
            case Failed() | Misconfigured():
                return await self._back_off(called, grant)
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
                self._requests = [request.asked_again(problem) for request in self._requests]
                return None
            case _:
                assert_never(verdict)

    async def _back_off(self, called: Failed | Misconfigured, grant: Grant) -> AskResult | None:
        """Waits before the next try, or gives up where the deadline comes first.

        Where another endpoint takes over, at once: a back-off spares the one that failed, and nobody asks that now.
        """
        admission = self._line.admission
        if admission.gate.better_elsewhere(grant):
            return None
        if self._spare:
            return self._none("deadline", f"another time, after {name_of(called)}")
        at_least_s = 0.0 if isinstance(called, Misconfigured) else called.headers.retry_after_s or 0.0
        self._failures += 1
        left_s = float("inf") if admission.clock.stopped else admission.left_s(self._deadline_s)
        step = next_step(self._failures, left_s, self._line.draw(), at_least_s)
        if isinstance(step, GiveUp):
            return self._none("deadline", f"no time for another try after {name_of(called)}")
        await admission.rest(self._partition, step.s)
        return None

    def _none(self, reason: DegradedReason, why: str) -> NoAnswer:
        return NoAnswer(reason, why, self._usage() if self._paid.calls else None)

    def _usage(self) -> Usage:
        model = self._line.endpoints[self._asked].client.model
        return self._paid.usage(model, self._requests[self._asked].prompt_version)

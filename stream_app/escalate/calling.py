"""One call to the endpoint that was granted: asked, paid for, told to its circuit, and settled once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stream_app.escalate.budget import NANO
from stream_app.escalate.call_end import Lost, end_of
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

if TYPE_CHECKING:
    from stream_app.escalate.call_end import CallEnd
    from stream_app.escalate.gate import Grant
    from stream_app.escalate.line import Line, Paid
    from stream_app.escalate.prompt import Request

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
PROBE_SHARE = 0.5
"""A probe takes no more of the time left, where another endpoint is well: its event must not pay for finding out."""


async def call(line: Line, grant: Grant, request: Request, left_s: float, paid: Paid) -> CallResult:
    """Asks the granted endpoint within `left_s`, and adds to what is `paid`. Settled also when cancelled."""
    gate, client = line.admission.gate, line.endpoints[grant.endpoint].client
    began_s = line.now_s()
    end: CallEnd = Lost()
    cost_nusd = grant.cost.nusd  # cancelled: nobody knows, so all of it
    outcome = "cancelled"
    if grant.probe and gate.better_elsewhere(grant):
        left_s *= PROBE_SHARE
    try:
        called = await client.ask(request, max(CALL_MIN_S, min(line.timeout_s, left_s)))
        cost_nusd = _paid_for(line, grant, request, called, paid)
        end = end_of(called, request, grant.cost.tokens, gate.endpoints[grant.endpoint].use, line.wall_s())
        outcome = name_of(called)
        _tell_breaker(line, grant, called)
    finally:
        took_s = line.now_s() - began_s
        if outcome == "cancelled":
            line.metrics.llm_wasted("shutdown")
            gate.breaker_of(grant).abandoned(line.now_s(), probe=grant.probe)
        line.admission.settle(grant, end, cost_nusd)
        line.metrics.llm_call(client.name, outcome, took_s)
        paid.calls += 1
        paid.latency_s += took_s
        paid.cost_nusd += cost_nusd
    return called


def name_of(called: CallResult) -> str:
    """A result's name in the metrics."""
    match called:
        case Answered(refusal=refusal):
            return "ok" if refusal is None else "refused"
        case Failed(cause=cause):
            return cause
        case _:
            return NAMES[type(called)]


def _paid_for(line: Line, grant: Grant, request: Request, called: CallResult, paid: Paid) -> int:
    """What a call cost, in nano-dollars, and notes it. What may have been paid unseen counts whole."""
    if isinstance(called, Answered):
        endpoint = line.endpoints[grant.endpoint]
        tokens_in = request.input_tokens if called.input_tokens is None else called.input_tokens
        tokens_out = request.output_tokens_max if called.output_tokens is None else called.output_tokens
        cost_nusd = endpoint.price.cost_nusd(tokens_in, tokens_out)
        paid.input_tokens += tokens_in
        paid.output_tokens += tokens_out
        paid.request_id = called.request_id
        line.metrics.llm_usage(endpoint.client.name, tokens_in, tokens_out, cost_nusd / NANO)
        return cost_nusd
    if isinstance(called, Unusable) or (isinstance(called, Failed) and called.maybe_paid):
        line.metrics.llm_wasted(name_of(called))
        return grant.cost.nusd
    return 0


def _tell_breaker(line: Line, grant: Grant, called: CallResult) -> None:
    gate, now_s = line.admission.gate, line.now_s()
    breaker = gate.breaker_of(grant)
    before = breaker.circuit
    match called:
        case Answered() | ContentRefused():
            gate.answered(grant, now_s)
        case Failed() | BadRequest() | Unusable():
            # A bad request may be the event's fault; one after another is the endpoint's or the settings'.
            breaker.failed(now_s, probe=grant.probe)
        case Misconfigured():
            breaker.failed(now_s, probe=grant.probe, at_once=True)
        case RateLimited():
            breaker.abandoned(now_s, probe=grant.probe)
    if breaker.circuit is not before and not isinstance(called, RateLimited):
        why = "" if isinstance(called, Answered) else f": {called.why}"
        name = line.endpoints[grant.endpoint].client.name
        log.warning("LLM endpoint %s: circuit %s%s", name, breaker.circuit.name.lower(), why)

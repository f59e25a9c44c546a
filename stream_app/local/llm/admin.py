"""The stand-in's own side, for tests, demos and the fault harness: what to tell it and to ask it, while it runs.

GET    /admin/calls[?since=N]  every call from number N on, let in or not, and sums; the newest `KEPT_MAX` are kept
GET    /admin/account          dollars spent, and reserved for what is in flight: of all keys together, and of each
POST   /admin/limits           {"kind": "sliding_log", "requests_per_minute": 600, "tokens_per_minute": 0,
                               "burst_s": 1, "token_admission": "max_tokens"}; with "key": that key's own
POST   /admin/quotas           {"key": "test-key", "usd": 0.5}     null: none
POST   /admin/prices           {"usd_per_million_input": 0.15, "usd_per_million_output": 0.6}
POST   /admin/headers          {"style": "azure", "retry_after": false}
POST   /admin/latency          {"median_ms": 300, "sigma": 0.5, "slow_share": 0.01, "slow_ms": 8000}
POST   /admin/faults           {"kind": "rate_limited", "count": 3} or {"kind": "refusal", "share": 0.05, "times": 1}
DELETE /admin/faults           all is well again
POST   /admin/reset            as it was at the start: no calls, no faults, nothing taken or spent

Limits, prices and headers keep what is not named; latency and a fault begin from their defaults. What cannot be
done is answered with 400 and the reason, and changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from stream_app.local.llm.faults import Fault
from stream_app.local.llm.headers import HeaderStyle
from stream_app.local.llm.latency import Latency
from stream_app.local.llm.limits import LimitKind
from stream_app.local.llm.provider import TokenAdmission
from stream_app.local.llm.state import WALL_AHEAD_S, now_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_app.local.llm.state import State

Json = dict[str, Any]


class Admin:
    """The handlers. `state` gives the state in force, `reset` replaces it."""

    def __init__(self, state: Callable[[], State], reset: Callable[[], None]) -> None:
        self._state = state
        self._reset = reset

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/admin/calls", self._calls)
        app.router.add_get("/admin/account", self._account)
        told: dict[str, Callable[[Json], None]] = {
            "limits": self._limits,
            "quotas": self._quotas,
            "prices": self._prices,
            "headers": self._headers,
            "latency": self._latency,
            "faults": lambda given: self._state().faults.add(Fault.from_json(given)),
            "reset": lambda _given: self._reset(),
        }
        for name, act in told.items():
            app.router.add_post(f"/admin/{name}", _handler(act))
        app.router.add_delete("/admin/faults", self._no_faults)

    async def _calls(self, request: web.Request) -> web.Response:
        since = int(request.query.get("since", 0))
        return web.json_response(self._state().log.as_json(since, WALL_AHEAD_S))

    async def _account(self, _request: web.Request) -> web.Response:
        now = now_s()
        times = {"now_s": now, "now_monotonic_s": now - WALL_AHEAD_S}
        return web.json_response({**times, **self._state().provider.as_json()})

    async def _no_faults(self, _request: web.Request) -> web.Response:
        self._state().faults.clear()
        return web.json_response({})

    def _limits(self, given: Json) -> None:
        provider, changed = self._state().provider, dict(given)
        key = changed.pop("key", None)
        limits = provider.limits if key is None else provider.account_of(str(key)).limits
        admission = TokenAdmission(changed.pop("token_admission", provider.admission))
        if "kind" in changed:
            changed["kind"] = LimitKind(changed["kind"])
        for name in changed.keys() & {"requests_per_minute", "tokens_per_minute"}:
            changed[name] = _whole(changed[name])
        limits.retune(replace(limits.rates, **changed), now_s())
        provider.admission = admission

    def _quotas(self, given: Json) -> None:
        usd = given["usd"]
        self._state().provider.account_of(str(given["key"])).quota_usd = None if usd is None else float(usd)

    def _prices(self, given: Json) -> None:
        provider = self._state().provider
        provider.prices = replace(provider.prices, **given)

    def _headers(self, given: Json) -> None:
        state, changed = self._state(), dict(given)
        if "style" in changed:
            changed["style"] = HeaderStyle(changed["style"])
        state.headers = replace(state.headers, **changed)

    def _latency(self, given: Json) -> None:
        self._state().latency = Latency(**given)


def _handler(act: Callable[[Json], None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Of a POST that takes an object and answers with an empty one."""

    async def handle(request: web.Request) -> web.Response:
        try:
            act(_object(await request.json() if request.can_read_body else {}))
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response({})

    return handle


def _object(given: Any) -> Json:
    if not isinstance(given, dict):
        raise TypeError("the body must be an object")
    return cast("Json", given)


def _whole(given: Any) -> int:
    """A limit as callers write it, 600 or 600.0."""
    if isinstance(given, bool) or int(given) != given:
        raise ValueError(f"a limit is a whole number, not {given!r}")
    return int(given)

"""What the stand-in is at a moment: its limits, prices, faults and calls, which a reset makes anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_app.local.llm.account import Prices
from stream_app.local.llm.calls import CallLog
from stream_app.local.llm.chance import Times
from stream_app.local.llm.faults import Faults
from stream_app.local.llm.headers import HeaderRules
from stream_app.local.llm.latency import Latency
from stream_app.local.llm.provider import Provider, Rates

if TYPE_CHECKING:
    from stream_app.local.llm.options import StandInOptions

WALL_AHEAD_S = time.time() - time.monotonic()
"""The wall clock less the monotonic one, read once: what is told and limited by wall time never jumps."""


def now_s() -> float:
    """Now by the wall clock as it was when the server started, going on evenly."""
    return time.monotonic() + WALL_AHEAD_S


class State:
    """As the options say, until somebody says otherwise. Calls of before a reset end in the state they began in."""

    def __init__(self, options: StandInOptions, last_call: int = 0) -> None:
        kind, burst_s = options.limit_kind, options.burst_s
        self.seed = options.seed
        self.provider = Provider(
            Rates(kind, options.requests_per_minute, options.tokens_per_minute, burst_s),
            key_rates=Rates(kind, options.key_requests_per_minute, options.key_tokens_per_minute, burst_s),
            key_quota_usd=options.key_quota_usd or None,
            admission=options.token_admission,
            prices=Prices(options.usd_per_million_input, options.usd_per_million_output),
        )
        self.headers = HeaderRules(options.headers, options.retry_after)
        self.latency = Latency(
            options.latency_median_ms, options.latency_sigma, options.latency_slow_share, options.latency_slow_ms
        )
        self.faults = Faults(options.seed)
        self.log = CallLog(last_call)
        self.asked = Times()

"""What the stand-in LLM can be told when it starts; the same as command-line flags and as a value."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_app.local.llm.headers import HeaderStyle
from stream_app.local.llm.limits import LimitKind
from stream_app.local.llm.provider import TokenAdmission

if TYPE_CHECKING:
    from collections.abc import Sequence


HELP = {
    "latency_median_ms": "half the calls take less",
    "latency_sigma": "of the logarithm; 0 is always the same",
    "latency_slow_share": "of all calls, which are slow",
    "latency_slow_ms": "the slow calls' median",
    "limit_kind": "how limits count",
    "burst_s": "what a token bucket holds, in seconds of its rate",
    "requests_per_minute": "of all keys together; 0 is no limit",
    "tokens_per_minute": "of all keys together; 0 is no limit",
    "token_admission": "what a call takes of the limits on tokens",
    "key_requests_per_minute": "of each API key; 0 is no limit",
    "key_tokens_per_minute": "of each API key; 0 is no limit",
    "key_quota_usd": "what each API key may spend; 0 is no quota",
    "usd_per_million_input": "price of a million input tokens",
    "usd_per_million_output": "price of a million output tokens",
    "headers": "how answers tell of the limits",
    "retry_after": "whether a limit's 429 says how long to wait",
    "seed": "of latencies and of faults by chance",
}


@dataclass(frozen=True, slots=True)
class StandInOptions:
    """How the stand-in behaves until told otherwise (`admin`). A limit, price or quota of 0 means none.

    `replay` is a JSON Lines file (may be gzip) of recorded answers, `replay_names` the models in it that are
    answered for: the request's model where it is one of them, else the first. `seed` is of latencies and faults.
    """

    latency_median_ms: float = 300.0
    latency_sigma: float = 0.5
    latency_slow_share: float = 0.0
    latency_slow_ms: float = 0.0
    limit_kind: LimitKind = LimitKind.TOKEN_BUCKET
    burst_s: float = 60.0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    token_admission: TokenAdmission = TokenAdmission.SETTLED
    key_requests_per_minute: int = 0
    key_tokens_per_minute: int = 0
    key_quota_usd: float = 0.0
    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0
    headers: HeaderStyle = HeaderStyle.OPENAI
    retry_after: bool = True
    replay: Path | None = None
    replay_names: tuple[str, ...] = ()
    seed: int = 0

    def to_argv(self) -> list[str]:
        """The flags that `from_argv` reads back into the same value."""
        argv: list[str] = []
        for one in _flags():
            value, name = getattr(self, one.name), one.name.replace("_", "-")
            argv.append(f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}")
        if self.replay is not None:
            argv += [f"--replay={self.replay.resolve()}"]
            argv += [f"--replay-name={name}" for name in self.replay_names]
        return argv


def from_argv(argv: Sequence[str]) -> tuple[int, StandInOptions]:
    """Port and options from command-line flags; ends the process with a usage message where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_app.local.llm",
        description="A stand-in for an LLM with an OpenAI-compatible interface. It is not one: it answers by a "
        "fixed rule over the text, or from recorded answers.",
    )
    parser.add_argument("--port", type=int, default=9000, help="where to listen on 127.0.0.1 (default 9000)")
    for one in _flags():
        name, told = f"--{one.name.replace('_', '-')}", f"{HELP[one.name]} (default {one.default})"
        if isinstance(one.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=one.default, help=told)
        else:
            kinds = tuple(type(one.default)) if isinstance(one.default, StrEnum) else None
            parser.add_argument(name, type=type(one.default), default=one.default, choices=kinds, help=told)
    parser.add_argument("--replay", type=Path, help="JSON Lines (.gz) with `text` and `llm: {model: answer|null}`")
    parser.add_argument("--replay-name", action="append", default=[], help="a model of the file; may be repeated")
    given = vars(parser.parse_args(argv))
    port, names = given.pop("port"), tuple(given.pop("replay_name"))
    if (given["replay"] is None) != (not names):
        parser.error("--replay and --replay-name go together")
    return port, StandInOptions(**given, replay_names=names)


def _flags() -> list[Any]:
    """The fields that are a flag each."""
    return [one for one in fields(StandInOptions) if one.name in HELP]

"""What the stand-in LLM can be told when it starts; the same as command-line flags and as a value."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class StandInOptions:
    """How the stand-in behaves. A limit of 0 means none.

    Latency is lognormal: half the calls take less than `latency_median_ms`, and with a sigma of 0.5 one in
    twenty takes more than 2.3 times as long. `replay` is a JSON Lines file (may be gzip) of recorded answers,
    `replay_names` the models in it that are answered for: the request's model where it is one of them, else
    the first.
    """

    latency_median_ms: float = 300.0
    latency_sigma: float = 0.5
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    replay: Path | None = None
    replay_names: tuple[str, ...] = ()
    seed: int = 0

    def to_argv(self) -> list[str]:
        """The flags that `from_argv` reads back into the same value."""
        argv = [
            f"--latency-median-ms={self.latency_median_ms}",
            f"--latency-sigma={self.latency_sigma}",
            f"--requests-per-minute={self.requests_per_minute}",
            f"--tokens-per-minute={self.tokens_per_minute}",
            f"--seed={self.seed}",
        ]
        if self.replay is not None:
            argv += [f"--replay={self.replay.resolve()}"]
            argv += [f"--replay-name={name}" for name in self.replay_names]
        return argv


def from_argv(argv: Sequence[str]) -> tuple[int, StandInOptions]:
    """Port and options from command-line flags; ends the process with a usage message where they are wrong."""
    defaults = StandInOptions()
    parser = argparse.ArgumentParser(
        prog="python -m stream_app.local.llm",
        description="A stand-in for an LLM with an OpenAI-compatible interface. It is not one: it answers by a "
        "fixed rule over the text, or from recorded answers.",
    )
    parser.add_argument("--port", type=int, default=9000, help="where to listen on 127.0.0.1 (default 9000)")
    parser.add_argument("--latency-median-ms", type=float, default=defaults.latency_median_ms)
    parser.add_argument("--latency-sigma", type=float, default=defaults.latency_sigma, help="of the logarithm")
    parser.add_argument("--requests-per-minute", type=int, default=defaults.requests_per_minute, help="0: no limit")
    parser.add_argument("--tokens-per-minute", type=int, default=defaults.tokens_per_minute, help="0: no limit")
    parser.add_argument("--replay", type=Path, help="JSON Lines (.gz) with `text` and `llm: {model: answer|null}`")
    parser.add_argument("--replay-name", action="append", default=[], help="a model of the file; may be repeated")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of latencies and of faults by chance")
    given = parser.parse_args(argv)
    if (given.replay is None) != (not given.replay_name):
        parser.error("--replay and --replay-name go together")
    return given.port, StandInOptions(
        latency_median_ms=given.latency_median_ms,
        latency_sigma=given.latency_sigma,
        requests_per_minute=given.requests_per_minute,
        tokens_per_minute=given.tokens_per_minute,
        replay=given.replay,
        replay_names=tuple(given.replay_name),
        seed=given.seed,
    )

"""How many tokens a call will count: an estimate from its size, corrected by what endpoints report. Pure.

Two things are learnt per prompt version, because a prompt decides both: how many tokens the input has for each that
was estimated from its bytes, and how long answers are. An endpoint has its own `TokenUse`, for its own tokenizer.

What to charge against a limit of tokens depends on how the provider counts:

    max_tokens   the input and the longest output are counted when the call arrives, and stay counted
                 (OpenAI and Azure say so). So that is charged, and the answer's real length gives nothing back.
    settled      the same, but at a call's end what it did not use is given back
    used         what the call used is counted when it ends

For the last two the expected output is charged and settled by the real one: charging the longest would hold back
the difference for as long as calls take, and give it back all at once where answers come together. But a provider
that settles *holds* the longest output of every call in flight, and that must fit into its minute: see `held`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Counted = Literal["max_tokens", "settled", "used"]

RATIO_MIN, RATIO_MAX = 0.25, 4.0
"""3.5 bytes a token: from one token a byte to one for 14 bytes. Beyond that a report is wrong, not the estimate."""
MEMORY_CALLS = 200.0
"""How many calls the average looks back on: enough to know it to 2 % at an error of 30 %, few enough to follow."""
PRIOR_CALLS = 4.0
"""How many calls the first guess (ratio 1, longest output) weighs: it fades within the first dozen answers."""
VERSIONS_MAX = 64
"""Prompt versions kept; a new one takes the place of the oldest. A lane has one, and one more for each reload."""


@dataclass(slots=True)
class _Learnt:
    """Fading sums of tokens over one prompt version's calls: the sum of the charges is what must be right."""

    estimated: float
    reported: float
    outputs: float
    calls: float

    @classmethod
    def guessed(cls, input_estimate: int, output_max: int) -> _Learnt:
        """Before anything is reported: the estimate is right, answers are as long as they may be."""
        tokens = PRIOR_CALLS * max(1, input_estimate)
        return cls(tokens, tokens, PRIOR_CALLS * output_max, PRIOR_CALLS)

    @property
    def ratio(self) -> float:
        return self.reported / self.estimated

    def add(self, input_estimate: int, tokens_in: float, tokens_out: float) -> None:
        keep = 1 - 1 / MEMORY_CALLS
        self.estimated = self.estimated * keep + input_estimate
        self.reported = self.reported * keep + tokens_in
        self.outputs = self.outputs * keep + tokens_out
        self.calls = self.calls * keep + 1


@dataclass(slots=True)
class TokenUse:
    """What one endpoint's calls will count, and by how much that was wrong lately."""

    counted: Counted = "max_tokens"
    error: float = 0.0
    """The mean of |charged - counted| / counted over the last calls: a gauge."""
    bias: float = 0.0
    """The mean of (charged - counted) / counted: above 0 the estimates are too large."""
    _versions: dict[str, _Learnt] = field(default_factory=dict[str, _Learnt])
    _settled: int = 0

    def charge(self, prompt_version: str, input_estimate: int, output_max: int) -> int:
        """The tokens to reserve for a call whose input was estimated from its bytes."""
        learnt = self._versions.get(prompt_version) or _Learnt.guessed(input_estimate, output_max)
        output = output_max if self.counted == "max_tokens" else min(output_max, learnt.outputs / learnt.calls)
        return max(1, round(input_estimate * learnt.ratio + output))

    def held(self, prompt_version: str, input_estimate: int, output_max: int) -> int:
        """The tokens that the provider counts for the call while it is in flight, as far as it counts any then."""
        if self.counted != "settled":
            return self.charge(prompt_version, input_estimate, output_max)
        learnt = self._versions.get(prompt_version) or _Learnt.guessed(input_estimate, output_max)
        return max(1, round(input_estimate * learnt.ratio + output_max))

    def settle(self, prompt_version: str, sizes: tuple[int, int], reported: tuple[int, int], charged: int) -> int:
        """Learns from a call; returns what the provider counted for it, to settle `charged` by.

        `sizes` are the input's estimate and the longest output, `reported` the input and output tokens of the usage.
        """
        (input_estimate, output_max), (tokens_in, tokens_out) = sizes, reported
        counted = tokens_in + (output_max if self.counted == "max_tokens" else tokens_out)
        if input_estimate > 0 and tokens_in > 0:
            believed = min(RATIO_MAX * input_estimate, max(RATIO_MIN * input_estimate, tokens_in))
            self._of(prompt_version, input_estimate, output_max).add(
                input_estimate, believed, min(tokens_out, output_max)
            )
        self._note_error(charged, counted)
        return counted

    def _of(self, prompt_version: str, input_estimate: int, output_max: int) -> _Learnt:
        if (learnt := self._versions.get(prompt_version)) is None:
            if len(self._versions) >= VERSIONS_MAX:
                del self._versions[next(iter(self._versions))]
            learnt = self._versions[prompt_version] = _Learnt.guessed(input_estimate, output_max)
        return learnt

    def _note_error(self, charged: int, counted: int) -> None:
        if counted <= 0:
            return
        self._settled += 1
        off, share = (charged - counted) / counted, 1 / min(MEMORY_CALLS, self._settled)
        self.error += share * (abs(off) - self.error)
        self.bias += share * (off - self.bias)

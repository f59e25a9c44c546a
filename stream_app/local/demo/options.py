"""What a person may ask of the demo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REAL_LLM = "gpt-4o-mini"
RATE = 20.0
"""Reviews a second: a pace at which a person can read along."""
KILL_RECORDS = 1000
KILL_S = 40.0
"""A run with kills lasts at least about this long, however fast it could be: else there is nothing to kill."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The flags of `shunt demo`. `rate` is records a second, None as fast as they are taken."""

    records: int | None = None
    rate: float | None = None
    input: Path | None = None
    replay: Path | None = None
    llm_names: tuple[str, ...] = ()
    kill: bool = False
    exit: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.replay is not None and not self.llm_names:
            raise SettingsError(
                "--llm-replay needs to know whose answers to replay", advice="name the model with --llm-name"
            )

    @property
    def records_wanted(self) -> int | None:
        """How many records to send; None for all there are. A run with kills takes more than the default."""
        if self.records is None and self.kill and self.input is None:
            return KILL_RECORDS
        return self.records

    def pace(self, records: int) -> float | None:
        """Records a second for that many records; None is flat out."""
        if self.rate is not None:
            return self.rate
        if self.kill:
            return max(records / KILL_S, 1.0)
        return None if self.exit else RATE


@dataclass(frozen=True, slots=True)
class DemoLlm:
    """Who answers the unsure ones. `base_url` None stands for the stand-in of the embedded stack.

    `follows_rule`: a stand-in that replays nothing, so its answers say nothing about any LLM.
    """

    model: str
    base_url: str | None = None
    replays: bool = False

    @property
    def stand_in(self) -> bool:
        """Whether no real LLM is called."""
        return self.base_url is None

    @property
    def follows_rule(self) -> bool:
        """Whether the answers come from a fixed rule over the text."""
        return self.stand_in and not self.replays

    @property
    def shown_name(self) -> str:
        """The model's name, never without saying that it was not asked."""
        return f"{self.model} ({'recorded' if self.replays else 'stand-in'})" if self.stand_in else self.model

    @property
    def notice(self) -> str:
        """What a person must know about the LLM before reading any figure."""
        if self.replays:
            return f"The LLM is a stand-in that replays recorded answers of {self.model}."
        if self.stand_in:
            return (
                "The LLM is a stand-in: a fixed rule over the text, no language model. "
                f"Its prices are {self.model}'s. With OPENAI_API_KEY set, the real one is called."
            )
        return f"The LLM is {self.model} at {self.base_url}: calls cost real money."


def choose_llm(options: DemoOptions, environment: Mapping[str, str] = os.environ) -> DemoLlm:
    """The replay if asked for, else the real API where there is a key, else the stand-in."""
    if options.replay is not None:
        return DemoLlm(options.llm_names[0], replays=True)
    model = options.llm_names[0] if options.llm_names else REAL_LLM
    if environment.get("OPENAI_API_KEY"):
        return DemoLlm(model, environment.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")
    return DemoLlm(model)

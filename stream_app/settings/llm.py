"""The LLM lane: which endpoints, within which limits, and what to do without them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stream_app.settings.section import PARKED_AGE_MAX_S, PositiveFloat, PositiveInt, Section

ENDPOINTS_MAX = 8
"""More than anybody falls back through; each has connections and buckets of its own."""


class Endpoint(Section):
    """One OpenAI-compatible endpoint with its limits."""

    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-4o-mini"
    api_key_env: str = "OPENAI_API_KEY"
    api_key_file: Path | None = None
    requests_per_minute: PositiveFloat = 500
    tokens_per_minute: PositiveFloat = 200_000
    tokens_counted: Literal["max_tokens", "settled", "used"] = "max_tokens"
    """What the provider counts of `tokens_per_minute`: input and most output when a call arrives, for good (as OpenAI
    does); the same, settled by what it used at its end; or what it used, at its end."""
    usd_per_million_input: Annotated[float, Field(ge=0)] | None = None
    usd_per_million_output: Annotated[float, Field(ge=0)] | None = None
    """Prices; left out, the dated default table of `stream_app.escalate.prices` must know the model."""
    json_schema: bool = True
    """False for an endpoint without structured output: JSON mode, validated by us."""
    second_opinion: bool = False
    """Asked after one of the others, where the policy expects that to be worth it; never in their place."""


class Llm(Section):
    """The LLM lane: budget, time, and what to do when it cannot be used."""

    usd_per_hour: PositiveFloat = 5.0
    usd_per_day: PositiveFloat = 50.0
    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 256
    deadline_s: PositiveFloat = 60.0
    deadline_from: Literal["fetch", "record"] = "fetch"
    timeout_s: PositiveFloat = 30.0
    """One call; a call never outlasts the event's deadline."""
    on_deadline: Literal["degrade", "dlq"] = "degrade"
    on_budget: Literal["wait", "degrade", "dlq"] = "wait"
    on_outage: Literal["wait", "degrade", "dlq"] = "wait"
    parked_max_age_s: Annotated[float, Field(gt=0, le=PARKED_AGE_MAX_S)] = 86_400.0
    """For so long a degraded event may still be asked; a week at most, since the parked topic keeps it so long."""
    hint: bool = True
    prune: bool = True
    prune_eps: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Labels are dropped once the kept ones hold 1 - eps of the calibrated probability; never below two."""
    instructions_file: Path | None = None
    text_tokens_max: PositiveInt = 2_000
    output_tokens_max: PositiveInt = 300
    reason: bool = False
    """Ask the LLM for a short reason (kept in `enrichment`); costs output tokens."""
    enrichment: dict[str, Any] = Field(default_factory=dict)
    """The JSON Schema of an object that the LLM fills beside the labels; it becomes the decision's `enrichment`."""
    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1, max_length=ENDPOINTS_MAX)] = (Endpoint(),)
    """In the order of their use: the second answers while the first is away, and so on. A second opinion stands last,
    wherever it was written."""

    @property
    def in_turn(self) -> tuple[Endpoint, ...]:
        """The endpoints that stand in for each other, in their order."""
        return tuple(endpoint for endpoint in self.endpoints if not endpoint.second_opinion)

    @property
    def second_opinion(self) -> Endpoint | None:
        """The endpoint for second opinions, if there is one."""
        return next((endpoint for endpoint in self.endpoints if endpoint.second_opinion), None)

    @field_validator("endpoints")
    @classmethod
    def _all_different(cls, value: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """One provider's limit, written twice, would be used twice."""
        first: dict[tuple[str, str], int] = {}
        for number, endpoint in enumerate(value, 1):
            same = first.setdefault((endpoint.base_url.rstrip("/"), endpoint.model), number)
            if same != number:
                raise ValueError(
                    f"numbers {same} and {number} are both {endpoint.model} at {endpoint.base_url}, whose limits "
                    "would be used twice: leave one out"
                )
        return value

    @field_validator("endpoints")
    @classmethod
    def _one_second_opinion(cls, value: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Beside an ordinary endpoint, and of another model: votes are told apart by the model's name."""
        second = [endpoint for endpoint in value if endpoint.second_opinion]
        others = [endpoint for endpoint in value if not endpoint.second_opinion]
        if not others:
            raise ValueError("a second opinion needs an endpoint without second_opinion, whose answer comes first")
        if len(second) > 1:
            raise ValueError("one endpoint may be the second opinion, not several")
        if any(endpoint.model == second[0].model for endpoint in others if second):
            raise ValueError(f"{second[0].model} cannot be the second opinion on its own answers: name another model")
        return (*others, *second)

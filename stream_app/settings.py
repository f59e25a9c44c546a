"""The settings: `shunt.toml`, then environment variables `SHUNT_...`, then flags (DESIGN section 10).

Every key has a working default except what only the user knows (the tasks). An unknown key is an error that
names the nearest known one. Secrets are never settings: a key is named by the environment variable or the
file that holds it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream_app.errors import SettingsError

DEFAULT_FILE = "shunt.toml"
ENDPOINTS_MAX = 8
"""More than anybody falls back through; each has connections and buckets of its own."""
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
PARKED_AGE_MAX_S = 7 * 86_400.0
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Section(BaseModel):
    """One table of the settings file: frozen, and strict about what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Topics(Section):
    """Names of the output topics. What is left out is derived from the input topic's name."""

    decisions: TopicName | None = None
    escalations: TopicName | None = None
    dlq: TopicName | None = None
    parked: TopicName | None = None
    review: TopicName | None = None
    feedback: TopicName | None = None
    verdicts: TopicName | None = None
    audits: TopicName | None = None
    audit_results: TopicName | None = None
    control: TopicName | None = None


class TopicNames(Section):
    """All topic names of a pipeline, resolved."""

    input: str
    decisions: str
    escalations: str
    dlq: str
    parked: str
    review: str
    feedback: str
    verdicts: str
    audits: str
    audit_results: str
    control: str


class Kafka(Section):
    """Where Kafka is, and how the lanes behave towards it."""

    bootstrap_servers: str = "127.0.0.1:9092"
    group: Annotated[str, Field(min_length=1)] = "shunt"
    input_topic: TopicName = "reviews"
    topics: Topics = Topics()
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group without any committed offset begins; `latest` is the end at its very first start.

    A partition that is added later is read from its beginning in either case. An offset that has expired, or lies
    beyond the end, is an error, never a jump.
    """
    session_timeout_ms: Annotated[int, Field(ge=1_000, le=300_000)] = 10_000
    transaction_timeout_ms: Annotated[int, Field(ge=1_000, le=900_000)] = 15_000
    """Bounds how long a dead worker holds back readers of the topics it wrote to."""
    handover_s: PositiveFloat = 5.0
    drain_timeout_s: PositiveFloat = 30.0
    transactions_per_s_max: PositiveFloat = 150.0
    """A transaction costs about 1 ms of CPU, whatever it carries."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """Of what the lanes write. Decisions are much alike, so zstd costs less than sending them would."""

    @property
    def names(self) -> TopicNames:
        """The topic names, each as set or derived from the input topic's."""
        return TopicNames(
            input=self.input_topic,
            decisions=self.topics.decisions or f"{self.input_topic}-decisions",
            escalations=self.topics.escalations or f"{self.input_topic}-escalations",
            dlq=self.topics.dlq or f"{self.input_topic}-dlq",
            parked=self.topics.parked or f"{self.input_topic}-parked",
            review=self.topics.review or f"{self.input_topic}-review",
            feedback=self.topics.feedback or f"{self.input_topic}-feedback",
            verdicts=self.topics.verdicts or f"{self.input_topic}-verdicts",
            audits=self.topics.audits or f"{self.input_topic}-audits",
            audit_results=self.topics.audit_results or f"{self.input_topic}-audit-results",
            control=self.topics.control or f"{self.input_topic}-control",
        )


class Events(Section):
    """Where an event's id and text stand. Paths use dots; several text fields are joined in order."""

    id_field: str = "id"
    text_fields: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    text_bytes_max: PositiveInt = 1_000_000
    """A longer text is a dead letter (`text_too_long`)."""


class Triton(Section):
    """Where Triton's gRPC port is."""

    url: str = "127.0.0.1:8001"
    timeout_s: PositiveFloat = 10.0


class LabelCost(Section):
    """What it costs to miss a label, and to answer it falsely: any unit, the same for all labels of a task."""

    missed: Annotated[float, Field(ge=0)] = 1.0
    false_alarm: Annotated[float, Field(ge=0)] = 1.0


class Task(Section):
    """One question about every event, with a fixed label set and one dial.

    The dial is `target_error`, or `escalate_max`, or `threshold` by hand. Where labels matter differently,
    `precision_min` (of what is accepted with a label, so much is truly of it) and `miss_max` (of what truly is of a
    label, at most so much is accepted as something else) stand beside a target or in its place. Precision is that in
    traffic of the stated `prevalence`. With `costs` the answer is the one expected to cost least; `costs` alone are a
    dial too: nothing is promised then, and an event is escalated where that is expected to save more than
    `asking_cost`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["one_of", "any_of"] = "one_of"
    """`any_of`: any number of the labels may be right of a text, and each is answered by itself. It must be what the
    models are."""
    labels: tuple[str, ...] | dict[str, str] | None = None
    """The labels, or a table label -> description for the prompt. Left out: what the first model serves."""
    tiers: Annotated[tuple[str | tuple[str, ...], ...], Field(min_length=1)]
    target_error: Share | None = None
    escalate_max: Share | None = None
    """The share of events that goes to the LLM, held whatever the traffic is like."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    precision_min: dict[str, Share] = Field(default_factory=dict)
    miss_max: dict[str, Share] = Field(default_factory=dict)
    prevalence: dict[str, Share] = Field(default_factory=dict)
    """label -> its share of the traffic. Left out: as in the calibration sample."""
    costs: dict[str, LabelCost] = Field(default_factory=dict)
    """label -> what it costs to miss it, and to answer it falsely. A label that is not named costs nothing itself."""
    asking_cost: Annotated[float, Field(ge=0)] = 0.0
    """What asking the LLM about one event costs, in the unit of `costs`."""

    @model_validator(mode="after")
    def _one_dial(self) -> Task:
        by_label = bool(self.precision_min or self.miss_max)
        dials = {"target_error": self.target_error, "escalate_max": self.escalate_max, "threshold": self.threshold}
        given = [name for name, value in dials.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if self.escalate_max is not None and by_label:
            raise ValueError("a share that is held promises nothing: leave precision_min and miss_max out")
        if self.threshold is not None and by_label:
            raise ValueError("a threshold by hand promises nothing: leave precision_min and miss_max out")
        if not given and not by_label and not self.costs:
            raise ValueError(
                "give target_error, or escalate_max, or threshold, or precision_min and miss_max for the labels that "
                "matter, or costs"
            )
        if self.asking_cost and not self.costs:
            raise ValueError("asking_cost is told in the unit of `costs`: give those too")
        if sum(self.prevalence.values()) > 1:
            raise ValueError("prevalence: the labels' shares add up to more than 1")
        return self

    @model_validator(mode="after")
    def _any_of_promises_of_all_labels(self) -> Task:
        if self.kind == "any_of":
            for name in ("escalate_max", "precision_min", "miss_max", "prevalence", "costs"):
                if getattr(self, name):
                    raise ValueError(f"a task of kind any_of takes target_error or threshold: leave {name} out")
        return self

    @property
    def by_hand(self) -> bool:
        """Whether it decides by a cut that nobody certified."""
        return self.threshold is not None

    @property
    def by_gain(self) -> bool:
        """Whether nothing is promised, and costs alone decide what is escalated."""
        promised = self.target_error or self.precision_min or self.miss_max
        return bool(self.costs) and not (self.by_hand or self.escalate_max or promised)

    @field_validator("labels")
    @classmethod
    def _at_least_two(cls, value: tuple[str, ...] | dict[str, str] | None) -> Any:
        if value is not None and len(set(value)) < 2:
            raise ValueError("a task needs at least two different labels")
        return value

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names in order; empty where the model says them."""
        return tuple(self.labels or ())

    @property
    def descriptions(self) -> dict[str, str]:
        """Label -> description, for the labels that have one."""
        return dict(self.labels) if isinstance(self.labels, dict) else {}

    @property
    def models(self) -> tuple[str, ...]:
        """Every model any tier names, once, in order of first use."""
        flat = [name for tier in self.tiers for name in ((tier,) if isinstance(tier, str) else tier)]
        return tuple(dict.fromkeys(flat))


class PolicyFile(Section):
    """The artifact `shunt calibrate` made. Needed by every task with `target_error`."""

    file: Path | None = None


class Decisions(Section):
    """What a decision carries beyond the answers."""

    provisional: bool = False
    recommended_action: dict[str, Literal["publish", "hold", "remove", "review"]] = Field(default_factory=dict)
    """label -> action; the most severe of an event's labels wins."""


class Classify(Section):
    """The hot path."""

    linger_ms: PositiveFloat = 5.0
    batch_records_max: PositiveInt = 16_384
    infer_records_max: Annotated[int, Field(ge=1, le=16_384)] = 4_096
    """Records in one Triton request, never more than the model's own `max_batch_size`; more are cut into several."""


class Escalate(Section):
    """The slow path."""

    linger_ms: PositiveFloat = 200.0
    span_max: Annotated[int, Field(ge=1, le=20_000)] = 20_000
    """Offsets a partition may run ahead of its oldest unfinished one: 20,000 bits fit the offset's metadata."""


class AuditOptions(Section):
    """Accepted answers that the LLM is asked about all the same, drawn by chance: do the promises still hold?"""

    share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of the events with an accepted answer; 0 audits nothing."""
    max_age_s: Annotated[float, Field(gt=0, le=PARKED_AGE_MAX_S)] = 86_400.0
    """An audit that the LLM has had no room for until then counts as lost."""
    on_alarm: Literal["log", "tighten", "llm_only"] = "log"
    """While an alarm stands its task is uncertified; its cut may rise, or the LLM have all of it."""
    shift_min: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A share of events that moved by less than this from the calibration sample's has not shifted."""


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
    prune_eps: Annotated[float, Field(ge=0, lt=1)] = 0.02
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


class Feedback(Section):
    """What is kept on the feedback topic to train on, texts included."""

    llm_answers: bool = True
    """Each label that an LLM gave. False where texts must not be kept for longer than it takes to decide them."""


class Web(Section):
    """The worker's own web server: health, metrics and, in the feeds role, the live page."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 6066


class Settings(BaseSettings):
    """Everything a worker needs to know before it starts."""

    model_config = SettingsConfigDict(
        env_prefix="SHUNT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    kafka: Kafka = Kafka()
    events: Events = Events()
    triton: Triton = Triton()
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    policy: PolicyFile = PolicyFile()
    decisions: Decisions = Decisions()
    classify: Classify = Classify()
    escalate: Escalate = Escalate()
    audit: AuditOptions = AuditOptions()
    llm: Llm = Llm()
    feedback: Feedback = Feedback()
    web: Web = Web()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the file."""
        del dotenv_settings, file_secret_settings
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    @model_validator(mode="after")
    def _tasks_have_names_of_their_own(self) -> Settings:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self

    def task(self, name: str) -> Task:
        """The task of that name; KeyError where there is none."""
        return {task.name: task for task in self.tasks}[name]


def settings_path(path: Path | str | None = None) -> Path:
    """The settings file: the one given, else `SHUNT_CONFIG`, else `shunt.toml` in the working folder."""
    return Path(path or os.environ.get("SHUNT_CONFIG") or DEFAULT_FILE)


def load_settings(path: Path | str | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """The settings from file, environment and flags. Relative paths in the file count from the file.

    Raises SettingsError, one line that says what to change, for a file that is missing or not TOML, an
    unknown key (with the nearest known one), a value of the wrong type or out of range.
    """
    file = settings_path(path)
    if not file.is_file():
        raise SettingsError(
            f"there is no settings file {file}", advice="make one with `shunt init`, or name it with --config"
        )

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        found = FromFile(**(overrides or {}))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML ({error})") from error
    except ValidationError as error:
        raise SettingsError(f"{file}: {_first_complaint(error)}") from error
    return _with_absolute_paths(found, file.resolve().parent)


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """`settings` with the paths that stand in it counted from `folder`."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    endpoints = tuple(
        endpoint.model_copy(update={"api_key_file": absolute(endpoint.api_key_file)})
        for endpoint in settings.llm.endpoints
    )
    llm = settings.llm.model_copy(
        update={"instructions_file": absolute(settings.llm.instructions_file), "endpoints": endpoints}
    )
    policy = settings.policy.model_copy(update={"file": absolute(settings.policy.file)})
    return settings.model_copy(update={"llm": llm, "policy": policy})


def _first_complaint(error: ValidationError) -> str:
    """The first thing pydantic found, in our words."""
    complaint = error.errors(include_url=False)[0]
    where = tuple(part for part in complaint["loc"] if not _is_union_branch(part))
    name = ".".join(str(part) for part in where) or "settings"
    if complaint["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), _known_keys(where[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {name!r}{hint}"
    if complaint["type"] == "missing":
        return f"{name!r} is missing"
    message = complaint["msg"].removeprefix("Value error, ")
    given = complaint.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{name!r}: {message[0].lower()}{message[1:]}{shown}"


def _is_union_branch(part: int | str) -> bool:
    """True for what pydantic adds to a location to tell the branches of a union apart."""
    return isinstance(part, str) and ("[" in part or part in {"str", "tuple", "dict"})


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `where`."""
    section: type[BaseModel] = Settings
    for part in where:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        inner = [cast("Any", annotation), *getattr(annotation, "__args__", ())]
        section = next(kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)

"""All settings together, and which source wins."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream_app.settings.kafka import Kafka
from stream_app.settings.llm import Llm
from stream_app.settings.parts import (
    AuditOptions,
    Classify,
    Decisions,
    Escalate,
    Events,
    Feedback,
    PolicyFile,
    Triton,
    Web,
)
from stream_app.settings.task import Task


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
    def _tasks_have_names_of_their_own(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self

    def task(self, name: str) -> Task:
        """The task of that name; KeyError where there is none."""
        return {task.name: task for task in self.tasks}[name]

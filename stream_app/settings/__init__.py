"""The settings: `shunt.toml`, then environment variables `SHUNT_...`, then flags (DESIGN section 10).

Every key has a working default except what only the user knows (the tasks). An unknown key is an error that
names the nearest known one. Secrets are never settings: a key is named by the environment variable or the
file that holds it.
"""

from stream_app.settings.kafka import Kafka, TopicNames, Topics
from stream_app.settings.llm import ENDPOINTS_MAX, Endpoint, Llm
from stream_app.settings.loading import DEFAULT_FILE, load_settings, settings_path
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
from stream_app.settings.section import PARKED_AGE_MAX_S
from stream_app.settings.task import LabelCost, Task
from stream_app.settings.whole import Settings

__all__ = [
    "DEFAULT_FILE",
    "ENDPOINTS_MAX",
    "PARKED_AGE_MAX_S",
    "AuditOptions",
    "Classify",
    "Decisions",
    "Endpoint",
    "Escalate",
    "Events",
    "Feedback",
    "Kafka",
    "LabelCost",
    "Llm",
    "PolicyFile",
    "Settings",
    "Task",
    "TopicNames",
    "Topics",
    "Triton",
    "Web",
    "load_settings",
    "settings_path",
]

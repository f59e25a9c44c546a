"""Every error Shunt raises on purpose, in one tree.

    ShuntError
    ├── SettingsError          what a person wrote is wrong; nothing was consumed (exit status 2)
    ├── StartError             something the worker needs is not there or does not fit (exit status 1)
    │   ├── KafkaUnreachable   retriable: no broker answers
    │   └── UnreadableTopic    most of the first records are not events: a setting is wrong, not the data
    ├── UnreadableRecord       one record is not an event: a dead letter with its cause
    ├── ModelError             the small model could not answer
    │   ├── ModelUnavailable   retriable: Triton is away, loading, or the model's version is gone
    │   │   └── ModelRetired   ... and the policy that named it decides no more: take the one in force
    │   └── ModelRefused       this batch fails for good: bisect it
    ├── LlmError               the LLM gave no usable answer (see `stream_app.escalate`)
    ├── MembershipLost         fenced, expelled, or a transaction timed out: drop the work and join again
    │   └── MembershipInterrupted    retriable: Kafka did not answer; joining again does not count as a loss
    ├── MembershipLostTooOften (exit status 3)
    └── DeliveryRefused        the broker refuses an output for good (right missing, topic gone); exit status 1

Each class says whether trying again may help (`retriable`) and which exit status it means for the process
when nothing handles it. `advice` is what a person should change; the command line prints both on one line.
"""

from __future__ import annotations

from typing import ClassVar


class ShuntError(Exception):
    """Base of the tree. `advice` is the sentence that says what to change."""

    retriable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def one_line(self) -> str:
        """The message and the advice on one line, as the command line prints them."""
        text = self.message if self.advice is None else f"{self.message}: {self.advice}"
        return " ".join(text.split())


class SettingsError(ShuntError):
    """A setting, flag or policy a person wrote is wrong. Nothing was consumed."""

    exit_status = 2


class StartError(ShuntError):
    """Something the worker needs (a topic, Triton, a model, a key) is missing or does not fit."""


class KafkaUnreachable(StartError):  # noqa: N818 - named for what happened
    """No broker answers. At the start that ends the worker; later it is waited for."""

    retriable = True


class UnreadableTopic(StartError):  # noqa: N818 - named for what happened, as the field speaks of it
    """More than half of the first records are not events: the cause is a setting, and nothing was committed."""


class UnreadableRecord(ShuntError):  # noqa: N818 - named for what happened
    """One record is not an event. `cause` is a stable short name (`not_json`, `missing_text`, ...)."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class ModelError(ShuntError):
    """The small model could not answer."""


class ModelUnavailable(ModelError):  # noqa: N818 - named for what happened
    """Triton is away, loading, or the pinned version is gone: pause and try again, never dead-letter."""

    retriable = True


class ModelRetired(ModelUnavailable):
    """It is away, and another policy is in force by now: what was not decided is decided by that one."""


class ModelRefused(ModelError):  # noqa: N818 - named for what happened
    """Triton answered that this batch cannot be done: bisect it down to the record."""


class LlmError(ShuntError):
    """The LLM gave no usable answer."""


class MembershipLost(ShuntError):  # noqa: N818 - named for what happened
    """Another worker owns the partition now, or the transaction timed out: drop its work and join again."""

    retriable = True


class MembershipInterrupted(MembershipLost):
    """Kafka did not answer, or not yet (a broker or coordinator away): join again, for as long as it takes.

    Nobody has taken the partition that we know of, so it does not count towards `MembershipLostTooOften`.
    """


class MembershipLostTooOften(ShuntError):  # noqa: N818 - named for what happened
    """Membership was lost so often that this worker hinders the group."""

    exit_status = 3


class DeliveryRefused(ShuntError):  # noqa: N818 - named for what happened
    """The broker refuses an output for good; the message names the topic and, where it is one, the right."""


def without_training_packages(error: ImportError) -> StartError:
    """What a person is told where a package of the `train` extra is missing."""
    advice = 'install the training packages: pip install "shunt-stream[train]"'
    return StartError(f"{error.name} is not installed", advice=advice)

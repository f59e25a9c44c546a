"""The records of the control topic: which policy is in force, which is tried, and what the workers say of it. Pure.

The topic is compacted and has one partition; the newest record of a key counts:

    in-force          the policy that decides, and the one before it
    candidate         a policy that is to come into force; null once that is settled
    worker/<name>     what a worker has come to; null once it has left in order
    alarm/<policy>/<task>/<what>   a promise of that policy which does not hold any more

Every change is a *swap* with an id of its own, so that nobody's word about an earlier one is taken for this one.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from stream_app.errors import UnreadableRecord
from stream_app.routing.policy import Policy, check_policy

IN_FORCE, CANDIDATE, WORKER, ALARM = b"in-force", b"candidate", b"worker/", b"alarm/"
DRIFT = "drift"
"""What of an alarm: the stream is not like the calibration sample any more."""
Cause = Literal["promote", "rollback"]
T = TypeVar("T")


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that decides. `forced` says why it would not have been promoted, had nobody insisted."""

    swap: str
    policy: Policy
    previous: Policy | None
    cause: Cause
    forced: tuple[str, ...] = ()
    at: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that workers are to get ready for."""

    swap: str
    policy: Policy
    at: str


class WorkerSays(msgspec.Struct, frozen=True, kw_only=True):
    """How far a worker is: the swap it is ready for, or refuses and why, and the swap whose policy it decides by.

    `in_force` is told only when nothing under way is decided by another one any more; "" where the policy file
    decides.
    """

    ready: str | None = None
    refuses: str | None = None
    why: str = ""
    in_force: str = ""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A promise of a policy that does not hold any more, by all that was seen; it stands until another policy does.

    `what` is `llm` or `human` (audits), or DRIFT.
    """

    policy: str
    task: str
    what: str
    told: str
    at: str

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return ALARM + f"{self.policy}/{self.task}/{self.what}".encode()


class Control:
    """All that the control topic says, folded record by record."""

    def __init__(self) -> None:
        self.in_force: InForce | None = None
        self.candidate: Candidate | None = None
        self.workers: dict[str, WorkerSays] = {}
        self.alarms: dict[bytes, Alarm] = {}

    def standing(self, policy: str | None) -> list[Alarm]:
        """The alarms of that policy."""
        return [alarm for alarm in self.alarms.values() if alarm.policy == policy]

    def alarmed(self, policy: str | None) -> frozenset[tuple[str, str]]:
        """The same, as a task and what of it."""
        return frozenset((alarm.task, alarm.what) for alarm in self.standing(policy))

    def fold(self, key: bytes | None, value: bytes | None) -> None:
        """Takes a record in. Raises UnreadableRecord (`bad_control`) for one that is not ours."""
        if key == IN_FORCE:
            self.in_force = None if value is None else _checked(_decoded(value, InForce))
        elif key == CANDIDATE:
            self.candidate = None if value is None else _checked(_decoded(value, Candidate))
        elif key is not None and key.startswith(ALARM):
            if value is None:
                self.alarms.pop(key, None)
            else:
                self.alarms[key] = _decoded(value, Alarm)
        elif key is not None and key.startswith(WORKER):
            name = key.removeprefix(WORKER).decode("utf-8", "replace")
            if value is None:
                self.workers.pop(name, None)
            else:
                self.workers[name] = _decoded(value, WorkerSays)


Named = TypeVar("Named", InForce, Candidate)


def worker_key(name: str) -> bytes:
    """The key of what a worker says."""
    return WORKER + name.encode()


def encoded(record: InForce | Candidate | WorkerSays | Alarm) -> bytes:
    """The record's value."""
    return msgspec.json.encode(record)


def _decoded(value: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRecord("bad_control", f"a control record cannot be read: {error}") from error


def _checked(record: Named) -> Named:
    check_policy(record.policy, f"the control topic, {record.policy.ref}")
    return record

"""What audits say of a policy's promises, and the alarms that follow. Pure.

Everybody who folds the same results in the same order comes to the same state.

For each task there are two questions. Does the LLM disagree with accepted answers more often than it did with the
calibration sample's? Are accepted answers wrong, by people's labels, more often than is promised?
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stream_app.routing.audit import RiskMonitor
from stream_app.routing.certification import error_bound

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_app.routing.policy import Policy, TaskPolicy

ALARM_DELTA = 0.05
"""How likely a false alarm is, ever, for one task and one question, while its bound holds."""
BEGINNING = 300
"""Where the policy knows nothing of the LLM's disagreement, that of so many first audits is what later ones may not
pass. Fewer would leave a bound that notices little; more would be blind for longer."""

By = Literal["llm", "human"]


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit's result, as far as an alarm is concerned. `lost`: not what was accepted, or no answer."""

    policy: str | None
    task: str
    by: By
    lost: bool
    answered: bool = True


@dataclass(slots=True)
class Watched:
    """One question of one task: how many audits, and what they came to. `bound` is None while nobody knows one.

    With a bound from calibration, P(ever an alarm) <= ALARM_DELTA while the risk is at most that. Without one the
    first `BEGINNING` audits make it: their Clopper-Pearson bound at half of delta, and the rest is spent on the
    test; so the promise is the same, and what is held is the stream's own beginning.
    """

    bound: float | None
    from_beginning: bool = False
    audited: int = 0
    disagreed: int = 0
    unanswered: int = 0
    monitor: RiskMonitor | None = None

    def __post_init__(self) -> None:
        """A bound of 0 or 1 can neither be kept nor passed: nothing is tested."""
        if self.bound is not None and 0 < self.bound < 1:
            self.monitor = RiskMonitor(self.bound, ALARM_DELTA)

    @property
    def alarm(self) -> bool:
        """True from when the evidence sufficed."""
        return self.monitor is not None and self.monitor.alarm

    @property
    def wealth(self) -> float | None:
        """The evidence against the bound: an alarm at 1 / delta. None while nothing is tested."""
        return None if self.monitor is None else self.monitor.wealth

    @property
    def risk(self) -> float | None:
        """The share lost so far."""
        return (self.disagreed + self.unanswered) / self.audited if self.audited else None

    def take(self, result: Audited) -> None:
        """One more audit."""
        self.audited += 1
        self.disagreed += result.lost and result.answered
        self.unanswered += not result.answered
        if self.monitor is not None:
            self.monitor.observe(float(result.lost))
        elif self.from_beginning and self.audited == BEGINNING:
            self.bound = error_bound(self.disagreed + self.unanswered, BEGINNING, ALARM_DELTA / 2)
            if self.bound < 1:
                self.monitor = RiskMonitor(self.bound, ALARM_DELTA / 2)


@dataclass(slots=True)
class AuditState:
    """All that the results say about one policy. Results of other policies are passed over."""

    policy: str
    watched: dict[tuple[str, By], Watched] = field(default_factory=dict[tuple[str, By], Watched])

    @classmethod
    def of(cls, policy: Policy, tasks: Collection[str]) -> AuditState:
        """Nothing audited yet. `tasks` are those that are decided by the policy's own cut."""
        state = cls(policy.ref)
        for name, task in policy.tasks.items():
            if name not in tasks:
                continue
            llm = _llm_bound(task)
            state.watched[name, "llm"] = Watched(llm, from_beginning=llm is None)
            state.watched[name, "human"] = Watched(_human_bound(task))
        return state

    def take(self, result: Audited) -> tuple[str, By] | None:
        """One more result; the question that alarms with it, and did not before."""
        watched = self.watched.get((result.task, result.by)) if result.policy == self.policy else None
        if watched is None:
            return None
        before = watched.alarm
        watched.take(result)
        return (result.task, result.by) if watched.alarm and not before else None

    def told(self, task: str, by: By) -> str:
        """What was found, for a person."""
        watched = self.watched[task, by]
        who = "the LLM disagreed with" if by == "llm" else "people disagreed with"
        silent = f", {watched.unanswered:,} without an answer" if watched.unanswered else ""
        than = "its own beginning" if watched.from_beginning else "promised" if by == "human" else "in calibration"
        return (
            f"{who} {watched.risk or 0:.2%} of {watched.audited:,} audited answers{silent}; "
            f"{than} it was at most {watched.bound or 0:.2%}"
        )


def _llm_bound(task: TaskPolicy) -> float | None:
    """Where the LLM was the reference the certificate is about nothing else; else what its recorded answers say."""
    if task.reference == "llm":
        return _human_bound(task)
    return None if task.llm_disagreement is None else task.llm_disagreement.bound


def _human_bound(task: TaskPolicy) -> float | None:
    """The target, or where there is none what was shown of the cut that was taken."""
    certificate = task.certificate
    if certificate is None:
        return None
    return certificate.error_bound if certificate.error_max is None else certificate.error_max

"""At another cut, what would past events have cost, how many would have been accepted, and how many wrongly? Pure.

Some of it is known: what is escalated at both cuts, and the error of what the LLM, an audit or a person has labelled.
Some is not, and stands as a range: the errors of accepted events that nobody looked at (all right to all wrong), and,
with several tiers, where an event goes whose other tiers' confidence was not published. Where a uniform share of the
accepted was audited, that sample estimates the unknown part, with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from stream_app.training.rounding import to_six_digits
from stream_app.training.shares import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.training.past import PastEvent


class Fate(Enum):
    """What becomes of an event at a cut. `ACCEPTED_BY_ANOTHER`: accepted, but an earlier tier may have answered."""

    ACCEPTED = "accepted"
    ACCEPTED_BY_ANOTHER = "accepted by another"
    ESCALATED = "escalated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Between:
    """A figure that is known to lie from `low` to `high`; they are equal where it is known."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class IfError:
    """How many of the `accepted` would have been wrong, against people's labels, else the LLM's.

    `known` of them somebody has labelled (`by_people`, `by_llm` when they were escalated, `by_audit`), `wrong` of
    those are wrong. `between` counts the others as all right, and as all wrong. `audited` is the estimate that takes
    them to be as the audited ones, with its 95 % interval; None without audits. `expected` takes them to be wrong as
    often as their calibrated confidence says.
    """

    accepted: int
    known: int
    by_people: int
    by_llm: int
    by_audit: int
    wrong: int
    between: Between | None
    audited: float | None
    audited_between: Between | None
    expected: float | None


@dataclass(frozen=True, slots=True)
class IfCut:
    """One cut for all labels, None for those that were in force. `coverage` and `asked` are shares of the events.

    `cost_usd` is what was paid for events that are asked at both cuts, and the mean of all paid calls for those that
    are asked only here. `cost_share` is that against asking about every event at that mean; None where nothing was
    paid.
    """

    threshold: float | None
    events: int
    coverage: Between
    asked: Between
    cost_usd: Between | None
    cost_share: Between | None
    error: IfError


def what_if(events: Sequence[PastEvent], thresholds: Sequence[float], tiers: int) -> list[IfCut]:
    """As it was, then at each of the cuts. `tiers` is how many the task has. Raises ValueError without events."""
    if not events:
        raise ValueError("there is no past event")
    highest = _highest_cuts(events)
    mean_usd = _mean_usd(events)
    return [
        _at(threshold, events, _fates(events, threshold, tiers, highest), mean_usd)
        for threshold in (None, *thresholds)
    ]


def _highest_cuts(events: Sequence[PastEvent]) -> dict[str | None, float]:
    """By policy: no label's cut was higher, so that an earlier tier which passed an event on was below it."""
    highest: dict[str | None, float] = {}
    for event in events:
        highest[event.policy] = max(event.cut, highest.get(event.policy, 0.0))
    return highest


def _fates(
    events: Sequence[PastEvent], threshold: float | None, tiers: int, highest: dict[str | None, float]
) -> list[Fate]:
    """Where each event goes: as it went, where no cut is asked about.

    The cut is compared as confidences are published, so that one which equals it reaches it, as in the router.
    """
    if threshold is None:
        return [Fate.ACCEPTED if event.because is None else Fate.ESCALATED for event in events]
    reached_from = to_six_digits(np.float32(threshold))
    return [
        _fate(event, tiers, sure=event.confidence >= reached_from, above=threshold >= highest[event.policy])
        for event in events
    ]


def _fate(event: PastEvent, tiers: int, *, sure: bool, above: bool) -> Fate:
    """Out of domain: escalated at any cut. `sure`: it reaches this one; `above`: none of its policy is higher."""
    if event.because == "out_of_domain":
        return Fate.ESCALATED
    if tiers == 1:
        return Fate.ACCEPTED if sure else Fate.ESCALATED
    # Tiers before this one had passed it on at the old cut, and so do at a higher one.
    alone = event.tier == 0 or (event.tier is not None and above)
    if sure:
        return Fate.ACCEPTED if alone else Fate.ACCEPTED_BY_ANOTHER
    return Fate.ESCALATED if alone and event.tier == tiers - 1 else Fate.UNKNOWN


def _mean_usd(events: Sequence[PastEvent]) -> float | None:
    """Of an event that was asked and paid for; a share of them came from the cache, and will again."""
    paid = [sum(usage.cost_usd for usage in event.usages) for event in events if event.usages]
    return sum(paid) / len(paid) if paid else None


def _at(threshold: float | None, events: Sequence[PastEvent], fates: Sequence[Fate], mean_usd: float | None) -> IfCut:
    unknown = sum(fate is Fate.UNKNOWN for fate in fates)
    accepted = sum(fate in {Fate.ACCEPTED, Fate.ACCEPTED_BY_ANOTHER} for fate in fates)
    # An event of several tasks is asked about if any of them is unsure.
    surely = [
        event for event, fate in zip(events, fates, strict=True) if fate is Fate.ESCALATED or event.others_asked
    ]
    perhaps = [
        event for event, fate in zip(events, fates, strict=True) if fate is Fate.UNKNOWN and not event.others_asked
    ]
    low, high = _usd(surely, threshold, mean_usd), _usd([*surely, *perhaps], threshold, mean_usd)
    every = None if mean_usd is None else mean_usd * len(events)
    return IfCut(
        threshold=threshold,
        events=len(events),
        coverage=Between(accepted / len(events), (accepted + unknown) / len(events)),
        asked=Between(len(surely) / len(events), (len(surely) + len(perhaps)) / len(events)),
        cost_usd=None if low is None or high is None else Between(low, high),
        cost_share=None if low is None or high is None or not every else Between(low / every, high / every),
        error=_error([(event, fate) for event, fate in zip(events, fates, strict=True)]),
    )


def _usd(asked: Sequence[PastEvent], threshold: float | None, mean_usd: float | None) -> float | None:
    """What was paid for those of them that were asked, and the mean for the others; those were none as it was."""
    if mean_usd is None:
        return None
    known = [sum(usage.cost_usd for usage in event.usages) for event in asked if event.usages]
    new = 0 if threshold is None else sum(not event.usages for event in asked)
    return sum(known) + new * mean_usd


def _error(events: Sequence[tuple[PastEvent, Fate]]) -> IfError:
    taken = [event for event, fate in events if fate is Fate.ACCEPTED]
    by_another = [event for event, fate in events if fate is Fate.ACCEPTED_BY_ANOTHER]
    known = [event for event in taken if event.wrong is not None]
    open_ = [event for event in taken if event.wrong is None] + by_another
    wrong = sum(event.wrong is True for event in known)
    rows = len(taken) + len(by_another)
    audited, audited_between = _by_audits(taken, by_another, wrong)
    doubt = sum(event.doubt for event in open_)
    return IfError(
        accepted=rows,
        known=len(known),
        by_people=sum(event.human is not None for event in known),
        by_llm=sum(event.human is None and event.llm is not None for event in known),
        by_audit=sum(event.human is None and event.llm is None for event in known),
        wrong=wrong,
        between=Between(wrong / rows, (wrong + len(open_)) / rows) if rows else None,
        audited=audited,
        audited_between=audited_between,
        expected=(wrong + doubt) / rows if rows else None,
    )


def _by_audits(
    taken: Sequence[PastEvent], by_another: Sequence[PastEvent], wrong: int
) -> tuple[float | None, Between | None]:
    """The estimate by what the audits found among those that were accepted then: they were drawn uniformly from them.

    It says nothing of events that were escalated then and nobody answered, nor of those that another tier may have
    answered: these stay all right to all wrong, and count by their confidence in the estimate.
    """
    were_accepted = [event for event in taken if event.because is None]
    seen = [event for event in were_accepted if event.audit is not None]
    if not seen:
        return None, None
    found = share(sum(event.wrong is True for event in seen), len(seen))
    unseen = sum(event.wrong is None for event in were_accepted)
    others = [event for event in taken if event.because is not None and event.wrong is None] + list(by_another)
    rows = len(taken) + len(by_another)
    doubt = sum(event.doubt for event in others)
    return (
        (wrong + (found.share or 0.0) * unseen + doubt) / rows,
        Between((wrong + found.low * unseen) / rows, (wrong + found.high * unseen + len(others)) / rows),
    )

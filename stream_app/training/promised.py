"""From a task's settings to what its policy must keep, and back to the lines of the certificate."""

from collections.abc import Sequence

import numpy as np

from stream_app.errors import SettingsError
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import Certificate, Promised
from stream_app.routing.promises import (
    Counts,
    ErrorAtMost,
    MissedAtMost,
    Promise,
    WrongAtPrevalence,
    counts_of,
    open_promises,
    shown,
)
from stream_app.settings import Task
from stream_app.training.cut import Cut
from stream_app.training.rounding import to_six_digits

TIMES = (*range(1, 20), *range(20, 100, 5), *range(100, 1001, 50))
"""The number of rows needed is told in multiples of the sample, at most a thousand."""


def promises_of(task: Task, labels: tuple[str, ...], truth: IndexArray) -> list[Promise]:
    """All that the settings ask to be certified, the error target first.

    Raises SettingsError for a label that the models do not give, or one that no row has.
    """
    index = {label: place for place, label in enumerate(labels)}
    counts = np.bincount(truth, minlength=len(labels))
    for label in (*task.precision_min, *task.miss_max, *task.prevalence):
        if label not in index:
            raise SettingsError(
                f"task {task.name}: there is no label {label}", advice=f"there is {', '.join(labels)}"
            )
        if not counts[index[label]]:
            raise SettingsError(
                f"task {task.name}: no row is labelled {label}", advice="label some, or promise nothing"
            )
    stated = {index[label]: share for label, share in task.prevalence.items()}
    made: list[Promise] = [] if task.target_error is None else [ErrorAtMost(task.target_error)]
    for label, least in task.precision_min.items():
        here = index[label]
        if here not in stated:
            made.append(ErrorAtMost(1 - least, (here,)))
        else:
            made.append(WrongAtPrevalence(1 - least, here, stated[here], mix_of(here, stated, counts)))
    made += [MissedAtMost(most, index[label]) for label, most in task.miss_max.items()]
    return made


def mix_of(label: int, stated: dict[int, float], counts: IndexArray) -> dict[int, float]:
    """The other labels' parts of the other traffic, adding up to 1: as stated, the rest as in the sample's counts."""
    rest = 1 - sum(stated.values())
    unstated = sum(int(count) for place, count in enumerate(counts) if place not in stated)
    parts = {
        place: stated[place] if place in stated else rest * int(count) / unstated
        for place, count in enumerate(counts)
        if place != label and (place in stated or count)
    }
    total = sum(parts.values())
    return {place: part / total for place, part in parts.items()}


def refuse_unprovable(
    task: Task,
    promises: Sequence[Promise],
    truth: IndexArray,
    samples: Sequence[IndexArray],
    labels: int,
    delta: float,
) -> None:
    """Raise SettingsError, with the number needed, where even faultless models could not show a promise here."""
    for rows in samples:
        faultless = counts_of(truth[rows], truth[rows], labels)
        times = next((times for times in TIMES if shown(promises, [faultless * times], delta)), TIMES[-1])
        if times > 1:
            raise SettingsError(
                f"task {task.name}: {len(truth):,} labelled rows cannot show what is promised at delta {delta:g}, "
                "even were no answer wrong",
                advice=f"label about {times * len(truth):,} such rows (in each file, if each is certified), "
                "or promise less",
            )


def certificate(
    task: Task, cut: Cut, promises: Sequence[Promise], labels: tuple[str, ...], delta: float
) -> Certificate:
    """What was shown at the cut, by the worst sample's bounds; nothing of a label that is never accepted."""
    whole = ErrorAtMost(1.0)
    kept = open_promises(promises, np.isfinite(cut.by_label))
    of_labels = [one for one in kept if not (isinstance(one, ErrorAtMost) and not one.about)]
    total = np.sum(cut.samples, axis=0)
    accepted = int(total[:, :-1].sum())
    return Certificate(
        error_max=task.target_error,
        delta=delta,
        rows=int(total.sum()),
        accepted=accepted,
        wrong=accepted - int(total.trace()),
        error_bound=_worst(whole, cut.samples, delta),
        each_file=len(cut.samples) > 1,
        labels=tuple(_line(one, _worst(one, cut.samples, delta), labels) for one in of_labels),
    )


def _worst(promise: Promise, samples: Sequence[Counts], delta: float) -> float:
    return to_six_digits(max(promise.bound(counts, delta) for counts in samples))


def _line(promise: Promise, bound: float, labels: tuple[str, ...]) -> Promised:
    share = to_six_digits(promise.share)
    match promise:
        case MissedAtMost():
            return Promised(what="missed", label=labels[promise.label], share_max=share, bound=bound)
        case WrongAtPrevalence():
            return Promised(
                what="wrong",
                label=labels[promise.label],
                share_max=share,
                bound=bound,
                prevalence=to_six_digits(promise.prevalence),
            )
        case _:
            return Promised(
                what="wrong", label=labels[promise.about[0]] if promise.about else None, share_max=share, bound=bound
            )

"""From settings, policy and what Triton serves to the routers that decide; what does not fit is refused."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from stream_app.errors import SettingsError, StartError
from stream_app.routing.any_of import AnyOfTier
from stream_app.routing.decide import Knots, TaskRouter, Tier
from stream_app.routing.domain import Scripts
from stream_app.routing.label_sets import LABELS_MAX
from stream_app.routing.models import ServedModel
from stream_app.routing.payoff import Payoff, costs_of
from stream_app.routing.policy import Isotonic, Member, Policy, TaskPolicy, TierPolicy
from stream_app.routing.share import HeldShare, Ranks
from stream_app.settings import Task

LABELS_MIN = 2
_RECALIBRATE = "run `shunt calibrate` for it again"


def task_routers(
    tasks: Iterable[Task], served: Mapping[str, ServedModel], policy: Policy | None
) -> tuple[TaskRouter, ...]:
    """A router for each task, in order. `served` holds every model that a tier names.

    A task with promises decides by the policy, certified; one with `costs` alone by the policy's cuts, uncertified
    since nothing is promised where asking gains nothing (`no_gain`); one with `escalate_max` holds its share by it;
    one with `threshold` by that cut, uncertified, on the policy's calibrated confidence if the policy has the task.
    Raises SettingsError where settings and policy contradict each other, StartError where the models served are not
    those that were calibrated.
    """
    return tuple(_router(task, served, policy) for task in tasks)


def _router(task: Task, served: Mapping[str, ServedModel], policy: Policy | None) -> TaskRouter:
    labels = _labels(task, served)
    found = policy.tasks.get(task.name) if policy is not None else None
    if found is None and not task.by_hand:
        where = f"policy {policy.ref} has no task {task.name}" if policy else "there is no policy file"
        raise SettingsError(
            f"task {task.name} is to be certified, but {where}",
            advice="make it with `shunt calibrate` and name it in [policy] file, or set a threshold by hand",
        )
    if found is not None and policy is not None:
        check_task(task, found, served, policy.ref)
    payoff = Payoff.of(labels, costs_of(task))
    tiers = tuple(
        replace(_tier(task, names, served, labels, found.tiers[place] if found else None), payoff=payoff)
        for place, names in enumerate(task.tiers)
    )
    certified = not task.by_hand and found is not None and found.certificate is not None
    return TaskRouter(
        task=task.name,
        labels=labels,
        llm_only=tuple(label for label in task.label_names if label not in labels),
        tiers=tiers,
        certified=certified,
        uncertified_reason="manual" if task.by_hand else None if certified else "no_gain",
        policy=policy.ref if found is not None and policy is not None else None,
        known_share_min=found.domain.known_share_min if found else 0.0,
        scripts=Scripts(found.domain.scripts) if found else None,
        votes=found.votes if found else None,
        share=_share(found) if found and not task.by_hand else None,
        kind=task.kind,
    )


def _share(found: TaskPolicy) -> HeldShare | None:
    order, floor = found.share, found.tiers[0].threshold
    if order is None or floor is None:
        return None
    return HeldShare(order.escalate_max, Ranks(np.array(order.confidence), np.array(order.rank)), floor)


def _tier(
    task: Task,
    names: str | tuple[str, ...],
    served: Mapping[str, ServedModel],
    labels: tuple[str, ...],
    found: TierPolicy | None,
) -> Tier:
    """A tier; without a policy its models are pooled in equal parts and taken at their word."""
    models = tuple(served[name] for name in _as_tuple(names))
    make = AnyOfTier if task.kind == "any_of" else Tier
    if found is None:
        return make(models, (1.0 / len(models),) * len(models), task.threshold)
    tier = make(models, tuple(member.weight for member in found.members), task.threshold, _knots(found.isotonic))
    if isinstance(tier, AnyOfTier) and found.label_isotonic:
        tier = replace(tier, label_knots=tuple(_knots(found.label_isotonic.get(label)) for label in labels))
    if task.by_hand or found.threshold is None:
        return tier
    own = found.label_thresholds
    # A label that is never accepted has no cut at all: None, and not just no cut of its own.
    given = tuple(own.get(label, found.threshold) for label in labels) if own else ()
    cuts = tuple(math.inf if cut is None else cut for cut in given)
    return replace(tier, threshold=found.threshold, label_thresholds=cuts)


def _knots(found: Isotonic | None) -> Knots | None:
    if found is None:
        return None
    return Knots(np.array(found.confidence, np.float32), np.array(found.share_right, np.float32))


def _labels(task: Task, served: Mapping[str, ServedModel]) -> tuple[str, ...]:
    """The labels the task's models give; all must give the same, and the settings must know them."""
    for name in task.models:
        if name not in served:
            raise StartError(f"task {task.name}: Triton does not serve {name}", advice="load it, or change tiers")
    require_kind(task, served)
    labels = served[task.models[0]].labels
    for name in task.models[1:]:
        if served[name].labels != labels:
            raise StartError(
                f"task {task.name}: {name} gives {_listed(served[name].labels)}, "
                f"but {task.models[0]} gives {_listed(labels)}",
                advice="the models of one task need the same labels in the same order",
            )
    unknown = set(labels) - set(task.label_names) if task.label_names else set[str]()
    if unknown:
        raise SettingsError(
            f"task {task.name}: its models give the labels {_listed(labels)}, "
            f"the settings {_listed(task.label_names)}",
            advice="name the models' labels in the settings, or leave `labels` out",
        )
    if task.kind == "any_of":
        _check_any_of(task, labels)
    return labels


def require_kind(task: Task, served: Mapping[str, ServedModel]) -> None:
    """Raise StartError unless each of the task's models answers questions of its kind."""
    for name in task.models:
        if served[name].kind != task.kind:
            raise StartError(
                f"task {task.name} is of kind {task.kind}, but Triton serves {name} as {served[name].kind}",
                advice=f'set kind = "{served[name].kind}" in [[tasks]], or name another model in its tiers',
            )


def _check_any_of(task: Task, labels: tuple[str, ...]) -> None:
    """Of each label the small models must be able to say yes or no: else they could never be sure of a text."""
    if beyond := [label for label in task.label_names if label not in labels]:
        raise SettingsError(
            f"task {task.name}: its models say nothing of {_listed(beyond)}",
            advice="leave it out: a task of kind any_of has the labels of its models",
        )
    if not LABELS_MIN <= len(labels) <= LABELS_MAX:
        raise SettingsError(
            f"task {task.name} of kind any_of has {len(labels)} labels",
            advice=f"a model of {LABELS_MIN} to {LABELS_MAX} may answer it; a yes or no is a task of two labels",
        )


def check_task(task: Task, found: TaskPolicy, served: Mapping[str, ServedModel], ref: str) -> None:
    """Raise unless the policy's task was made for these tiers, this target, these labels and these weights."""
    where = f"policy {ref}, task {task.name}"
    if found.kind != task.kind:
        raise SettingsError(
            f"{where} was made for kind {found.kind}, the settings have {task.kind}", advice=_RECALIBRATE
        )
    wanted = tuple(_as_tuple(names) for names in task.tiers)
    calibrated = tuple(tuple(member.model for member in tier.members) for tier in found.tiers)
    if wanted != calibrated:
        raise SettingsError(
            f"{where} was made for the tiers {_tiers(calibrated)}, the settings have {_tiers(wanted)}",
            advice=_RECALIBRATE,
        )
    _check_dial("target_error", task.target_error, found.target_error, task, where)
    _check_dial("escalate_max", task.escalate_max, found.share and found.share.escalate_max, task, where)
    settled = {name: getattr(task, name) for name in ("precision_min", "miss_max", "prevalence", "asking_cost")}
    for name, value in (settled | {"costs": costs_of(task)}).items():
        if not task.by_hand and value != getattr(found, name):
            raise SettingsError(f"{where} was made for another {name} than the settings have", advice=_RECALIBRATE)
    for tier in found.tiers:
        for member in tier.members:
            _check_member(member, served[member.model], found.labels, where)


def _check_dial(dial: str, wanted: float | None, made_for: float | None, task: Task, where: str) -> None:
    if task.by_hand or wanted == made_for:
        return
    if made_for is None:
        raise SettingsError(f"{where} was not made for {dial}, the settings have {wanted:g}", advice=_RECALIBRATE)
    has = "have none" if wanted is None else f"have {wanted:g}"
    raise SettingsError(
        f"{where} was made for {dial} {made_for:g}, the settings {has}",
        advice=f"{_RECALIBRATE}, or set {dial} = {made_for:g}",
    )


def _check_member(member: Member, model: ServedModel, labels: tuple[str, ...], where: str) -> None:
    if member.version != model.version:
        raise StartError(
            f"{where} was made for {member.model}:{member.version}, but Triton serves {model.ref}",
            advice=f"load version {member.version}, or {_RECALIBRATE}",
        )
    if member.weights_sha256 != model.weights_sha256:
        raise StartError(
            f"{where} was made for other weights of {model.ref}: sha-256 {member.weights_sha256[:12]}..., "
            f"Triton serves {model.weights_sha256[:12]}...",
            advice=_RECALIBRATE,
        )
    if labels != model.labels:
        raise StartError(
            f"{where} has the labels {_listed(labels)}, but {model.ref} gives {_listed(model.labels)}",
            advice=_RECALIBRATE,
        )


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(labels)


def _tiers(tiers: Iterable[tuple[str, ...]]) -> str:
    return ", ".join("+".join(tier) for tier in tiers)

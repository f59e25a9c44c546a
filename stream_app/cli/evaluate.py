"""`shunt evaluate FILE --policy P`: what the policy does with labelled rows, and what an LLM makes of the rest."""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import click
import msgspec
import numpy as np
import orjson

from stream_app.classify.triton import TritonModels
from stream_app.cli.calibrate import calibrated_tasks
from stream_app.cli.configured import configured
from stream_app.cli.evaluate_live import LiveOptions, RoutedFile, evaluate_live, require_llm, with_live_options
from stream_app.cli.evaluate_past import PastOptions, evaluate_past, with_past_options
from stream_app.cli.prompt_lengths import extra_tokens
from stream_app.cli.recorded_llms import with_recorded_llms
from stream_app.cli.scoring_bar import scoring_bar
from stream_app.cli.table import as_table
from stream_app.errors import SettingsError
from stream_app.routing.decide import Routed, TaskRouter
from stream_app.routing.payoff import Payoff
from stream_app.routing.policy import Policy, load_policy
from stream_app.routing.routers import task_routers
from stream_app.settings import Settings, Task
from stream_app.training.detailed import Detailed, detailed, detailed_lines, detailed_object
from stream_app.training.evaluate import Asked, Evaluation, Losses, evaluation, outcomes
from stream_app.training.llm_cost import extra_cost_share
from stream_app.training.recorded import Half, RecordedRow, label_indexes, read_recorded, with_all_known
from stream_app.training.scoring import route
from stream_app.training.voting import Recordings


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--policy", "policy_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--task", "names", multiple=True, help="Which task the labels answer; several.  [default: the only one]"
)
@with_recorded_llms
@click.option("--half", type=click.Choice(["A", "B"]), help="Use only this half of the groups.")
@click.option(
    "--audit-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Count so much of what is accepted as asked about, too: a stream's audits.  [default: none]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write each row's outcome here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@with_past_options
@with_live_options
@configured
def evaluate(
    settings: Settings,
    live: LiveOptions | None,
    past: PastOptions | None,
    file: Path | None,
    policy_file: Path | None,
    names: tuple[str, ...],
    llms: tuple[str, ...],
    prices: dict[str, float],
    half: Half | None,
    audit_share: float,
    out: Path | None,
    as_json: bool,
) -> int:
    """Decide the labelled rows of FILE (JSON Lines, .gz too) by a policy and compare with their labels.

    With --live the LLM of the settings is asked about the rows that the policy escalates, in several ways, and the
    report says what the hint and the pruning of labels are worth. With --from-topic no file is read but past
    decisions, which are held against other cuts. Several tasks are measured at once where rows name their labels
    by task (`labels`: task -> label).
    """
    if past is not None:
        return evaluate_past(settings, past, _one_of(names, "--from-topic"), as_json=as_json)
    if file is None or policy_file is None:
        kind, missing = ("argument", "'FILE'") if file is None else ("option", "'--policy'")
        raise click.MissingParameter(param_hint=missing, param_type=kind)
    if live is not None:
        _one_of(names, "--live")
        require_llm(settings)
        _refuse_any_of(settings, names)
    if llms:
        _one_of(names, "--llm")
    policy = load_policy(policy_file.read_bytes(), str(policy_file))
    tasks = calibrated_tasks(settings, names)
    files = [_routed(settings, task, file, half, policy) for task in tasks]
    if live is not None:
        return evaluate_live(settings, live, files[0], out, as_json=as_json)
    recorded = Recorded(llms, prices, audit_share)
    measured = [_measured(settings, policy, one, recorded) for one in files]
    if out is not None:
        out.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in _lines(measured)))
    if as_json:
        click.echo(orjson.dumps(_object(measured)).decode())
    else:
        click.echo("\n\n".join(_table(one, policy.ref) for one in measured))
    return 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """The LLMs whose recorded answers are taken, what their tokens cost, and the audits that are counted."""

    llms: tuple[str, ...]
    prices: dict[str, float]
    audit_share: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One task's figures, and what became of each of its rows."""

    found: Evaluation
    more: Detailed
    outcomes: Sequence[dict[str, object]]


def _one_of(names: Sequence[str], option: str) -> str | None:
    """The one task; one option may not be used for several at once."""
    if len(names) > 1:
        raise click.UsageError(f"{option} is about one task: give one --task")
    return names[0] if names else None


def _refuse_any_of(settings: Settings, names: Sequence[str]) -> None:
    """What is asked in several ways has one right label."""
    for task in calibrated_tasks(settings, names):
        if task.kind == "any_of":
            raise SettingsError(
                f"task {task.name} is of kind any_of: --live compares answers of one label",
                advice="leave --live out, and give recorded answers with --llm",
            )


def _routed(settings: Settings, task: Task, file: Path, half: Half | None, policy: Policy) -> RoutedFile:
    rows = read_recorded(file, task.name, half, any_of=task.kind == "any_of").rows
    router, rows, routed = asyncio.run(_route(settings, task, rows, policy))
    return RoutedFile(router, policy.ref, rows, routed, np.array(label_indexes(rows, router.labels), np.intp))


def _measured(settings: Settings, policy: Policy, file: RoutedFile, recorded: Recorded) -> Measured:
    router, rows, routed = file.router, file.rows, file.routed
    made, asked = policy.tasks[router.task], None
    if recorded.llms:
        heard = Recordings.of(recorded.llms, rows, router.labels, recorded.prices)
        asked = Asked.of(heard, made.votes, rows, routed)
    found = evaluation(
        router.task,
        rows,
        routed,
        file.truth,
        tiers=len(router.tiers),
        certificate=made.certificate,
        asked=asked,
        payoff=Payoff.of(router.labels, made.costs),
    )
    if asked is not None and found.llm is not None:
        longer = extra_tokens(settings, router, policy.ref, rows, routed)
        extra = extra_cost_share(rows, routed.accepted, asked, longer, recorded.audit_share)
        llm = dataclasses.replace(found.llm, cost_share=found.llm.cost_share + extra)
        found = dataclasses.replace(found, llm=llm)
    more = detailed(made, routed, file.truth, asked)
    return Measured(found, more, outcomes(rows, router.labels, routed, asked))


def _lines(measured: Sequence[Measured]) -> list[dict[str, object]]:
    """A line for each event: the outcome where there is one task, else by task those it has labels of."""
    if len(measured) == 1:
        return list(measured[0].outcomes)
    events = dict[object, dict[str, object]]()
    for one in measured:
        for line in one.outcomes:
            outcome = {key: value for key, value in line.items() if key != "id"}
            events.setdefault(line["id"], {})[one.found.task] = outcome
    return [{"id": name, "tasks": by_task} for name, by_task in events.items()]


def _object(measured: Sequence[Measured]) -> dict[str, object]:
    """One task's figures as they are; several' by name, beside how many events are escalated for any of them."""
    if len(measured) == 1:
        return {**flat(measured[0].found), **detailed_object(measured[0].more)}
    escalated = dict[object, bool]()
    for line in chain.from_iterable(one.outcomes for one in measured):
        escalated[line["id"]] = escalated.get(line["id"], False) or line["route"] != "accepted"
    return {
        "events": len(escalated),
        "escalated_share": sum(escalated.values()) / len(escalated),
        "tasks": {one.found.task: {**flat(one.found), **detailed_object(one.more)} for one in measured},
    }


def _table(one: Measured, policy: str) -> str:
    return as_table((f"{one.found.task}, {policy}", ""), [*_shown(one.found), *detailed_lines(one.more)])


async def _route(
    settings: Settings, task: Task, rows: Sequence[RecordedRow], policy: Policy
) -> tuple[TaskRouter, tuple[RecordedRow, ...], Routed]:
    """Rows that do not say of every label whether it applies are left out."""
    async with TritonModels.connect(settings.triton.url, settings.triton.timeout_s) as models:
        served = {model: await models.describe(model) for model in task.models}
        (router,) = task_routers([task], served, policy)
        rows = with_all_known(rows, router.labels)
        if not rows:
            raise SettingsError(f"task {task.name}: no row says of every label whether it applies")
        with scoring_bar(f"Scoring {task.name}", len(rows) * len(task.models)) as progress:
            return router, rows, await route(models, router, [row.text for row in rows], progress)


def flat(found: Evaluation) -> dict[str, object]:
    """The figures as one JSON object; those of the LLM stand beside the others, null without one."""
    figures = msgspec.to_builtins(found)
    llm = figures.pop("llm")
    named = ("accuracy", "llm_accuracy", "cost_share", "performance_gap_recovered")
    beside = {key: None if llm is None else llm.pop(key) for key in named}
    return {**figures, **beside, "llm": llm}


def _shown(found: Evaluation) -> list[tuple[str, str]]:
    """The figures for a person, as label and value."""
    lines = [
        ("rows", f"{found.rows:,}"),
        ("small models alone", f"{found.small_accuracy:.2%} right"),
        ("accepted", f"{found.coverage:.2%} (by tier {', '.join(f'{share:.1%}' for share in found.tier_coverage)})"),
        ("escalated", f"{found.escalated_share:.2%} (out of domain {found.out_of_domain_share:.2%})"),
        ("wrong among accepted", "-" if found.accepted_error is None else f"{found.accepted_error:.2%}"),
    ]
    if found.target_error is not None and found.certified_bound is not None:
        held = "held" if found.bound_held else "did not hold here"
        lines.append(("certified", f"{found.target_error:.2%} (bound {found.certified_bound:.2%}): {held}"))
    llm = found.llm
    if llm is not None:
        recovered = llm.performance_gap_recovered
        lines += [
            (f"{llm.name} alone", f"{llm.llm_accuracy:.2%} right"),
            (f"{llm.name} alone, filled", f"{llm.llm_filled_accuracy:.2%} right with the small answer for none"),
            ("together", f"{llm.accuracy:.2%} right at {llm.cost_share:.1%} of the cost"),
            *([(f"{llm.second} too", f"{llm.second_share:.2%} of all")] if llm.second is not None else []),
            *([("wrong answers cost", _losses(llm.losses))] if llm.losses is not None else []),
            ("gap recovered", "-" if recovered is None else f"{recovered:.0%}"),
            ("no answer", f"{llm.refused:,}"),
            ("as many at random", f"{llm.random.accuracy:.2%} right"),
            ("a perfect choice", f"{llm.oracle.accuracy:.2%} right at {llm.oracle.escalated_share:.1%} asked"),
        ]
    return lines


def _losses(found: Losses) -> str:
    """A text's, in the unit of the settings' costs."""
    return f"{found.together:.4f} a text; small models alone {found.small:.4f}, LLM alone {found.llm:.4f}"

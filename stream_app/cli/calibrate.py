"""`shunt calibrate FILE...`: labelled rows in, a policy with a certified cut out."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from stream_app.classify.triton import TritonModels
from stream_app.cli.calibration_report import report_path, write_report
from stream_app.cli.challenger import serve_challenger, untaught
from stream_app.cli.configured import configured
from stream_app.cli.recorded_llms import with_recorded_llms
from stream_app.cli.scoring_bar import scoring_bar
from stream_app.cli.table import as_table
from stream_app.errors import SettingsError
from stream_app.events import VoteRule
from stream_app.routing.policy import Promised, TaskPolicy, dump_policy, load_policy
from stream_app.settings import Settings, Task
from stream_app.training.calibrate import Calibrated, calibrate_on, merged
from stream_app.training.evaluate import helped
from stream_app.training.fitted import Terms
from stream_app.training.held_out import HeldOut, dump_held_out, held_out_before, held_out_path
from stream_app.training.recorded import Half, RecordedFile, read_recorded
from stream_app.training.verdict import verdict


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE..."
)
@click.option("--task", "names", multiple=True, help="Which task the labels answer.  [default: the only one]")
@with_recorded_llms
@click.option("--half", type=click.Choice(["A", "B"]), help="Use only this half of the groups; test on the other.")
@click.option(
    "--delta",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.05,
    show_default=True,
    help="How often a promise may fail over such samples, for all tasks together.",
)
@click.option("--each-file", is_flag=True, help="Certify in every FILE by itself: holds for any mixture of them.")
@click.option(
    "--challenger",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="MODEL/VERSION",
    help="This version, by its folder in Triton's repository: served beside those in use, and calibrated.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The policy file.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the report, one HTML page.  [default: beside the policy, .report.html]",
)
@configured
def calibrate(
    settings: Settings,
    files: tuple[Path, ...],
    names: tuple[str, ...],
    llms: tuple[str, ...],
    prices: dict[str, float],
    half: Half | None,
    delta: float,
    each_file: bool,
    challenger: Path | None,
    out: Path,
    report: Path | None,
) -> None:
    """Certify what each task promises on labelled texts (JSON Lines, .gz too) and write the policy.

    Rows need `text` and `label` (or `labels`: task -> label), and `group` where rows belong together. Where any label
    may be right, `labels` is a list or a map of each to true or false. The rows are split in three: to calibrate
    confidence, to certify the cut, to test. A policy file that is there already is carried on: other tasks stay, its
    version rises. Beside it the list of its rows is kept: they must not teach.
    """
    tasks = calibrated_tasks(settings, names)
    report, finished = report_path(report, out), dict[str, Calibrated]()
    policy = load_policy(out.read_bytes(), str(out)) if out.exists() else None
    certified = sum(not task.by_hand for task in settings.tasks)
    terms = Terms(delta / certified, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), each_file, llms, prices)
    held_out = held_out_before(out)
    for task in tasks:
        any_of = task.kind == "any_of"
        recorded = [untaught(read_recorded(file, task.name, half, any_of=any_of), challenger) for file in files]
        held_out |= HeldOut.of((row.own_id, row.text) for file in recorded for row in file.rows)
        made = asyncio.run(_calibrate(settings, task, recorded, terms, challenger))
        policy = merged(policy, _name(out), task.name, made.task, terms.made_at)
        finished[task.name] = made
        _show(task.name, made, terms)
        read, used = sum(len(file.rows) for file in recorded), sum(file.rows for file in made.task.sample.files)
        if used < read:
            click.echo(f"{read - used:,} of {read:,} rows leave a label open, and were passed over")
    if policy is not None:
        # The list first: a policy is never there without it.
        _write(held_out_path(out), dump_held_out(held_out))
        _write(out, dump_policy(policy))
        click.echo(f"\nPolicy {policy.ref} is in {out}")
        write_report(report, policy, finished, terms)
    click.echo('Next: name it in shunt.toml ([policy] file = "..."), then shunt run')


def calibrated_tasks(settings: Settings, names: Sequence[str]) -> list[Task]:
    """The tasks of these names, or the only one that is to be certified. Raises SettingsError."""
    by_name = {task.name: task for task in settings.tasks if not task.by_hand}
    if not by_name:
        raise SettingsError(
            "no task has anything to certify",
            advice="set target_error, or escalate_max, or precision_min and miss_max",
        )
    if not names and len(by_name) > 1:
        raise SettingsError(f"there are {len(by_name)} tasks", advice=f"say --task {' or --task '.join(by_name)}")
    for name in names:
        if name not in by_name:
            raise SettingsError(f"no task {name} is to be certified", advice=f"there is {', '.join(by_name)}")
    return [by_name[name] for name in (names or by_name)]


async def _calibrate(
    settings: Settings, task: Task, files: Sequence[RecordedFile], terms: Terms, challenger: Path | None
) -> Calibrated:
    if challenger is not None:
        await serve_challenger(settings, task, challenger)
    texts = sum(len(file.rows) for file in files) * len(task.models)
    async with TritonModels.connect(settings.triton.url, settings.triton.timeout_s) as models:
        with scoring_bar(f"Scoring {task.name}", texts) as progress:
            return await calibrate_on(models, task, files, terms, progress)


def _name(out: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem)


def _write(out: Path, content: bytes) -> None:
    """Replace the file at once: a worker that reads it meanwhile sees the old policy or the new one."""
    beside = out.with_name(f".{out.name}.new")
    beside.write_bytes(content)
    beside.replace(out)


def _show(name: str, made: Calibrated, terms: Terms) -> None:
    task = made.task
    click.echo("\n" + as_table((name, ""), policy_lines(task)))
    click.echo("\n" + verdict(name, task, helped(made, terms.llms, terms.prices)))


def policy_lines(task: TaskPolicy) -> list[tuple[str, str]]:
    """What a person wants to know of a finished task, as label and value."""
    sample, measured, certificate = task.sample, task.measured, task.certificate
    error = "nothing accepted" if measured.accepted_error is None else f"{measured.accepted_error:.2%}"
    lines = [
        ("rows", f"{sample.calibration:,} calibration, {sample.certification:,} certification, {sample.test:,} test"),
        ("domain", f"known words at least {task.domain.known_share_min:.0%}, {' '.join(task.domain.scripts)}"),
    ]
    for place, (tier, coverage) in enumerate(zip(task.tiers, measured.tier_coverage, strict=True), 1):
        pool = " + ".join(f"{member.weight:.2f} {member.model}:{member.version}" for member in tier.members)
        lines.append((f"tier {place}", f"{pool}{', isotonic' if tier.isotonic else ''}; accepts {coverage:.1%}"))
    if task.share is not None:
        lines.append(("share", f"{task.share.escalate_max:.1%} escalated, held; what is less sure is not certified"))
    if certificate is None or task.tiers[0].threshold is None:
        lines.append(("certified", "nothing"))
    else:
        seen = f"{certificate.wrong:,} of {certificate.accepted:,}; bound {certificate.error_bound:.2%}"
        sure = f"{1 - certificate.delta:.1%} sure" + (", in each file" if certificate.each_file else "")
        own = task.tiers[0].label_thresholds or dict.fromkeys(task.labels, task.tiers[0].threshold)
        cuts = (f"{label} {'never' if cut is None else f'{cut:.4f}'}" for label, cut in own.items())
        lines.append(("cut", ", ".join(cuts)))
        most = (
            ""
            if certificate.error_max is None
            else f"at most {certificate.error_max:.2%} of the accepted are wrong, "
        )
        lines.append(("certified" if most else "wrong", f"{most}{sure} ({seen})"))
        if task.kind == "any_of":
            lines.append(("wrong", "a text with any label wrong"))
        lines += [("certified", f"{_promised(one)}, {sure} (bound {one.bound:.2%})") for one in certificate.labels]
    if task.votes is not None:
        lines.append(("LLMs", _votes(task.votes)))
    lines.append(("on the test rows", f"{measured.coverage:.1%} accepted, {error} of them wrong"))
    lines.append(("small models alone", f"{measured.small_accuracy:.2%} right"))
    lines.append(("calibration error", f"{measured.expected_calibration_error:.4f} (15 bins)"))
    return lines


def _votes(rule: VoteRule) -> str:
    """What is made of LLMs' answers, in words."""
    first = " and ".join(rule.weighing[0].voters)
    if not rule.expecting:
        return f"{first}'s vote is weighed"
    return f"{first}'s vote is weighed; {rule.expecting[0].llm} asked too where that adds {rule.worth_min:.1%}"


def _promised(one: Promised) -> str:
    """A label's promise in words."""
    if one.what == "missed":
        return f"of what is {one.label} at most {one.share_max:.2%} is accepted as something else"
    where = "" if one.prevalence is None else f" where {one.prevalence:.2%} of the traffic is"
    return f"of what is accepted as {one.label} at most {one.share_max:.2%} is wrong{where}"

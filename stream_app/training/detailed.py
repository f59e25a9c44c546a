"""What an evaluation says beyond its totals: each label, each promise, and how sure the differences are. Pure."""

from dataclasses import dataclass

import msgspec
import numpy as np

from stream_app.routing.decide import Routed
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import TaskPolicy
from stream_app.training.asked import Asked
from stream_app.training.beside_llm import BesideLlm, beside_llm
from stream_app.training.by_label import LabelOutcome, by_label
from stream_app.training.kept import Kept, counted, kept


@dataclass(frozen=True, slots=True)
class Detailed:
    """One task over labelled rows; `beside` is None without an LLM."""

    labels: tuple[LabelOutcome, ...]
    promises: tuple[Kept, ...]
    beside: BesideLlm | None


def detailed(task: TaskPolicy, routed: Routed, truth: IndexArray, asked: Asked | None) -> Detailed:
    """Fold routed rows; `asked` says what the LLMs' recorded answers come to, None without an LLM."""
    small, accepted = routed.label, routed.accepted
    final = small if asked is None else np.where(accepted, small, asked.voted.label)
    return Detailed(
        labels=by_label(task.labels, truth, small, accepted, final, any_of=task.kind == "any_of"),
        promises=kept(task, counted(task, truth, small, accepted)),
        beside=None if asked is None else beside_llm(truth, small, final, asked.recorded.answers[0]),
    )


def detailed_object(found: Detailed) -> dict[str, object]:
    """The keys that stand beside the totals in `shunt evaluate --json`.

    `by_label` maps a label to its outcome; `promises` lists the certificate's lines; the differences are shares, with
    `low` and `high` of their paired 95 % intervals, null without an LLM.
    """
    labels: list[dict[str, object]] = msgspec.to_builtins(found.labels)
    beside = {
        "unanswered": None,
        "llm_filled_accuracy": None,
        "to_llm": None,
        "to_llm_filled": None,
        "to_small": None,
    }
    return {
        "by_label": {str(one.pop("label")): one for one in labels},
        "promises": msgspec.to_builtins(found.promises),
        **(beside if found.beside is None else msgspec.to_builtins(found.beside)),
    }


def detailed_lines(found: Detailed) -> list[tuple[str, str]]:
    """The same for a person, as label and value."""
    lines = [_label_line(one) for one in found.labels]
    lines += [(_promise_name(one), _promise_line(one)) for one in found.promises if one.label is not None]
    if found.beside is not None:
        beside = found.beside
        for name, of in (("against the LLM alone", beside.to_llm), ("against the small models", beside.to_small)):
            lines.append((name, f"{100 * of.difference:+.2f} points ({100 * of.low:+.2f} to {100 * of.high:+.2f})"))
        if beside.unanswered:
            of = beside.to_llm_filled
            says = f"{beside.llm_filled_accuracy:.2%} right; against it {100 * of.difference:+.2f} points"
            lines.append(
                (f"LLM, {beside.unanswered:,} gaps filled", f"{says} ({100 * of.low:+.2f} to {100 * of.high:+.2f})")
            )
    return lines


def _label_line(one: LabelOutcome) -> tuple[str, str]:
    parts = {
        "precision": one.precision.share,
        "recall": one.recall.share,
        "missed among accepted": one.missed.share,
        "escalated": one.escalated.share,
    }
    shown = ", ".join(f"{name} {'-' if share is None else f'{share:.1%}'}" for name, share in parts.items())
    return f"{one.label} ({one.rows:,})", shown


def _promise_name(one: Kept) -> str:
    return f"{one.label} {'missed' if one.what == 'missed' else 'wrong'} at most {one.share_max:.1%}"


def _promise_line(one: Kept) -> str:
    measured = one.measured
    if measured.share is None or one.held is None:
        return "nothing to see here"
    held = "held" if one.held else "did not hold here"
    return f"{measured.share:.2%} ({measured.low:.2%} to {measured.high:.2%}), bound {one.bound:.2%}: {held}"

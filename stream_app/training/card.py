"""The model card: what a model was made from, how good it is and where it must not be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from stream_app.training.curve import Curve
from stream_app.training.evaluation import AnyOfFigures, Figures
from stream_app.training.gold import Gold, TaskKind
from stream_app.training.minilm import Recipe as MinilmRecipe
from stream_app.training.recipe import Recipe as FastRecipe

_WHAT = {
    "fast": "A linear model over hashed n-grams (NB-SVM), tokenised, hashed and summed in one compiled loop.",
    "minilm": "The encoder all-MiniLM-L6-v2 (Apache-2.0) fine-tuned as a classifier, {precision} ONNX.",
}
_LIMITS = {
    "fast": """\
* It knows the words of its training texts and their order over three words at most: irony, comparisons and what is
  left unsaid escape it.
* `KNOWN_SHARE` says how much of a text's vocabulary the training texts taught it, function words of other languages
  counted against. Its probabilities for a text of a low share mean nothing. A name or a greeting that several
  languages share looks known in each of them.""",
    "minilm": """\
* The encoder was pre-trained on English. It answers a text of any language, with no sign that it guesses: its
  `KNOWN_SHARE` is always 1, so leave the question of domain to a fast model beside it.
* Of a text longer than 380 word pieces it reads head and tail together and the middle in windows, each alone.""",
}
_LIMITS_OF_PRECISION = {
    "int8": """\
* On a GPU (`onnxruntime-gpu`) texts run in batches, whose int8 activations are scaled together: a probability then
  depends a little on the texts beside it. Accuracy and speed there are not measured; `shunt convert` makes the model
  that is for a GPU.""",
    "fp16": """\
* It is for a GPU (`onnxruntime-gpu`), where texts run in batches. A processor has to widen every number first: it is
  slower there than int8. Its speed on a GPU is not measured.""",
}
_COMMON_LIMITS = """\
* Its figures hold for texts like those above. Calibrate on your own labels before you accept its answers.
* It learned the labels' own mistakes and tilt; it is no judge of people."""

COLUMNS_MAX = 4
"""Labels that a table of figures takes side by side."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a card is made of; `held_out` are the figures of training rows while they were held out."""

    name: str
    task: str
    gold: Gold
    sources: Sequence[str]
    recipe: FastRecipe | MinilmRecipe
    figures: Mapping[str, Figures | AnyOfFigures]
    held_out: AnyOfFigures | None
    curve: Curve | None
    limits: Sequence[str] = ()
    """What is to be said of this model beside what all of its form have in common, a line each."""
    learned: Sequence[str] = ()
    """How it was distilled, a line each; none where it was trained from labelled texts alone."""


def model_card(model: Described) -> str:
    """The card in Markdown; the same inputs give the same text."""
    form = "fast" if isinstance(model.recipe, FastRecipe) else "minilm"
    labels = ", ".join(model.gold.labels)
    any_of = " Any of the labels may be right, or none: each has a probability by itself."
    answers = f"Answers the task `{model.task}` (`{model.gold.kind}`): {labels}."
    recipe = model.recipe
    precision = recipe.precision if isinstance(recipe, MinilmRecipe) else ""
    made_of = _WHAT[form].format(precision=precision)
    what = f"{answers}{any_of if model.gold.kind is TaskKind.ANY_OF else ''} {made_of}"
    parts = [f"# {model.name}", "", what, "", *_data(model), *_learned(model), "## Recipe", ""]
    parts += [f"* {setting}: {value}" for setting, value in asdict(model.recipe).items()]
    parts += ["", "## Figures", "", *_figures(model), *_curve(model.curve)]
    limits = [_LIMITS[form], *([_LIMITS_OF_PRECISION[precision]] if precision else []), _COMMON_LIMITS]
    parts += ["## Limits", "", *(f"* {line}" for line in model.limits), *limits]
    return "\n".join(parts) + "\n"


def _data(model: Described) -> list[str]:
    gold = model.gold
    parts = ["## Data", "", f"Trained on {len(gold.marks):,} labelled texts ({', '.join(model.sources)}):", ""]
    for at, label in enumerate(gold.labels):
        yes, known = int(gold.yes[:, at].sum()), int(gold.known[:, at].sum())
        parts.append(f"* {label}: {yes:,}" + (f" of {known:,} known" if gold.kind is TaskKind.ANY_OF else ""))
    return [*parts, "", "None of the texts is part of this repository.", ""]


def _learned(model: Described) -> list[str]:
    return ["## Distilled from", "", *(f"* {line}" for line in model.learned), ""] if model.learned else []


def _figures(model: Described) -> list[str]:
    parts = list[str]()
    if model.curve is not None and model.gold.kind is TaskKind.ONE_OF:
        share = f"{model.curve.points[-1].score:.4f}"
        parts += [f"Cross-fitted on the training rows, groups kept together: {share} right.", ""]
    if model.held_out is not None:
        parts += ["Cross-fitted on the training rows, groups kept together:", "", *any_of_table(model.held_out), ""]
    one_of = {title: found for title, found in model.figures.items() if isinstance(found, Figures)}
    if one_of:
        parts += [*_table(one_of), ""]
    for title, found in model.figures.items():
        if isinstance(found, AnyOfFigures):
            parts += [f"On {title} ({found.rows:,} rows):", "", *any_of_table(found), ""]
    return parts if model.figures else [*parts, "No validation rows were given.", ""]


def any_of_table(found: AnyOfFigures) -> list[str]:
    """Lines of a Markdown table: a label a line."""
    lines = ["| label | yes of known | precision | recall | average precision |", "|---" * 5 + "|"]
    for label, figures in found.by_label.items():
        shares = f"{figures.precision:.3f} | {figures.recall:.3f} | {figures.average_precision:.3f}"
        lines.append(f"| {label} | {figures.yes:,} of {figures.known:,} | {shares} |")
    return [*lines, f"| mean | | | | {found.mean_average_precision:.3f} |"]


def _curve(curve: Curve | None) -> list[str]:
    if curve is None or curve.gain is None:
        return []
    heads = f"| training rows | {curve.measure} on {curve.held_out:,} held-out rows | 95 % band |"
    lines = [f"| {each.rows:,} | {each.score:.4f} | {each.low:.4f} to {each.high:.4f} |" for each in curve.points]
    picture = "![Learning curve](learning_curve.svg)"
    return ["## Would more labels pay?", "", curve.verdict(), "", heads, "|---|---|---|", *lines, "", picture, ""]


def _table(figures: Mapping[str, Figures]) -> list[str]:
    """A set a line, with its labels if they are few; many have a table of their own, for the first set."""
    title, first = next(iter(figures.items()))
    many = len(first.by_label) > COLUMNS_MAX
    labels = list[str]() if many else list(first.by_label)
    heads = [
        "rows",
        "right",
        "log loss",
        *(f"{label}: precision / recall" for label in labels),
        "known share, low 1.5 %",
    ]
    lines = ["| set | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, found in figures.items():
        each = [f"{found.by_label[label].precision:.3f} / {found.by_label[label].recall:.3f}" for label in labels]
        cells = [name, f"{found.rows:,}", f"{found.accuracy:.4f}", f"{found.log_loss:.4f}", *each]
        lines.append("| " + " | ".join([*cells, f"{found.known_share_low:.2f}"]) + " |")
    if many:
        lines += ["", f"| label, {title} | precision | recall |", "|---|---|---|"]
        lines += [f"| {label} | {each.precision:.3f} | {each.recall:.3f} |" for label, each in first.by_label.items()]
    return lines

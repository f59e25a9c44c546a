"""The model card: what a model was made from, how good it is and where it must not be trusted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from stream_app.training.evaluation import Figures
from stream_app.training.fast import Recipe as FastRecipe
from stream_app.training.minilm import Recipe as MinilmRecipe
from stream_app.training.rows import LabelledRow

_WHAT = {
    "fast": "A linear model over hashed n-grams (NB-SVM), tokenised, hashed and summed in one compiled loop.",
    "minilm": "The encoder all-MiniLM-L6-v2 (Apache-2.0) fine-tuned as a classifier, int8 ONNX.",
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
* Of a text longer than 380 word pieces it reads head and tail together and the middle in windows, each alone.
* On a GPU (`onnxruntime-gpu`) texts run in batches, whose int8 activations are scaled together: a probability then
  depends a little on the texts beside it. Accuracy and speed there are not measured.""",
}
_COMMON_LIMITS = """\
* Its figures hold for texts like those above. Calibrate on your own labels before you accept its answers.
* It learned the labels' own mistakes and tilt; it is no judge of people."""


def model_card(  # the card is made of these
    *,
    name: str,
    task: str,
    kind: str,
    rows: Sequence[LabelledRow],
    sources: Sequence[str],
    recipe: FastRecipe | MinilmRecipe,
    cross_fitted_accuracy: float | None,
    figures: Mapping[str, Figures],
) -> str:
    """The card in Markdown; the same inputs give the same text."""
    counts = Counter(row.label for row in rows)
    parts = [f"# {name}", "", f"Answers the task `{task}`: {', '.join(sorted(counts))}. {_WHAT[kind]}", ""]
    parts += ["## Data", "", f"Trained on {len(rows):,} labelled texts ({', '.join(sources)}):", ""]
    parts += [f"* {label}: {count:,}" for label, count in sorted(counts.items())]
    parts += ["", "None of the texts is part of this repository.", "", "## Recipe", ""]
    parts += [f"* {setting}: {value}" for setting, value in asdict(recipe).items()]
    parts += ["", "## Figures", ""]
    if cross_fitted_accuracy is not None:
        parts += [f"Cross-fitted on the training rows, groups kept together: {cross_fitted_accuracy:.4f} right.", ""]
    parts += _table(figures) if figures else ["No validation rows were given."]
    parts += ["", "## Limits", "", _LIMITS[kind], _COMMON_LIMITS]
    return "\n".join(parts) + "\n"


def _table(figures: Mapping[str, Figures]) -> list[str]:
    labels = list(next(iter(figures.values())).by_label)
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
    return lines

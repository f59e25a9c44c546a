"""A Triton model folder, written whole: config, labels, code, weights and model card.

NAME/config.pbtxt      text in; PROBABILITIES and KNOWN_SHARE out; one_of or any_of; the weights' sha-256
NAME/labels.txt        a label a line, in the order of the output
NAME/MODEL_CARD.md     data, figures, limits
NAME/learning_curve.svg  accuracy by the number of training rows, where it was measured
NAME/1/model.py        Triton's side, the same for every model
NAME/1/scoring.py      the model's code, the same for every model of its kind
NAME/1/...             its weights
NAME/2/                a further version: the same files, and a MODEL_CARD.md of its own
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from stream_app.errors import SettingsError
from stream_app.training.gold import Gold, TaskKind

_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch_texts_max}
input [
  {{ name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }}
]
output [
  {{ name: "PROBABILITIES" data_type: TYPE_FP32 dims: [ {labels} ] label_filename: "labels.txt" }},
  {{ name: "KNOWN_SHARE" data_type: TYPE_FP32 dims: [ 1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}
instance_group [ {{ count: 1 kind: {instance_kind} }} ]
parameters {{ key: "kind" value {{ string_value: "{kind}" }} }}
parameters {{ key: "weights_sha256" value {{ string_value: "{weights_sha256}" }} }}
"""
_PARAMETER = 'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Form:
    """What differs between forms of models in the way Triton runs them."""

    template: str
    batch_texts_max: int
    queue_delay_us: int
    instance_kind: str


FAST = Form("fast", batch_texts_max=1024, queue_delay_us=200, instance_kind="KIND_CPU")
MINILM = Form("minilm", batch_texts_max=32, queue_delay_us=2000, instance_kind="KIND_AUTO")
"""A MiniLM batch of 32 long texts takes about half a second on a core: more would only wait."""


def check_target(folder: Path, labels: Sequence[str], *, replace: bool) -> None:
    """Raise SettingsError when a model cannot be written to `folder` or the labels cannot be served."""
    if not _NAME.fullmatch(folder.name):
        raise SettingsError(f"{folder.name!r} is no model name", advice="use letters, digits, _ and -")
    if folder.exists() and not replace:
        raise SettingsError(f"{folder} exists", advice="choose another name or folder, or ask to replace it")
    unwritable = [label for label in labels if not label.strip() or label != label.strip() or "\n" in label]
    if unwritable:
        raise SettingsError(f"label {unwritable[0]!r} cannot stand in a label file", advice="use one trimmed line")


def write_folder(
    folder: Path,
    form: Form,
    gold: Gold,
    write_weights: Callable[[Path], str],
    describe: Callable[[Path], None],
) -> str:
    """Write the model beside `folder`, then move it there whole; returns the weights' sha-256.

    `write_weights` puts the weights into the version folder it is given and returns their sha-256; `describe` is
    given the finished model, to measure it and to write its card into it. Nothing is there before all is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        version = Path(made) / folder.name / "1"
        weights_sha256 = _write_version(version, form, write_weights)
        (version.parent / "labels.txt").write_text("".join(f"{label}\n" for label in gold.labels))
        (version.parent / "config.pbtxt").write_text(_config(folder.name, form, gold, weights_sha256))
        describe(version.parent)
        if folder.exists():
            shutil.rmtree(folder)
        version.parent.rename(folder)
    return weights_sha256


def add_version(folder: Path, form: Form, write_weights: Callable[[Path], str], card: str) -> str:
    """Write the next version of a model beside those it has, whole or not at all; returns its number.

    The config is told its weights first, and to serve every version, unless it says which: one that is asked for by
    its number stays served.
    """
    version = next_version(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        written = Path(made) / version
        weights_sha256 = _write_version(written, form, write_weights)
        (written / "MODEL_CARD.md").write_text(card)
        told = Path(made) / "config.pbtxt"
        told.write_text(_with_version((folder / "config.pbtxt").read_text(), version, weights_sha256))
        told.replace(folder / "config.pbtxt")
        written.rename(folder / version)
    return version


def _with_version(config: str, version: str, weights_sha256: str) -> str:
    """The config with this version's weights named; what a run that was killed said of it is forgotten."""
    name = f"weights_sha256_{version}"
    lines = [line for line in config.splitlines(keepends=True) if f'"{name}"' not in line]
    if "version_policy" not in config:
        lines.append("version_policy { all {} }\n")
    return "".join(lines) + _PARAMETER.format(name=name, value=weights_sha256)


def next_version(folder: Path) -> str:
    """One more than the newest version in a model's folder."""
    return str(1 + int(newest_version(folder)))


def newest_version(folder: Path) -> str:
    """The newest version in a model's folder, 0 where there is none. Raises OSError where there is no folder."""
    return str(max((int(each.name) for each in folder.iterdir() if each.name.isdecimal()), default=0))


def _write_version(version: Path, form: Form, write_weights: Callable[[Path], str]) -> str:
    version.mkdir(parents=True)
    weights_sha256 = write_weights(version)
    (version / "model.py").write_text(template("triton_model.py"))
    (version / "scoring.py").write_text(template(form.template, "scoring.py"))
    return weights_sha256


def template(*place: str) -> str:
    """The text of a file of the served code."""
    return resources.files("stream_app.training").joinpath("templates", *place).read_text()


def labels_in(folder: Path) -> tuple[str, ...]:
    """The labels of a model folder, in the order of its output."""
    return tuple((folder / "labels.txt").read_text().splitlines())


def weights_sha256_in(folder: Path, version: str = "1") -> str:
    """The sha-256 of a version's weights as the model's config names it. Raises SettingsError where it names none."""
    parameters = _parameters(folder)
    found = parameters.get(f"weights_sha256_{version}", parameters.get("weights_sha256"))
    if found is None:
        raise SettingsError(f"{folder}/config.pbtxt names no weights_sha256", advice="train the model again")
    return found


@dataclass(frozen=True, slots=True)
class Held:
    """What a model folder holds: what it answers, and its newest version."""

    labels: tuple[str, ...]
    kind: TaskKind
    version: str
    weights_sha256: str


def held_in(folder: Path) -> Held:
    """What is in a model folder. Raises SettingsError for a folder that is none."""
    try:
        version = newest_version(folder)
        return Held(labels_in(folder), kind_in(folder), version, weights_sha256_in(folder, version))
    except OSError as error:
        raise SettingsError(
            f"{folder} is no model folder ({error})", advice="name one that shunt train wrote"
        ) from error


def kind_in(folder: Path) -> TaskKind:
    """Whether one label is right or any, as a model folder's config says; one where it says nothing."""
    return TaskKind(_parameters(folder).get("kind", TaskKind.ONE_OF))


def _parameters(folder: Path) -> dict[str, str]:
    lines = (folder / "config.pbtxt").read_text()
    return dict(re.findall(r'key: "(\w+)" value \{ string_value: "([^"]*)"', lines))


def _config(name: str, form: Form, gold: Gold, weights_sha256: str) -> str:
    return _CONFIG.format(
        name=name,
        kind=gold.kind,
        labels=len(gold.labels),
        weights_sha256=weights_sha256,
        batch_texts_max=form.batch_texts_max,
        queue_delay_us=form.queue_delay_us,
        instance_kind=form.instance_kind,
    )

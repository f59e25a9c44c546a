"""Feedback in, a challenger out: the next version of a model, beside those there are. What `shunt distill` does."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stream_app.errors import SettingsError
from stream_app.training.card import Described, model_card
from stream_app.training.distil import REASON_WEIGHT, Curriculum, Distilled, distil
from stream_app.training.enough import check_enough
from stream_app.training.folder import FAST, add_version, check_target, labels_in, next_version, write_folder
from stream_app.training.gated import Gated
from stream_app.training.held_out import LEARNED, HeldOut, dump_held_out
from stream_app.training.making import write_fast
from stream_app.training.recipe import Recipe, recipe_for
from stream_app.training.vocabulary import learn_vocabulary
from stream_app.training.work import Work, fingerprint, open_work

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Challenger:
    """A version that was written, and what came of the lessons."""

    folder: Path
    version: str
    distilled: Distilled
    went_on: bool

    @property
    def place(self) -> Path:
        """The version's own folder."""
        return self.folder / self.version


def make_challenger(
    gated: Gated, *, task: str, folder: Path, sources: Sequence[str], seed: int, progress: Progress
) -> Challenger:
    """Distil what the gate let through into the next version of the model in `folder`; a first one makes the model.

    What was made so far is kept beside `folder` until it is whole: an interrupted run of the same rows goes on.
    Raises SettingsError where the rows cannot teach, or the model there is another kind of model.
    """
    given = gated.curriculum
    _check(given, folder)
    base_texts = [row.text for row in given.base]
    recipe = replace(recipe_for(base_texts, given.gold(())), seed=seed)
    work, goes_on = open_work(folder.parent / f".{folder.name}.distilling", fingerprint(_parts(given, recipe)))
    if goes_on:
        progress("going on where the last run stood", 0.0)
    distilled = _distilled(given, recipe, work, progress)
    words = learn_vocabulary([*base_texts, *(lesson.row.text for lesson in given.lessons), *given.unlabelled])

    def write(version: Path) -> str:
        (version / LEARNED).write_bytes(gzip.compress(dump_held_out(taught(given, distilled)), mtime=0))
        return write_fast(distilled.model, words, version)

    described = Described(
        name=folder.name,
        task=task,
        gold=given.gold(distilled.believed),
        sources=sources,
        recipe=recipe,
        figures={},
        held_out=None,
        curve=None,
        learned=learned_lines(gated, distilled),
    )
    version = _put(folder, described, write)
    work.close()
    progress("done", 1.0)
    return Challenger(folder, version, distilled, goes_on)


def taught(given: Curriculum, distilled: Distilled) -> HeldOut:
    """All that shaped the model: what it learned may not judge it."""
    own = [(row.own_id, row.text) for row in (*given.base, *(lesson.row for lesson in distilled.believed))]
    return HeldOut.of([*own, *((None, text) for text in given.unlabelled)])


def learned_lines(gated: Gated, distilled: Distilled) -> list[str]:
    """What it learned from, and what was refused, a line each."""
    by = Counter(lesson.by for lesson in distilled.believed)
    lines = [f"{len(gated.curriculum.base):,} base rows"]
    lines += [f"{count:,} labels by {who}" for who, count in sorted(by.items())]
    if distilled.doubted:
        lines.append(f"not learned: {distilled.doubted:,} labels that the small model does not believe")
    if distilled.reasons:
        lines.append(f"{distilled.reasons:,} reasons of LLMs, each counting {REASON_WEIGHT}")
    elif distilled.reasons_given:
        lines.append(f"not learned: {distilled.reasons_given:,} reasons of LLMs: base rows are not clearly likelier")
    if distilled.guessed:
        told = "answers of its own and of a second view to unlabelled texts, each counting as they are sure"
        lines.append(f"{distilled.guessed:,} {told}")
    right = f"{distilled.cross_fitted_accuracy:.4f}"
    return [*lines, *gated.lines(), f"before its own answers, right on base rows that were held out: {right}"]


def _check(given: Curriculum, folder: Path) -> None:
    if not given.lessons and not given.unlabelled:
        raise SettingsError("nothing may teach: no feedback passed", advice="see what was refused, and why")
    gold = given.gold(())
    check_enough(gold, [row.id if row.group is None else row.group for row in given.base])
    check_target(folder, gold.labels, replace=True)
    if not folder.exists():
        return
    if labels_in(folder) != gold.labels:
        raise SettingsError(
            f"{folder} answers {', '.join(labels_in(folder))}, the base rows {', '.join(gold.labels)}",
            advice="give the base rows that the model was trained on",
        )
    if any(folder.glob("*/model.onnx")):
        raise SettingsError(
            f"{folder} is an encoder", advice="distil a fast model; an encoder is made by shunt train"
        )


def _distilled(given: Curriculum, recipe: Recipe, work: Work, progress: Progress) -> Distilled:
    try:
        return distil(given, recipe, work, progress)
    except ValueError as error:
        work.close()  # these rows cannot be learned from: there is nothing to go on with
        raise SettingsError(f"cannot train on these rows ({error})", advice="give more base rows") from error


def _put(folder: Path, described: Described, write: Callable[[Path], str]) -> str:
    if folder.exists():
        name = f"{folder.name}, version {next_version(folder)}"
        return add_version(folder, FAST, write, model_card(replace(described, name=name)))
    card = model_card(described)
    write_folder(folder, FAST, described.gold, write, lambda made: _describe(made, card))
    return "1"


def _describe(made: Path, card: str) -> None:
    (made / "MODEL_CARD.md").write_text(card)


def _parts(given: Curriculum, recipe: Recipe) -> Iterator[bytes]:
    """What makes a run the same one as another."""
    yield json.dumps([given.labels, asdict(recipe)]).encode()
    for row in given.base:
        yield json.dumps([row.text, row.label, row.id, row.group]).encode()
    for lesson in given.lessons:
        yield json.dumps([lesson.row.text, lesson.row.label, lesson.by, lesson.row.id, lesson.reason]).encode()
    for text in given.unlabelled:
        yield json.dumps(text).encode()

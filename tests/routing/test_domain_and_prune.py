"""Which texts are foreign, and which labels the LLM is still asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.domain import OTHER, Scripts, scripts_of
from stream_app.routing.prune import LABELS_MIN, pruned


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("plain words, 12 of them!", True),
        ("", True),
        ("👍🏽 🔥🔥 — «…» 10 €", True),
        ("déjà vu, señor", True),
        ("the word Привет in a longer English sentence of mine is fine, and so is one more name", True),
        ("Привет, как дела", False),
        ("これはとても良い", False),
        ("很好", False),
        ("محصول رائع", False),
        ("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", False),
    ],
)
def test_latin_only(text, admitted):
    """A sentence in another script is foreign, symbols and a quoted word are not."""
    assert Scripts(["Latin"]).admits(text) is admitted


def test_other_means_every_unnamed_script():
    """With `Other` calibrated, a script without a name is admitted and a named one still is not."""
    assert Scripts(["Latin", OTHER]).admits("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ")
    assert not Scripts(["Latin", OTHER]).admits("Привет, как дела")
    assert not Scripts(["Cyrillic"]).admits("plain words")


def test_scripts_of_a_sample():
    """Scripts are counted by letters; a trace of another is not calibrated by it."""
    assert scripts_of(["good words " * 100, "Привет"]) == ("Latin",)
    assert scripts_of(["good", "Привет", "ᏣᎳᎩ ñ"]) == ("Cyrillic", "Latin", OTHER)
    assert scripts_of(["12 !"]) == ()


@given(st.text(max_size=60))
def test_a_sample_admits_itself(text):
    """A text is inside the domain of a sample that is that text."""
    assert Scripts(scripts_of([text], share_min=0)).admits(text)


labelled = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0.001, 1), min_size=2, max_size=8).map(
    lambda raw: {label: value / sum(raw.values()) for label, value in raw.items()}
)


@given(labelled, st.floats(0, 0.5))
def test_pruned_is_the_smallest_set(probabilities, eps):
    """The kept labels hold 1 - eps, no fewer labels would, and never fewer than two are asked."""
    kept = pruned(probabilities, eps)
    ranked = sorted(probabilities.values(), reverse=True)
    assert len(kept) >= LABELS_MIN
    assert [label for label in probabilities if label in kept] == list(kept), "in the mapping's order"
    assert sum(probabilities[label] for label in kept) >= 1 - eps - 1e-9
    if len(kept) > LABELS_MIN:
        assert sum(ranked[: len(kept) - 1]) < 1 - eps
    assert min(probabilities[label] for label in kept) >= max(
        (value for label, value in probabilities.items() if label not in kept), default=0
    )


@given(labelled, st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_eps_never_keeps_more(probabilities, eps, more):
    """Pruning is monotone in eps."""
    assert set(pruned(probabilities, eps + more)) <= set(pruned(probabilities, eps))


def test_labels_only_an_llm_can_give_are_always_asked():
    """A label without a small model is never pruned."""
    assert pruned({"a": 0.98, "b": 0.01, "c": 0.01}, 0.05, ("d",)) == ("a", "b", "d")

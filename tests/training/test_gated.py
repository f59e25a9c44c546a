"""What may teach, and that nothing held out ever does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.events import Feedback, SmallOpinion, Source
from stream_app.training import gated as gate_module
from stream_app.training import lessons
from stream_app.training.gated import BASE, FEEDBACK, UNLABELLED, gate
from stream_app.training.held_out import (
    HeldOut,
    dump_held_out,
    held_out_before,
    held_out_path,
    read_held_out,
    text_sha256,
)
from stream_app.training.lessons import Refusal
from stream_app.training.rows import LabelledRow

LLM = "gpt-4o-mini"
SMALL = SmallOpinion("negative", 0.5, {"negative": 0.5, "positive": 0.5}, "mood_fast:1")
WORDS = ("good", "bad", "lamp", "kettle", "late")
LABELS = ("negative", "positive")


def said(number, text, label="positive", **more):
    """A feedback row: an LLM's answer to an escalated event, unless told otherwise."""
    source = Source("reviews", 0, number, 0)
    plain = Feedback(f"r-{number}", "mood", text, label, "llm", "escalated", LLM, SMALL, "p@1", 0, source, number)
    if more.get("labelled_by") == "human":
        more = {"why": "verdict", "model": None, **more}
    return replace(plain, **more)


def base(*texts):
    return [LabelledRow(f"b-{text}", text, LABELS[at % 2]) for at, text in enumerate(texts)]


BASE_ROWS = base("all fine", "all broken")


def taught(found):
    """Every (id, text) that teaches, in whatever way; the id of an unlabelled text is not kept."""
    given_ = found.curriculum
    return [
        *((row.id, row.text) for row in given_.base),
        *((lesson.row.id, lesson.row.text) for lesson in given_.lessons),
        *((None, text) for text in given_.unlabelled),
    ]


# What is drawn: few words and few ids, so that copies meet in every combination.
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
dressed = st.sampled_from(
    [str, str.upper, lambda text: f"  {text}!", lambda text: text.replace(" ", "\n"), lambda text: f"“{text}”…"]
)
copies = st.builds(lambda text, dress: dress(text), texts, dressed)
ids = st.sampled_from([f"r-{number}" for number in range(8)])
feedback = st.builds(
    Feedback,
    ids,
    st.sampled_from(["mood", "other"]),
    copies,
    st.sampled_from([*LABELS, "strange", None]),
    st.just("llm"),
    st.sampled_from(["escalated", "audit", "verdict"]),
    st.sampled_from([LLM, "other"]),
    st.just(SMALL),
    st.just("p@1"),
    st.integers(0, 2),
    st.just(Source("reviews", 0, 0, 0)),
    st.integers(0, 5),
)
base_rows = st.builds(LabelledRow, ids, copies, st.sampled_from(LABELS), numbered=st.booleans())
loose = st.tuples(st.none() | ids, copies)


def breaches(found, rows, held):
    """What teaches though its id or its words are held out, or were audited: told by plain words, not by the gate."""

    def words(text):
        return tuple("".join(each if each.isalnum() else " " for each in text.lower()).split())

    barred = [*held, *((row.id, row.text) for row in rows if row.why == "audit")]
    barred_ids = {own for own, _ in barred if own is not None}
    barred_words = {words(text) for _, text in barred}
    numbered = {row.id for row in found.curriculum.base if row.numbered}
    return [
        (own, text)
        for own, text in taught(found)
        if words(text) in barred_words or (own in barred_ids and own not in numbered)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(base_rows, max_size=6), st.lists(feedback, max_size=8), st.lists(loose, max_size=6), st.lists(loose))
def test_nothing_held_out_ever_teaches(rows, said_rows, unlabelled, held):
    """By id and by text, in any spelling, as base row, feedback or unlabelled text: what is held out is refused.

    And all that came is accounted for: it teaches, or is refused for a reason.
    """
    found = gate(rows, said_rows, unlabelled, "mood", HeldOut.of(held))
    assert breaches(found, said_rows, held) == []
    came = {BASE: rows, FEEDBACK: said_rows, UNLABELLED: unlabelled}
    taken = {
        BASE: found.curriculum.base,
        FEEDBACK: found.curriculum.lessons,
        UNLABELLED: found.curriculum.unlabelled,
    }
    for kind, all_of_it in came.items():
        assert len(taken[kind]) + sum(found.refused[kind].values()) == len(all_of_it)


@pytest.mark.parametrize("blind", ["holds_id", "holds_text"])
def test_a_gate_that_looks_at_one_of_both_alone_would_be_found_out(monkeypatch, blind):
    """The property above sees a breach as soon as either check is taken out."""
    monkeypatch.setattr(HeldOut, blind, lambda *_: False)
    held = [("r-1", "good lamp")]
    by_id = gate(BASE_ROWS, [said(1, "bad kettle")], [], "mood", HeldOut.of(held))
    by_text = gate(BASE_ROWS, [said(2, "GOOD  lamp!")], [], "mood", HeldOut.of(held))
    leaks = by_id if blind == "holds_id" else by_text
    assert breaches(leaks, [], held)


def test_a_gate_that_forgets_the_audits_would_be_found_out(monkeypatch):
    """An escalated copy of an audited text teaches then, and the property sees it."""
    rows = [said(1, "good lamp", why="audit"), said(2, "good lamp")]
    assert gate(BASE_ROWS, rows, [], "mood", HeldOut()).curriculum.lessons == []
    for module in (gate_module, lessons):
        monkeypatch.setattr(module, "withheld", lambda *_: HeldOut())
    assert breaches(gate(BASE_ROWS, rows, [], "mood", HeldOut()), rows, [])


def test_the_last_word_on_a_text_teaches():
    """A person goes before an LLM whatever the hour, a later decision before an earlier one."""
    rows = [
        said(1, "good lamp", "negative", labelled_by="human"),
        said(2, "Good lamp.", "positive"),
        said(3, "late kettle", "positive", revision=1),
        said(4, "late kettle", "negative", revision=0),
    ]
    found = gate(BASE_ROWS, rows, [], "mood", HeldOut())
    assert {one.row.id: (one.row.label, one.by) for one in found.curriculum.lessons} == {
        "r-1": ("negative", "people"),
        "r-3": ("positive", LLM),
    }
    assert found.refused[FEEDBACK] == {Refusal.OVERRULED: 2}


def test_llms_that_disagree_teach_nothing():
    """Nobody is sure of that text; where they agree in the end, or a person has spoken, it teaches once."""
    rows = [
        said(1, "good lamp", "negative"),
        said(1, "good lamp", "positive", model="other"),
        said(2, "late kettle", "negative"),
        said(2, "late kettle", "positive", model="other"),
        said(2, "late kettle", "positive", revision=1),
        said(3, "bad lamp", "negative", model="other"),
        said(3, "bad lamp", "positive"),
        said(3, "bad lamp", "positive", labelled_by="human"),
    ]
    found = gate(BASE_ROWS, rows, [], "mood", HeldOut())
    assert {one.row.id: (one.row.label, one.by) for one in found.curriculum.lessons} == {
        "r-2": ("positive", LLM),
        "r-3": ("positive", "people"),
    }
    assert found.refused[FEEDBACK] == {Refusal.DISPUTED: 2, Refusal.OVERRULED: 4}


def test_when_a_label_came_and_under_which_id_changes_nothing():
    """Partitions are read in any order, and LLMs answer when they do: the same labels are the same curriculum."""
    texts = [f"{word} {other}" for word in WORDS for other in WORDS]
    rows = [said(number, text) for number, text in enumerate(texts)]
    others = [said(number, text) for number, text in enumerate(reversed(texts))]
    taught_ = [[one.row.text for one in gate(BASE_ROWS, given, [], "mood", HeldOut()).curriculum.lessons]
               for given in (rows, rows[::-1], others)]  # fmt: skip
    assert taught_[0] == taught_[1] == taught_[2]
    assert sorted(taught_[0]) == sorted(texts)


def test_an_event_known_by_its_id_alone_takes_its_text_with_it():
    """Audit results name events without their texts: a copy under another id is held out all the same."""
    rows = [said(1, "good lamp"), said(2, "Good lamp!"), said(3, "late kettle")]
    found = gate(BASE_ROWS, rows, [(None, "GOOD lamp")], "mood", HeldOut(frozenset({("r-1", None)})))
    assert [lesson.row.text for lesson in found.curriculum.lessons] == ["late kettle"]
    assert found.curriculum.unlabelled == []


def test_what_is_refused_is_told_with_its_reason():
    """One line a reason, most first."""
    rows = [said(1, "one", None), said(2, "two", None), said(3, "three", "strange"), said(4, "four", task="other")]
    rows += [said(5, "all FINE"), said(6, "held")]
    unlabelled = [(None, "all fine"), (None, "new"), (None, "New!"), ("h-1", "whatever")]
    found = gate(BASE_ROWS, rows, unlabelled, "mood", HeldOut.of([("h-1", "held")]))
    assert found.curriculum.lessons == []
    assert found.curriculum.unlabelled == ["new"]
    assert found.lines()[0] == "refused, feedback rows without a usable answer: 2"
    assert set(found.lines()[1:]) == {
        "refused, feedback rows with a label that the base rows do not have: 1",
        "refused, feedback rows about another task: 1",
        "refused, feedback rows labelled elsewhere already: 1",
        "refused, feedback rows held out, by text: 1",
        "refused, unlabelled texts labelled elsewhere already: 2",
        "refused, unlabelled texts held out, by id: 1",
    }


def test_the_number_of_a_line_is_no_id():
    """Rows without ids are known by their text alone: line 1 of one file is not line 1 of another."""
    row = LabelledRow("1", "all fine", "positive", numbered=True)
    assert gate([row], [], [], "mood", HeldOut.of([("1", "something else")])).curriculum.base == [row]


@settings(deadline=None)
@given(st.lists(loose))
def test_a_list_is_read_as_it_was_written(tmp_path_factory, items):
    """And is the same bytes for the same items in any order, so that it can be compared."""
    held = HeldOut.of(items)
    path = tmp_path_factory.mktemp("held") / "p.held-out.jsonl"
    path.write_bytes(dump_held_out(held))
    assert read_held_out(path) == held
    assert dump_held_out(HeldOut.of(items[::-1])) == path.read_bytes()


def test_a_policy_stands_for_the_list_beside_it(tmp_path):
    """And one whose list is gone is refused: nothing would be held out, silently."""
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"tasks": {}, "name": "p"}, indent=1))
    with pytest.raises(SettingsError, match=r"has no policy\.held-out\.jsonl beside it"):
        read_held_out(policy)
    assert held_out_before(policy) == HeldOut()
    held_out_path(policy).write_bytes(dump_held_out(HeldOut.of([("a", "some text")])))
    assert read_held_out(policy).holds_text("Some TEXT!")
    assert held_out_before(policy) == read_held_out(policy)


def test_labelled_rows_are_a_list_too(tmp_path):
    """A test file can be named as it is; a line that is neither is told by its place."""
    rows = tmp_path / "test.jsonl"
    rows.write_text('{"id": 7, "text": "a lamp", "label": "x"}\n{"text": "a kettle"}\n')
    held = read_held_out(rows)
    assert held.holds_id("7")
    assert not held.holds_id("2")
    assert held.holds_text("a kettle")
    rows.write_text('{"id": 7, "result": "agree"}\n')
    assert read_held_out(rows).pairs == {("7", None)}
    rows.write_text('{"label": "x"}\n')
    with pytest.raises(SettingsError, match=r"test\.jsonl:1 has neither id, text nor text_sha256"):
        read_held_out(rows)


def test_words_make_the_content_hash():
    """Case, spacing, width and punctuation do not hide a copy; another word, or order, is another text."""
    assert text_sha256("Don't\u00a0BUY  it!!") == text_sha256("don t buy it")
    assert text_sha256("\uff27ood lamp") == text_sha256("good lamp")
    assert text_sha256("lamp good") != text_sha256("good lamp")
    assert text_sha256("!!") != text_sha256("??")
    assert text_sha256("\ud800 lamp")

"""What people wrote into their file, and what becomes of it, without Kafka."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stream_app.cli.decided_about import About, Newest
from stream_app.cli.said import Said, Unusable, said_in
from stream_app.cli.verdict_fate import Before, SaidBefore, Sends, VerdictJudge, small_opinion
from stream_app.codec import (
    Codec,
    decode_audit_result,
    decode_feedback,
    decode_verdict,
    timestamp_ms,
    with_parked_at,
)
from stream_app.escalate.standing import Standing
from stream_app.events import Answer, Decision, Event, Kind, Source
from stream_app.kafka.topics import TopicFound
from stream_app.settings import Events

TASKS = {"sentiment": frozenset({"negative", "positive"}), "topic": frozenset[str]()}
SOURCE = {"topic": "reviews", "partition": 2, "offset": 884, "timestamp": "2026-11-20T09:30:00.120Z"}
AT_MS = timestamp_ms("2026-11-20T09:30:00.120Z")
SMALL = Answer("positive", 0.97, {"negative": 0.03, "positive": 0.97}, 0.9, "small", "fast:1", True)
FEEDBACK = TopicFound("reviews-feedback", 4, "delete", -1, 1_000_000)
RESULTS = TopicFound("reviews-audit-results", 1, "delete", -1, 1_000_000)


def read(*rows: dict, only: str | None = None) -> tuple[list[Said], list[Unusable]]:
    return said_in([(n, f"f:{n}", row) for n, row in enumerate(rows, 1)], TASKS, only)


def test_a_sampled_row_says_what_was_filled_in() -> None:
    """Each task with a label is said, a null is not, and the event is its source."""
    row = {"id": "r-1", "text": "Fine.", "source": SOURCE, "labels": {"sentiment": "positive", "topic": None}}
    said, wrong = read(row, {**row, "source": {**SOURCE, "offset": 9}, "labels": {"sentiment": None}})
    assert not wrong
    assert said == [Said("f:1", "reviews/2/884", "r-1", "Fine.", "sentiment", "positive", AT_MS)]


@pytest.mark.parametrize(
    ("row", "only", "task"),
    [
        ({"id": "r-1", "label": "positive", "task": "sentiment"}, None, "sentiment"),
        ({"id": "r-1", "label": "positive"}, "sentiment", "sentiment"),
        ({"source": "reviews/2/884", "label": "sport", "task": "topic"}, None, "topic"),
    ],
)
def test_a_decision_with_a_label_says_it_for_one_task(row, only, task) -> None:
    """The task stands in the row or on the command line."""
    (said,), wrong = read(row, only=only)
    assert (said.task, wrong) == (task, [])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "r-1"}, "neither labels nor label"),
        ({"id": "r-1", "label": "positive"}, "which task"),
        ({"id": "r-1", "label": "good", "task": "sentiment"}, "has no label good"),
        ({"id": "r-1", "label": "x", "task": "mood"}, "no task mood"),
        ({"id": "r-1", "labels": {"sentiment": 1}}, "is no text"),
        ({"text": "Fine.", "labels": {"sentiment": "positive"}}, "names no event"),
    ],
)
def test_what_cannot_be_sent_says_why(row, why) -> None:
    """A mistyped label must not become somebody's training data."""
    said, (wrong,) = read(row)
    assert not said
    assert why in wrong.why


def test_rows_that_contradict_each_other_are_not_guessed_about() -> None:
    """Neither is sent; the same thing said twice is sent once."""
    row = {"id": "r-1", "source": SOURCE, "labels": {"sentiment": "positive"}}
    said, wrong = read(row, row, {**row, "labels": {"sentiment": "negative"}})
    assert not said
    assert len(wrong) == 1
    assert len(read(row, row)[0]) == 1


def standing(answer: Answer = SMALL, revision: int = 0, parked: int | None = None) -> Standing:
    event = Event("r-1", "x", b"{}", Source("reviews", 2, 884, 1_000), b"k")
    kind = Kind.CORRECTION if revision else Kind.FINAL
    decision = Decision(
        event,
        kind,
        revision,
        "small",
        {"sentiment": answer},
        "p@1",
        None,
        5,
        replaces=revision - 1 if revision else None,
    )
    value, headers = Codec(Events(), "g").encode_decision(decision)
    return Standing.of(b"k", value, headers if parked is None else with_parked_at(headers, parked))


def judged(said: Said, found: Standing, before=None, texts=None, feedback: TopicFound = FEEDBACK):
    about = About({"reviews/2/884": Newest(found, 2, 70)}, {"r-1": {"reviews/2/884"}}, {2: 90})
    return VerdictJudge(about, texts or {}, feedback, RESULTS, "reviews-verdicts", 3).fate(
        said, Before() if before is None else before, 9
    )


SAID = Said("f:1", "reviews/2/884", "r-1", "Fine.", "sentiment", "negative")
KEY = ("reviews/2/884", "sentiment")


def test_a_label_becomes_a_row_and_a_verdict_about_the_newest_decision() -> None:
    """Both say what they are about; the verdict goes to the partition where the event was parked."""
    fate = judged(SAID, standing(revision=1, parked=2))
    assert isinstance(fate, Sends)
    kept, sent = fate.outgoing
    row, verdict = decode_feedback(kept.value or b""), decode_verdict(sent.value)
    assert (row.label, row.labelled_by, row.why, row.model, row.revision) == ("negative", "human", "verdict", None, 1)
    assert (row.small.label, row.small.model, kept.key) == ("positive", "fast:1", b"r-1")
    assert (verdict.ref, verdict.label, verdict.partition, verdict.offset, verdict.read_to) == (
        "reviews/2/884", "negative", 2, 70, 90,
    )  # fmt: skip
    assert (sent.topic, sent.partition) == ("reviews-verdicts", 2)


def test_the_same_record_always_goes_to_one_owner() -> None:
    """Whatever was never parked is numbered by whoever its source chooses, whoever posts and whenever."""
    first, again = (judged(SAID, standing(revision=revision)) for revision in (0, 1))
    assert isinstance(first, Sends)
    assert isinstance(again, Sends)
    assert first.outgoing[1].partition == again.outgoing[1].partition


def test_what_was_said_before_is_passed_over() -> None:
    """By the verdicts topic, and where that has forgotten, by the decision itself."""
    before = Before({("reviews/2/884", "sentiment"): "negative"})
    assert isinstance(judged(SAID, standing(), before), SaidBefore)
    by_person = replace(SMALL, label="negative", decided_by="human", confidence=None, model="person")
    assert isinstance(judged(SAID, standing(by_person)), SaidBefore)
    assert isinstance(judged(SAID, standing(by_person), Before({KEY: "positive"})), Sends)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (replace(SAID, ref="reviews/2/1"), "no final decision"),
        (replace(SAID, ref=None, id="r-9"), "no final decision"),
        (replace(SAID, id="r-2"), "is r-1, not r-2"),
        (replace(SAID, task="topic"), "no task topic"),
        (replace(SAID, text=None), "no text"),
    ],
)
def test_what_fits_no_decision_is_refused(said: Said, why: str) -> None:
    """A file of another pipeline corrects nothing here."""
    fate = judged(said, standing())
    assert isinstance(fate, Unusable)
    assert why in fate.why


def test_a_row_takes_the_records_text_and_must_fit_the_topic() -> None:
    """A decision has no text; what cannot be kept is not corrected either, so that both stay together."""
    assert isinstance(judged(replace(SAID, text=None), standing(), texts={"reviews/2/884": "Fine."}), Sends)
    assert isinstance(judged(SAID, standing(), feedback=replace(FEEDBACK, message_bytes_max=200)), Unusable)


def test_the_small_models_word_outlives_corrections() -> None:
    """Beside an LLM's and a person's label its own stands in the votes."""
    llm = replace(
        SMALL,
        label="negative",
        decided_by="llm",
        confidence=None,
        model="gpt",
        votes={"fast:1": "positive", "gpt": "negative"},
    )
    for answer in (SMALL, llm, replace(llm, decided_by="human", model="person")):
        told = standing(answer).decision.answers["sentiment"]
        found = small_opinion(told)
        assert (found.label, found.model, found.confidence) == ("positive", "fast:1", 0.97)


# Audits by people

AUDITED = replace(SAID, audit=True)
ACCEPTED = replace(SMALL, policy="p@1")


def test_a_row_says_whether_it_was_drawn_for_an_audit() -> None:
    """What somebody complained of is no fair sample: only rows that say so test the promise."""
    row = {"id": "r-1", "source": SOURCE, "labels": {"sentiment": "positive"}}
    assert [one.audit for one in read({**row, "why": "audit"})[0]] == [True]
    assert [one.audit for one in read(row)[0]] == [False]


@pytest.mark.parametrize(("label", "result"), [("negative", "disagree"), ("positive", "agree")])
def test_an_audit_by_a_person_has_its_result_and_teaches_nothing(label, result) -> None:
    """Row, verdict and result leave together; the result names the policy that accepted, the row says `audit`."""
    fate = judged(replace(AUDITED, label=label), standing(ACCEPTED))
    assert isinstance(fate, Sends)
    row, verdict, told = fate.outgoing
    assert decode_feedback(row.value or b"").why == "audit"
    assert decode_verdict(verdict.value).audit
    found = decode_audit_result(told.value)
    assert (found.by, found.result, found.label, found.policy, found.model) == ("human", result, label, "p@1", None)
    assert (found.small.label, told.topic, told.key) == ("positive", RESULTS.name, b"reviews/2/884")


def test_an_audit_counts_once_also_where_the_label_was_known_or_is_changed() -> None:
    """A complaint before the draw must not take the event out of the sample, a second thought not count twice."""
    before = Before({KEY: "negative"})
    first = judged(AUDITED, standing(ACCEPTED), before)
    assert isinstance(first, Sends)
    assert len(first.outgoing) == 3
    assert isinstance(judged(AUDITED, standing(ACCEPTED), before), SaidBefore)
    changed = judged(replace(AUDITED, label="positive"), standing(ACCEPTED), before)
    assert isinstance(changed, Sends)
    assert len(changed.outgoing) == 2


def test_what_was_corrected_before_is_held_against_what_was_accepted() -> None:
    """A person's earlier correction of an accepted answer is not what the small model said."""
    by_person = replace(
        ACCEPTED, label="negative", decided_by="human", confidence=None, model="person", votes={"fast:1": "positive"}
    )
    fate = judged(AUDITED, standing(by_person, revision=1))
    assert isinstance(fate, Sends)
    assert decode_audit_result(fate.outgoing[2].value).result == "disagree"


def test_what_was_escalated_is_no_audit() -> None:
    """No promise was made of it."""
    fate = judged(AUDITED, standing(replace(ACCEPTED, escalated_because="unsure")))
    assert isinstance(fate, Sends)
    assert len(fate.outgoing) == 2
    assert decode_feedback(fate.outgoing[0].value or b"").why == "verdict"


# Tasks of which any label may be right

LABELS = ("insult", "spam", "threat")
CUTS = dict.fromkeys(LABELS, 0.9)
CHANCES = {"insult": 0.09, "spam": 0.95, "threat": 0.01}
SEVERAL = Answer(("spam",), 0.91, CHANCES, CUTS, "small", "fast:1", True)
SAID_SEVERAL = replace(SAID, label=("threat", "spam"))


def read_several(*rows: dict) -> tuple[list[Said], list[Unusable]]:
    told = [(n, f"f:{n}", {"id": "r-1", **row}) for n, row in enumerate(rows, 1)]
    return said_in(told, {"trouble": frozenset(LABELS)}, "trouble", {"trouble"})


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"labels": {"trouble": ["threat", "spam"]}}, ("threat", "spam")),
        ({"labels": {"trouble": {"insult": False, "spam": True, "threat": 1}}}, ("spam", "threat")),
        ({"label": []}, ()),
        ({"labels": {"trouble": {"insult": 0, "spam": 0, "threat": 0}}}, ()),
    ],
)
def test_several_labels_are_a_list_or_a_map(row, label) -> None:
    """Those that apply, which may be none; nothing said stays nothing said."""
    (said,), wrong = read_several(row, {"labels": {"trouble": None}, "id": "r-2"})
    assert (said.label, wrong) == (label, [])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"label": "spam"}, "neither a list nor a map"),
        ({"labels": {"trouble": {"spam": None, "insult": True}}}, "neither a list nor a map"),
        ({"labels": {"trouble": {"spam": "yes"}}}, "neither a list nor a map"),
        ({"label": ["rude"]}, "trouble has no label rude"),
        ({"label": [1]}, "is no text"),
    ],
)
def test_what_is_neither_is_refused(row, why) -> None:
    """A label that nobody looked for is not a no: such a map is no verdict."""
    said, (wrong,) = read_several(row)
    assert not said
    assert why in wrong.why


def test_the_same_labels_in_another_order_do_not_clash() -> None:
    """Two rows that name the same ones say the same."""
    same, none = read_several({"label": ["spam", "threat"]}, {"label": ["threat", "spam"]})
    assert (len(same), none) == (1, [])
    clash, wrong = read_several({"label": ["spam"]}, {"label": []})
    assert (clash, len(wrong)) == ([], 1)
    assert "trouble is none here and spam at f:1" in wrong[0].why


def test_a_list_becomes_a_row_and_a_verdict_in_the_tasks_order() -> None:
    """However the person ordered it; the row names each label, to train on."""
    fate = judged(SAID_SEVERAL, standing(SEVERAL))
    assert isinstance(fate, Sends)
    row, verdict = decode_feedback(fate.outgoing[0].value or b""), decode_verdict(fate.outgoing[1].value)
    assert (row.label, verdict.label) == (("spam", "threat"), ("spam", "threat"))
    assert (row.small.label, row.small.confidence) == (("spam",), 0.91)
    assert json.loads(fate.outgoing[0].value or b"")["labels"] == {"insult": False, "spam": True, "threat": True}
    none = judged(replace(SAID, label=()), standing(SEVERAL))
    assert isinstance(none, Sends)
    assert decode_verdict(none.outgoing[1].value).label == ()


def test_the_same_labels_said_before_are_passed_over() -> None:
    """In whatever order, by the verdicts topic or by the decision itself."""
    before = Before({KEY: ("spam", "threat")})
    assert isinstance(judged(SAID_SEVERAL, standing(SEVERAL), before), SaidBefore)
    by_person = replace(SEVERAL, label=("spam", "threat"), decided_by="human", confidence=None, model="person")
    assert isinstance(judged(SAID_SEVERAL, standing(by_person)), SaidBefore)
    assert isinstance(judged(SAID_SEVERAL, standing(replace(by_person, label=("spam",)))), Sends)


@pytest.mark.parametrize(
    ("label", "answer", "why"),
    [
        ("spam", SEVERAL, "has a list of labels"),
        (("spam",), SMALL, "has one label"),
        (("rude",), SEVERAL, "has no label rude"),
    ],
)
def test_a_label_of_the_other_kind_fits_no_decision(label, answer, why) -> None:
    """A list corrects lists alone, and only with labels that the decision knows."""
    fate = judged(replace(SAID, label=label), standing(answer))
    assert isinstance(fate, Unusable)
    assert why in fate.why


def test_the_small_models_list_outlives_corrections() -> None:
    """It stands in the votes; where it does not, in the probabilities."""
    llm = replace(
        SEVERAL, label=(), decided_by="llm", confidence=None, model="gpt", votes={"fast:1": ("spam",), "gpt": ()}
    )
    for answer in (SEVERAL, llm, replace(llm, decided_by="human", model="person"), replace(llm, votes={})):
        found = small_opinion(standing(answer).decision.answers["sentiment"])
        assert (found.label, found.confidence) == (("spam",), 0.91)

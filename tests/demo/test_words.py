"""What the demo prints: figures a person can read, and nothing a terminal would obey."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stream_app.escalate.prices import Price
from stream_app.events import Usage
from stream_app.local.demo.audit import Audit
from stream_app.local.demo.lines import outcome_line, route_of
from stream_app.local.demo.options import DemoLlm
from stream_app.local.demo.outcomes import Dead, Decided, Passed, Reply
from stream_app.local.demo.report import balance, examples, next_commands
from stream_app.local.demo.screen import LINES_PER_S_MAX, Screen
from stream_app.local.demo.summary import summarise
from stream_app.local.demo.tally import Tally
from stream_app.local.demo.words import duration, excerpt, percent, plural, usd
from stream_app.local.reviews import Sample

SURE = Decided(
    source="reviews/0/0",
    id="r-0",
    kind="final",
    revision=0,
    decided_by="small",
    policy="demo@1",
    certified=True,
    degraded_reason=None,
    replies=(
        Reply(
            "sentiment", "positive", 0.98, {"positive": 0.98, "negative": 0.02}, 0.9, "small", "m:1", True, None, None
        ),
    ),
    call=None,
    latency_ms=4,
)
ASKED = replace(
    SURE,
    source="reviews/0/1",
    id="r-1",
    decided_by="llm",
    replies=(
        Reply(
            "sentiment",
            "negative",
            None,
            {"positive": 0.61, "negative": 0.39},
            0.9,
            "llm",
            "gpt",
            True,
            "unsure",
            {"m:1": "positive", "gpt": "negative"},
        ),
    ),
    call=Usage("gpt", "1", 230, 12, 0.0000417, 380.0, cached=False, request_id=None),
    latency_ms=1412,
)
LETTER = Dead("reviews/0/2", "decode", "not_json", "it is not JSON", "WARN \x1b[31m checkout")
TEXTS = {"r-0": "Lovely kettle.", "r-1": "Oh brilliant, it found the stairs."}


def shown(*what, width=120, terminal=False):
    """What a console of that width prints."""
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, highlight=False)
    for one in what:
        console.print(one)
    return out.getvalue()


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "$0"),
        (12.3, "$12.30"),
        (0.12, "$0.12"),
        (0.0042, "$0.0042"),
        (0.0000417, "$0.000042"),
        (4e-7, "$0.0000004"),
    ],
)
def test_dollars(amount, words):
    """Small sums keep the digits that say something."""
    assert usd(amount) == words


def test_other_figures():
    """Milliseconds become seconds, a missing figure a dash."""
    assert [duration(4.4), duration(999.4), duration(1412.0), duration(None)] == ["4 ms", "999 ms", "1.4 s", "—"]
    assert [percent(0.125), percent(None), percent(1.0, 0)] == ["12.5 %", "—", "100 %"]
    assert [plural(1, "kill"), plural(1200, "kill"), plural(2, "copy", "copies")] == [
        "1 kill",
        "1,200 kills",
        "2 copies",
    ]


@given(st.text())
def test_an_excerpt_is_one_harmless_line(text):
    """Whatever a review holds, its excerpt has no control character and no line break."""
    found = excerpt(text)
    assert all(letter.isprintable() for letter in found)
    assert found == " ".join(found.split())


def test_lines_say_route_decision_and_cost():
    """The small model's answer with its certainty, the LLM's with what it overturned, a dead letter's cause."""
    assert "small    positive 98%" in outcome_line(SURE, TEXTS["r-0"], 120).plain
    asked = outcome_line(ASKED, TEXTS["r-1"], 120).plain
    assert asked.startswith("LLM      negative ← positive 61%")
    assert "1.4 s $0.000042" in asked
    letter = outcome_line(LETTER, "", 120).plain
    assert letter.startswith("DLQ      not_json")
    assert "\x1b" not in letter
    assert outcome_line(Passed("reviews/0/3"), "", 120).plain.startswith("deleted")
    assert route_of(replace(ASKED, decided_by="small", degraded_reason="budget")) == "degraded"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_lines_never_wrap(width):
    """A line is at most as wide as the terminal, also with letters of two cells."""
    for one in (SURE, ASKED, LETTER):
        assert outcome_line(one, "保温力が素晴らしく、" * 30, width).cell_len <= width


def sample_of(one):
    """The sample that became this outcome."""
    return Sample(value=b"{}", id=getattr(one, "id", None), text="x" * 100, gold=(("sentiment", "positive"),))


def test_the_balance_tells_the_whole_story():
    """Routes, money, lost and twice, and that a stand-in is no LLM."""
    outcomes = [SURE, ASKED, LETTER]
    summary = summarise([sample_of(one) for one in outcomes], outcomes, rule_based=True, price=Price(0.15, 0.60))
    text = shown(
        balance(
            summary,
            llm=DemoLlm("gpt"),
            seconds=2.0,
            audit=Audit(sent=3, closing=3, lost=0, duplicated=0),
            calls_made=7,
            width=120,
        )
    )
    for words in (
        "gpt (stand-in)",
        "not_json 1",
        "0 lost, 0 twice",
        "Kafka's own console",
        "(estimate)",
        "not judged",
    ):
        assert words in text
    assert "\x1b" not in text


def test_recorded_and_real_answers_are_judged():
    """Only a rule's answers say nothing about an LLM; recorded ones are named as such."""
    summary = summarise([sample_of(ASKED)], [ASKED], rule_based=False, price=None)
    for llm, name in ((DemoLlm("gpt", replays=True), "gpt (recorded)"), (DemoLlm("gpt", "http://llm/v1"), "gpt ")):
        text = shown(balance(summary, llm=llm, seconds=1.0, audit=None, calls_made=1, width=120))
        assert name in text
        assert "of decisions are right" in text
        assert "not judged" not in text
        assert "in vain" not in text


def test_three_examples():
    """An easy one, one with its votes, and a dead letter with its cause."""
    text = shown(examples([SURE, ASKED, LETTER], TEXTS))
    for words in (
        "easy: r-0",
        "unsure: r-1",
        "m:1: positive, gpt: negative",
        "not_json: it is not JSON",
        "needed 90.0 %",
    ):
        assert words in text
    assert "\x1b" not in text


def test_the_end_names_what_comes_next(tmp_path):
    """While the stack is up, the page; in any case the next commands."""
    assert "http://127.0.0.1:6066/" in shown(next_commands(tmp_path / "shunt.toml", "http://127.0.0.1:6066/"))
    assert "shunt try" in shown(next_commands(tmp_path / "shunt.toml", None))


def test_without_a_terminal_there_are_plain_lines():
    """No control codes, no live line; what is too fast to read is counted."""
    out = StringIO()
    with Screen(Console(file=out, width=80, force_terminal=False)) as screen:
        screen.step("Kafka is ready (2.0 s)")
        screen.watch(Tally(planned=100), TEXTS, "http://x/")
        for _ in range(LINES_PER_S_MAX + 60):
            screen.outcome(SURE)
        screen.show("end")
    text = out.getvalue()
    assert "\x1b" not in text
    assert "✓ Kafka is ready" in text
    assert 1 <= text.count("Lovely kettle") <= 2 * LINES_PER_S_MAX
    assert "more" in text


def test_on_a_terminal_figures_stand_below():
    """The last line counts what is closed, by route."""
    out = StringIO()
    tally = Tally(planned=3)
    tally.count_sent(3)
    for one in (SURE, ASKED, LETTER, replace(SURE, kind="correction")):
        tally.add(one)
    assert (tally.closed, dict(tally.routes)) == (3, {"small": 1, "LLM": 1, "DLQ": 1})
    with Screen(Console(file=out, width=120, force_terminal=True)) as screen:
        screen.watch(tally, TEXTS, "http://127.0.0.1:6066/")
    assert "3 of 3" in out.getvalue()

"""The pure parts of the command line: fields from a sample, the first settings file, lines, counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.cli.lines import json_line, printable, readable_line
from stream_app.cli.produce import key_of
from stream_app.cli.recent import Recent, Spend, spend
from stream_app.cli.sample import Fields, infer
from stream_app.cli.settings_file import Addresses, settings_file
from stream_app.cli.table import as_table
from stream_app.codec import DecisionMessage, decode_decision
from stream_app.escalate.budget import Lease
from stream_app.kafka.admin import behind
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

LONG = "The lamp is bright and the switch has a good click to it."


def rows(*values: object) -> list[bytes]:
    """The values as records."""
    return [json.dumps(value).encode() for value in values]


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ([{"id": "a", "text": LONG}, {"id": "b", "text": "x"}], ("id", ("text",))),
        (
            [{"review_id": 1, "stars": 5, "body": LONG}, {"review_id": 2, "stars": 5, "body": LONG}],
            ("review_id", ("body",)),
        ),
        ([{"id": 1, "title": "Lamp", "review": {"body": LONG}}], ("id", ("title", "review.body"))),
        ([{"ref": "r1", "words": LONG}, {"ref": "r2", "words": LONG + "!"}], (None, ("words",))),
        (
            [{"user_id": 7, "order_id": 1, "note": LONG}, {"user_id": 7, "order_id": 2, "note": LONG}],
            ("order_id", ("note",)),
        ),
    ],
)
def test_fields_are_found_by_name_and_by_what_they_hold(
    values: list[object], fields: tuple[str | None, tuple[str, ...]]
) -> None:
    """The id is a field that tells records apart, the text a usual name or the longest prose, a title before it."""
    found = infer(rows(*values))
    assert found is not None
    assert (found.id_field, found.text_fields) == fields


@pytest.mark.parametrize("values", [[], [b"not json"], rows([1, 2]), rows({"id": 1, "stars": 3}), [None]])
def test_no_text_is_found_where_there_is_none(values: list[bytes | None]) -> None:
    """A guess that has nothing to stand on is not made."""
    assert infer(values) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@example([{"": "a text under no name at all"}])
@given(st.lists(json_values, max_size=8))
def test_any_topic_can_be_looked_at(values: list[Any]) -> None:
    """Whatever stands on the topic, inference ends, and the file written from it can be read."""
    fields = infer(json.dumps(value).encode() for value in values)
    assert fields is None or all(fields.text_fields)


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from([None, "http://127.0.0.1:9/v1"]),
)
def test_the_first_settings_file_can_be_loaded(
    tmp_path_factory: pytest.TempPathFactory, path: str, stand_in: str | None
) -> None:
    """Whatever the fields are called, `shunt init` writes what `shunt run` reads."""
    file: Path = tmp_path_factory.mktemp("settings") / "shunt.toml"
    fields = Fields(path, ("title", path), 3)
    text = settings_file("my-reviews", Addresses("10.0.0.1:9092", "10.0.0.2:8001", stand_in), fields)
    file.write_text(text, encoding="utf-8")
    settings = load_settings(file)
    assert settings.kafka.input_topic == "my-reviews"
    assert settings.kafka.bootstrap_servers == "10.0.0.1:9092"
    assert settings.triton.url == "10.0.0.2:8001"
    assert settings.events.id_field == path
    assert settings.events.text_fields == ("title", path)
    assert settings.llm.endpoints[0].base_url == stand_in or stand_in is None


def record(
    value: bytes | None, key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = ()
) -> ConsumerRecord[Any, Any]:
    """A record as a consumer hands it over."""
    return ConsumerRecord("t", 0, 7, 0, 0, key, value, None, 0, 0, headers)


@given(st.binary() | st.none(), st.binary() | st.none())
def test_a_line_is_one_line_and_cannot_steer_the_terminal(value: bytes | None, key: bytes | None) -> None:
    """Escape sequences, newlines and broken UTF-8 of others are shown, not obeyed."""
    assert readable_line(record(value, key)).isprintable()
    line = json_line(record(value, key))
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


@given(st.text())
def test_printable_text_is_left_alone(text: str) -> None:
    """Letters of every script stay; what is not printable is escaped."""
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_a_json_value_of_several_lines_becomes_one() -> None:
    """One JSON object a line, whatever the producer's layout."""
    assert json.loads(json_line(record(b'{\n "a": "b\\nc"\r\n}'))) == {"a": "b\nc"}


@pytest.mark.parametrize(
    ("line", "path", "key"),
    [
        (b'{"id": "a"}', "id", b"a"),
        (b'{"id": 12}', "id", b"12"),
        (b'{"a": {"b": "c"}}', "a.b", b"c"),
        (b'{"id": true}', "id", None),
        (b'{"id": null}', "id", None),
        (b'{"a": "b"}', "a.b", None),
        (b"[1]", "id", None),
        (b"nonsense", "id", None),
    ],
)
def test_a_records_key_is_its_id(line: bytes, path: str, key: bytes | None) -> None:
    """Events with the same id meet in one partition; a line without an id is sent without a key."""
    assert key_of(line, tuple(path.split("."))) == key


def decision(second: int, **changes: Any) -> DecisionMessage:
    """A decision, made at that second."""
    value = {
        "id": "a", "kind": "final", "revision": 0, "replaces": None, "pending": [], "decided_by": "small",
        "policy": None, "certified": True, "degraded": False, "degraded_reason": None, "answers": {},
        "enrichment": {}, "usage": None, "recommended_action": None,
        "source": {"topic": "t", "partition": 0, "offset": 0, "timestamp": "2026-11-20T09:30:00.120Z"},
        "decided_at": f"2026-11-20T09:30:{second:02d}.000Z", "payload": {},
    }  # fmt: skip
    return decode_decision(json.dumps(value | changes).encode())


def test_recent_decisions_are_counted_by_what_they_are() -> None:
    """Finals count once; a degraded one was escalated too; corrections cost, and are no second final."""
    usage = {
        "model": "m", "prompt_version": "1", "input_tokens": 1, "output_tokens": 1, "cost_usd": 0.5,
        "latency_ms": 1.0, "cached": False, "request_id": None,
    }  # fmt: skip
    recent = Recent()
    recent.add(
        [
            decision(4, certified=False),
            decision(0),
            decision(2, decided_by="llm", usage=usage, certified=None),
            decision(3, degraded=True, degraded_reason="budget"),
            decision(5, kind="correction", revision=1, replaces=0, decided_by="llm", usage=usage),
            decision(1, kind="provisional", pending=["sentiment"]),
        ]
    )
    assert recent.finals == 4
    assert recent.by == {"small": 3, "llm": 1}
    assert recent.degraded == {"budget": 1}
    assert recent.escalated_share == 0.5
    assert recent.corrections == 1
    assert recent.uncertified == 1
    assert recent.models == {"m": 1}
    assert recent.cost_usd == 1.0
    assert recent.saved_usd_estimate == 1.0  # two that nobody asked about, at half a dollar
    assert recent.per_s == 3 / 4
    assert Recent().escalated_share is None
    assert Recent().per_s is None
    assert Recent().saved_usd_estimate is None


def test_an_answer_from_the_cache_is_no_price() -> None:
    """What was not paid for says nothing about what a call costs."""
    cached = {
        "model": "m", "prompt_version": "1", "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0,
        "latency_ms": 1.0, "cached": True, "request_id": None,
    }  # fmt: skip
    recent = Recent()
    recent.add([decision(0), decision(1, decided_by="llm", usage=cached, certified=None)])
    assert recent.saved_usd_estimate is None


def test_a_table_is_aligned_and_numbers_stand_at_the_right() -> None:
    """The same in a terminal and in a file."""
    assert as_table(("name", "n"), [("a", 5), ("long", 1234)]) == "name  n\na         5\nlong  1,234".replace(
        "name  n", "name      n"
    )


def test_spend_adds_up_the_leases_of_this_hour_and_day() -> None:
    """What was settled in an earlier hour counts for its day only; a note that is no lease counts for nothing."""
    now_s = 50 * 3_600.0
    notes = [
        Lease(hour=50, day=2, leased_nusd=10**9, settled_hour_nusd=2 * 10**9, settled_day_nusd=3 * 10**9).text(),
        Lease(hour=49, day=2, leased_nusd=0, settled_hour_nusd=5 * 10**9, settled_day_nusd=6 * 10**9).text(),
        Lease(hour=20, day=0, leased_nusd=0, settled_hour_nusd=7 * 10**9, settled_day_nusd=8 * 10**9).text(),
        "",
    ]
    assert spend(notes, now_s) == Spend(hour_usd=2.0, day_usd=9.0, leased_usd=1.0)


@pytest.mark.parametrize(("earliest", "records"), [(True, 9 + 10 + 5), (False, 0)])
def test_lag_counts_from_where_a_lane_would_begin(earliest: bool, records: int) -> None:
    """Without any commit: every partition, or nothing. With some: one without was added, and all of it is lag.

    What was deleted unread is no lag.
    """
    done, new, cut = (TopicPartition("t", number) for number in range(3))
    begin, end = {done: 0, new: 10, cut: 20}, {done: 9, new: 20, cut: 25}
    assert behind(begin, end, {}, from_earliest=earliest) == records
    assert behind(begin, end, {done: 6, cut: 3}, from_earliest=earliest) == 3 + 10 + 5

"""Rate headers: every provider's form is understood, and nothing that can be sent does harm."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.escalate.rate_headers import SILENT, Allowance, duration_s, rate_headers

NOW_S = 1_790_000_000.0
NAMES = [
    *(f"x-ratelimit-{field}-{of}" for field in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    "x-rate-limit-reset-tokens",
    "retry-after-ms",
    "retry-after",
]


def test_openai_form():
    """OpenAI's numbers and Go durations are read as its guide explains them."""
    said = rate_headers(
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        NOW_S,
    )
    assert said.requests == Allowance(60, 59, 1.0)
    assert said.tokens == Allowance(150_000, 149_984, 360.0)
    assert said.retry_after_s is None


def test_azure_forms():
    """Azure's plain seconds count, under either spelling of the name; its -1 and 0 mean that it does not know."""
    assert rate_headers({"x-ratelimit-reset-tokens": "55"}, NOW_S).tokens == Allowance(reset_s=55.0)
    assert rate_headers({"x-rate-limit-reset-tokens": "55"}, NOW_S).tokens == Allowance(reset_s=55.0)
    unknown = {
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "0",
    }
    assert rate_headers(unknown, NOW_S) == SILENT
    assert rate_headers(unknown | {"x-ratelimit-remaining-tokens": "0"}, NOW_S) == SILENT
    only_remaining = {"x-ratelimit-remaining-requests": "79", "x-ratelimit-remaining-tokens": "61353"}
    assert rate_headers(only_remaining, NOW_S).tokens == Allowance(remaining=61_353)


def test_nothing_left_is_a_fact():
    """A remaining of 0 beside a limit is no gap in what is known."""
    said = rate_headers({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}, NOW_S)
    assert said.requests == Allowance(60, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1m30.5s", 90.5),
        ("1h0m0s", 3_600.0),
        ("850µs", 0.00085),
        ("7", 7.0),
        (" 0.25 ", 0.25),
        ("0s", None),
        ("-1", None),
        ("-3s", None),
        ("1e9", None),
        ("nan", None),
        ("5 minutes", None),
        ("999999h", None),
        ("٣", None),
        ("", None),
    ],
)
def test_durations(text, seconds):
    """Go durations and seconds are read; what is neither, or no wait of up to a day, is unknown."""
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59_999))
def test_go_durations_survive_the_round_trip(hours, minutes, milliseconds):
    """Whatever Go would print for a duration is read back."""
    seconds = milliseconds / 1_000
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"
    total_s = 3_600 * hours + 60 * minutes + seconds
    assert duration_s(text) == (pytest.approx(total_s, abs=1e-3) if total_s else None)


def test_retry_after_forms():
    """Milliseconds come before seconds, seconds may be fractions, and a date is held against the wall clock."""
    assert rate_headers({"retry-after-ms": "1500", "retry-after": "9"}, NOW_S).retry_after_s == 1.5
    assert rate_headers({"retry-after-ms": "-1", "retry-after": "9"}, NOW_S).retry_after_s == 9
    assert rate_headers({"retry-after": "0.5"}, NOW_S).retry_after_s == 0.5
    for date_s, wait_s in ((NOW_S + 30, 30), (NOW_S - 30, None), (NOW_S + 10**7, None)):
        date = format_datetime(datetime.fromtimestamp(date_s, UTC), usegmt=True)
        assert rate_headers({"retry-after": date}, NOW_S).retry_after_s == wait_s


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(
            st.text(max_size=80),
            st.floats().map(str),
            st.integers().map(str),
            st.from_regex(r"[-+]?[0-9.]{1,9}(ms|s|m|h|ns|us|µs)?([0-9]{1,3}s)?", fullmatch=True),
            st.from_regex(
                r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{1,5} \d{2}:\d{2}:\d{2} [A-Z+\-0-9]{1,6}", fullmatch=True
            ),
        ),
    ),
    st.floats(0, 4e9),
)
@example({"retry-after": "Sat, 31 Dec 9999 23:59:59 -2359"}, 0.0)
@example({"retry-after": "9" * 5_000}, 0.0)
def test_never_raises_and_never_misleads(headers, wall_s):
    """Any headers give finite, sensible numbers or nothing."""
    said = rate_headers(headers, wall_s)
    for one in (said.requests, said.tokens):
        assert one.limit_per_minute is None or 0 < one.limit_per_minute < 1e12
        assert one.remaining is None or 0 <= one.remaining < 1e12
        assert one.reset_s is None or 0 < one.reset_s <= 86_400
    assert said.retry_after_s is None or 0 < said.retry_after_s <= 86_400


@given(st.integers(1, 10**9), st.integers(-1, 10**10))
def test_remaining_is_never_more_than_the_limit(limit, remaining):
    """A remaining above the limit is cut to it; below 0 it is unknown."""
    headers = {"x-ratelimit-limit-tokens": str(limit), "x-ratelimit-remaining-tokens": str(remaining)}
    said = rate_headers(headers, NOW_S).tokens
    assert said.remaining == (None if remaining < 0 else min(remaining, limit))

"""The size of the next batch follows what the models can do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.classify.batch_size import RECORDS_MIN, TARGET_S, BatchSize


def settled(rate_per_s: float, records_max: int = 16_384) -> int:
    """The size after thirty full batches of a model that decides so many records a second."""
    size = BatchSize(records_max)
    for _ in range(30):
        size.took(size.records, size.records / rate_per_s)
    return size.records


def test_a_cheap_model_gets_full_batches():
    """At 200,000 records a second nothing speaks for small batches."""
    assert settled(200_000) == 16_384


def test_a_slow_model_gets_small_ones():
    """An encoder at 50 records a second gets the smallest batch, so that nobody waits for a thousand others."""
    assert settled(50) == RECORDS_MIN


@given(st.floats(RECORDS_MIN / TARGET_S * 1.1, 60_000))
def test_full_batches_take_about_the_target(rate_per_s):
    """Whatever the rate, a full batch settles between a quarter of the target and the target."""
    seconds = settled(rate_per_s) / rate_per_s
    assert TARGET_S / 4 <= seconds <= TARGET_S or settled(rate_per_s) == 16_384


@given(st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 100)), max_size=50), st.integers(1, 16_384))
def test_it_stays_within_its_bounds(batches, records_max):
    """Never more than the setting allows, never less than the smallest batch."""
    size = BatchSize(records_max)
    for records, seconds in batches:
        size.took(records, seconds)
        assert min(RECORDS_MIN, records_max) <= size.records <= records_max

"""The draw of audits: uniform, blind to what it draws, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from stream_app.routing.audit_draw import AuditDraw

TOPICS = st.text("abcdefghijklmnopqrstuvwxyz-._", min_size=1, max_size=20)
POLICIES = st.none() | st.from_regex(r"[a-z]{1,12}@[1-9][0-9]{0,3}", fullmatch=True)
SHARES = st.floats(0, 1)
OFFSETS = st.lists(st.integers(0, 2**63 - 1), max_size=50)


@given(POLICIES, TOPICS, st.integers(0, 1_000), OFFSETS, SHARES)
def test_a_record_is_drawn_by_its_place_alone(policy, topic, partition, offsets, share):
    """Whoever asks, in whatever company and order, gets the same answer for a record."""
    draw = AuditDraw(policy, share)
    drawn = draw.drawn(topic, partition, np.array(offsets, np.int64)).tolist()
    for offset, is_drawn in zip(offsets, drawn, strict=True):
        alone = AuditDraw(policy, share).drawn(topic, partition, np.array([offset], np.int64))
        assert alone.tolist() == [is_drawn]


@given(POLICIES, TOPICS, OFFSETS, SHARES, SHARES)
def test_a_larger_share_draws_all_that_a_smaller_one_does(policy, topic, offsets, one, other):
    """So the rate may be raised without a break in the sample."""
    numbers = np.array(offsets, np.int64)
    less, more = (AuditDraw(policy, share).drawn(topic, 0, numbers) for share in sorted((one, other)))
    assert not np.any(less & ~more)


@given(TOPICS, st.integers(0, 100), st.integers(0, 10**9), st.integers(0, 500), SHARES)
def test_a_stretch_of_offsets_is_drawn_as_its_offsets_are(topic, partition, first, count, share):
    """`between` is `drawn` of every offset of the stretch."""
    draw = AuditDraw("p@1", share)
    offsets = np.arange(first, first + count)
    assert (
        draw.between(topic, partition, first, first + count - 1)
        == offsets[draw.drawn(topic, partition, offsets)].tolist()
    )


def test_none_and_all():
    """A share of 0 draws nothing, 1 draws everything."""
    offsets = np.arange(100_000)
    assert not AuditDraw("p@1", 0.0).drawn("reviews", 0, offsets).any()
    assert AuditDraw("p@1", 1.0).drawn("reviews", 0, offsets).all()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.7])
def test_the_share_is_the_share(share):
    """In each of 400 partitions the drawn are a binomial sample: too many or too few of them are rare."""
    offsets = np.arange(20_000)
    counts = [int(AuditDraw("p@1", share).drawn("reviews", number, offsets).sum()) for number in range(400)]
    low, high = binom.ppf([0.0005, 0.9995], len(offsets), share)
    assert sum(not low <= count <= high for count in counts) <= 3
    total = binom(len(offsets) * 400, share)
    assert total.ppf(0.0001) <= sum(counts) <= total.ppf(0.9999)


def test_the_draw_is_uniform_over_the_stream():
    """Drawn offsets fall into equal stretches, and into residues, as often as each other (chi-squared)."""
    count, cells = 2_000_000, 64
    drawn = np.flatnonzero(AuditDraw("p@1", 0.05).drawn("reviews", 3, np.arange(count)))
    expected = len(drawn) / cells
    for where in (drawn * cells // count, drawn % cells):
        seen = np.bincount(where, minlength=cells)
        assert chi2.sf(((seen - expected) ** 2 / expected).sum(), cells - 1) > 1e-4


@pytest.mark.parametrize("other", [("p@2", "reviews", 0), ("p@1", "shop", 0), ("p@1", "reviews", 1)])
def test_policies_topics_and_partitions_draw_apart(other):
    """Another of any of them draws as if it had never heard of the first: what both draw is the product's share."""
    offsets = np.arange(1_000_000)
    policy, topic, partition = other
    first = AuditDraw("p@1", 0.1).drawn("reviews", 0, offsets)
    second = AuditDraw(policy, 0.1).drawn(topic, partition, offsets)
    both = binom(len(offsets), 0.01)
    assert both.ppf(0.0005) <= (first & second).sum() <= both.ppf(0.9995)

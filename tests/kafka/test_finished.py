"""The finished-offsets map and the life of a partition, by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream_app.kafka.finished import (
    METADATA_CHARS_MAX,
    SPAN_BITS_MAX,
    FinishedOffsets,
    MetadataTooLong,
    decode,
    encode,
)
from stream_app.kafka.partition import LEGAL_MOVES, IllegalMove, PartitionLife, PartitionStatus

BASES = st.integers(0, 2**62)
EXTRAS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=700)


@given(BASES, st.sets(st.integers(0, SPAN_BITS_MAX - 1), max_size=300), EXTRAS)
def test_what_is_written_is_read_back(base, beyond, extra):
    """Encoding and decoding for the same committed offset give the same finished offsets and extra."""
    finished = {base + each for each in beyond}
    text = encode(base, finished, extra)
    assert len(text) <= METADATA_CHARS_MAX
    restored = decode(text, base)
    assert (restored.finished, restored.extra, restored.doubt) == (finished, extra, None)


@given(BASES)
def test_a_full_span_fits_the_brokers_limit(base):
    """All offsets of the longest span finished: the text stays within Kafka's 4,096 characters."""
    assert len(encode(base, set(range(base, base + SPAN_BITS_MAX)), "x" * 600)) <= METADATA_CHARS_MAX


def test_a_longer_span_is_refused_before_kafka_sees_it():
    """One character too many kills the producer, so it is never sent."""
    with pytest.raises(MetadataTooLong):
        encode(0, {40_000})


@given(BASES, st.sets(st.integers(0, 5_000), max_size=50), st.integers(-10, 10))
def test_the_map_of_another_offset_is_not_believed(base, beyond, shift):
    """Metadata counts only for the very offset it was committed with."""
    text = encode(base, {base + each for each in beyond})
    restored = decode(text, base + shift)
    assert (restored.doubt is None) == (shift == 0)
    assert shift == 0 or not restored.finished


@given(st.text(max_size=200))
def test_foreign_metadata_is_doubted_and_never_raises(text):
    """Whatever another program left there reads as nothing finished."""
    restored = decode(text, 7)
    assert not restored.finished
    assert (restored.doubt is None) == (text == "")


@given(st.sets(st.integers(0, 3_000), min_size=1, max_size=50), st.data())
def test_a_changed_character_is_noticed(beyond, data):
    """A damaged map is not believed: a wrongly finished offset would be a lost record."""
    text = encode(0, beyond)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[place]))
    restored = decode(text[:place] + other + text[place + 1 :], 0)
    assert restored.doubt is not None or restored.finished == beyond


class Ledger(RuleBasedStateMachine):
    """A partition's records arrive, finish in any order, are committed, and a new owner takes over."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = FinishedOffsets(0)
        self.position = 0
        self.arrived: set[int] = set()
        self.done: set[int] = set()

    @rule(gap=st.integers(0, 3))
    def arrive(self, gap):
        offset = self.position + gap
        self.position = offset + 1
        fresh = self.ledger.arrive(offset)
        assert fresh == (offset not in self.done)
        self.arrived.add(offset)

    @precondition(lambda self: self.arrived - self.done)
    @rule(data=st.data())
    def finish(self, data):
        offset = data.draw(st.sampled_from(sorted(self.arrived - self.done)))
        self.ledger.finish(offset)
        self.done.add(offset)

    @rule()
    def commit_and_hand_over(self):
        base = self.ledger.advance(self.position)
        restored = decode(self.ledger.metadata("lease"), base)
        assert restored.doubt is None
        self.ledger = FinishedOffsets(base)
        self.ledger.restore(restored.finished)
        self.position = base  # the new owner reads from the committed offset again
        self.arrived = {offset for offset in self.arrived if offset < base}

    @invariant()
    def the_commit_point_never_passes_an_unfinished_record(self):
        base = self.ledger.advance(self.position)
        assert all(offset >= base for offset in self.arrived - self.done)


TestLedger = Ledger.TestCase


@given(st.lists(st.sampled_from(list(PartitionStatus)), max_size=6))
def test_only_legal_moves_are_made(moves):
    """A partition goes from where it is only to where the table says; LOST is the end."""
    life = PartitionLife()
    for move in moves:
        before = life.status
        if move in LEGAL_MOVES[before]:
            life.move(move)
            assert life.status is move
        else:
            with pytest.raises(IllegalMove):
                life.move(move)
            assert life.status is before


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), max_size=20))
def test_the_gate_admits_every_offset_at_most_once_and_in_order(start, runs):
    """Records handed out twice, or from a position older than the fence, are not accepted."""
    life = PartitionLife()
    assert life.admit(0, 1_000) is None, "nothing is accepted while opening"
    life.ready(start)
    seen: list[int] = []
    for first, length in runs:
        accepted_from = life.admit(first, first + length)
        if accepted_from is not None:
            seen += range(accepted_from, first + length + 1)
    assert seen == sorted(set(seen))
    assert all(offset >= start for offset in seen)

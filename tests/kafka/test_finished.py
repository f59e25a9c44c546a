"""The finished-offsets map and the life of a partition, by properties."""

from __future__ import annotations

import pytest
from hypothesis import example, given
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
    """All offsets of the longest span finished, and the longest extra: within Kafka's 4,096 characters."""
    text = encode(base, set(range(base, base + SPAN_BITS_MAX)), "x" * 700)
    assert len(text) <= METADATA_CHARS_MAX
    assert len(decode(text, base).finished) == SPAN_BITS_MAX


@given(BASES, st.integers(0, SPAN_BITS_MAX - 1))
def test_the_limit_is_one_character_sharp(base, last):
    """4,096 characters are written, 4,097 are refused before Kafka sees them: they would kill the producer."""
    room = METADATA_CHARS_MAX - len(encode(base, {base + last}))
    assert len(encode(base, {base + last}, "x" * room)) == METADATA_CHARS_MAX
    with pytest.raises(MetadataTooLong):
        encode(base, {base + last}, "x" * (room + 1))


@given(BASES, st.integers(SPAN_BITS_MAX + 6, 60_000))
def test_a_longer_span_is_refused_before_kafka_sees_it(base, last):
    """Beside the longest extra that a full span leaves room for, a longer span does not fit."""
    with pytest.raises(MetadataTooLong):
        encode(base, {base + last}, "x" * (METADATA_CHARS_MAX - len(encode(base, {base + SPAN_BITS_MAX - 1}))))


@given(BASES, st.sets(st.integers(0, 5_000), max_size=50), st.integers(-10, 10))
def test_the_map_of_another_offset_is_not_believed(base, beyond, shift):
    """Metadata counts only for the very offset it was committed with."""
    text = encode(base, {base + each for each in beyond})
    restored = decode(text, base + shift)
    assert (restored.doubt is None) == (shift == 0)
    assert shift == 0 or not restored.finished


ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too: a client that decodes leniently may hand them over."""


@given(ANY_TEXT)
def test_foreign_metadata_is_doubted_and_never_raises(text):
    """Whatever another program left there reads as nothing finished."""
    restored = decode(text, 7)
    assert not restored.finished
    assert (restored.doubt is None) == (text == "")


@example(["00000000", "\ud800", ""])
@given(st.lists(ANY_TEXT | st.sampled_from(["shunt1", "7", "00000000", "AAAA", "", "="]), max_size=7))
def test_what_only_looks_like_ours_is_doubted(parts):
    """The right number of parts, the right name, the right base: without the check sum nothing is believed."""
    restored = decode(":".join(["shunt1", "7", *parts]), 7)
    assert not restored.finished
    assert restored.doubt is not None


@pytest.mark.parametrize("version", ["shunt0", "shunt2", "Shunt1", "shunt1 ", "shunt\u0661", "shunt11"])
def test_another_version_is_doubted(version):
    """A later format is not guessed at: a worker of an older release asks again rather than skips."""
    text = encode(7, {9})
    assert decode(version + text.removeprefix("shunt1"), 7).doubt is not None


@pytest.mark.parametrize("text", ["x" * 5_000_000, ":" * 5_000_000, "shunt1:7:00000000:" + "/" * 5_000_000 + ":"])
def test_a_huge_text_is_doubted_in_little_time(text):
    """Kafka's limit can be raised by an operator, and another program may use it."""
    assert decode(text, 7).doubt is not None


@pytest.mark.parametrize("base", ["07", "+7", " 7", "7.0", "٧", "", "-7", "9" * 5_000])
def test_the_base_is_the_committed_offset_to_the_letter(base):
    """One way to write a number: another program's way is another program's text."""
    _, _, crc, packed, extra = encode(7, {9}).split(":", 4)
    restored = decode(f"shunt1:{base}:{crc}:{packed}:{extra}", 7)
    assert (restored.finished, restored.extra) == (frozenset(), "")
    assert restored.doubt is not None


@given(BASES, st.sets(st.integers(0, 3_000), max_size=50), EXTRAS, st.data())
def test_one_character_changed_deleted_or_inserted_is_noticed(base, beyond, extra, data):
    """A damaged map is doubted, or says the same as before; never another set: that would be a lost record."""
    finished = frozenset(base + each for each in beyond)
    text = encode(base, finished, extra)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_categories=()) | st.sampled_from(":=AZaz09+/"))
    damaged = {
        "changed": text[:place] + other + text[place + 1 :],
        "deleted": text[:place] + text[place + 1 :],
        "inserted": text[:place] + other + text[place:],
        "cut off": text[:place],
    }
    for how, broken in damaged.items():
        restored = decode(broken, base)
        if restored.doubt is None and broken:
            assert (restored.finished, restored.extra) == (finished, extra), how
        else:
            assert not restored.finished, how
            assert not restored.extra, how


@given(BASES, st.sets(st.integers(-50, 3_000), max_size=60))
def test_offsets_below_the_base_are_left_out(base, around):
    """They are behind the committed offset: whoever reads the map begins after them."""
    offsets = {max(0, base + each) for each in around}
    assert decode(encode(base, offsets), base).finished == {offset for offset in offsets if offset >= base}


@given(BASES, st.sets(st.integers(-20, 200)), st.lists(st.integers(0, 200), unique=True).map(sorted))
def test_what_was_restored_is_skipped_and_nothing_else(base, restored, arriving):
    """A record that the last owner finished is not asked again; every other one is, gaps or not."""
    ledger = FinishedOffsets(base)
    ledger.restore(frozenset(max(0, base + each) for each in restored))
    fresh = [each for each in arriving if ledger.arrive(base + each)]
    assert fresh == [each for each in arriving if each not in restored]
    assert ledger.unfinished == len(fresh)


@given(st.sets(st.integers(0, 300), min_size=1), st.randoms(use_true_random=False), st.integers(0, 20))
def test_the_commit_point_only_rises_and_ends_at_the_position(offsets, rng, markers):
    """Whatever the order in which records end: never back, never past an unfinished one, and at last no lag."""
    ledger, position = FinishedOffsets(0), max(offsets) + 1 + markers
    for offset in sorted(offsets):
        assert ledger.arrive(offset)
    left, last = list(offsets), 0
    rng.shuffle(left)
    while left:
        assert ledger.span(position) == position - min(left)
        point = ledger.advance(position)
        assert last <= point == min(left)
        assert decode(ledger.metadata(), point).finished == {each for each in offsets - set(left) if each >= point}
        last = point
        ledger.finish(left.pop())
    assert ledger.advance(position) == position
    assert ledger.span(position) == ledger.unfinished == 0


def test_what_never_arrived_cannot_be_finished():
    """A programming error is not swallowed: the commit point would move over a record nobody has."""
    ledger = FinishedOffsets(0)
    ledger.arrive(1)
    ledger.finish(1)
    for offset in (0, 1):
        with pytest.raises(KeyError):
            ledger.finish(offset)


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

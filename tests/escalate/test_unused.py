"""Answers paid for and not committed: each is counted in vain once, or not at all where it was used after all."""

from __future__ import annotations

from aiokafka.structs import TopicPartition

from stream_app.escalate.unused import SETTLE_S, Unused

FIRST, SECOND = TopicPartition("reviews-escalations", 0), TopicPartition("reviews-parked", 0)


def noted() -> Unused:
    unused = Unused()
    for offset in (5, 6, 7):
        unused.note(FIRST, offset, now_s=10.0)
    unused.note(SECOND, 5, now_s=10.0)
    return unused


def test_a_partition_that_comes_back_wastes_only_what_somebody_else_finished() -> None:
    """Offsets below the commit point or in its map are done already; the others are answered from the cache."""
    unused = noted()
    assert unused.came_back(FIRST, 6, frozenset({7})) == 2
    assert unused.came_back(FIRST, 6, frozenset({7})) == 0
    assert unused.give_up() == 1


def test_a_partition_that_stays_away_wastes_all_of_its_answers_once() -> None:
    """In doubt until no rebalance can still bring it back."""
    unused = noted()
    assert unused.settle(10.0 + SETTLE_S / 2) == 0
    assert unused.settle(10.0 + SETTLE_S) == 4
    assert unused.settle(10.0 + SETTLE_S) == 0
    assert unused.give_up() == 0

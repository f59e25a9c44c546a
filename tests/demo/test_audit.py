"""Kafka's console consumer is the judge of lost and duplicated; what it prints is read rightly."""

from __future__ import annotations

from stream_app.local.console import ConsoleRecord
from stream_app.local.demo.audit import Audit, counted
from stream_app.local.demo.kills import FIRST_S, KILLS_MAX, kill_schedule


def final(offset, kind="final"):
    """A decision as the console consumer prints it."""
    return ConsoleRecord(0, offset, f"ce_id:x,kind:{kind},shunt-source:reviews/0/{offset}", "k", "{}")


def test_each_record_once():
    """A final, a dead letter and a tombstone each close their record."""
    letter = ConsoleRecord(0, 0, "x:1,__connect.errors.topic:reviews,shunt-source:reviews/0/7", "k", "nope")
    tombstone = ConsoleRecord(0, 1, "shunt-source:reviews/0/8", "k", "null")
    assert counted([final(1), letter, tombstone], 3) == Audit(sent=3, closing=3, lost=0, duplicated=0)


def test_lost_and_duplicated():
    """A source that is missing is lost; one that closes twice is duplicated."""
    assert counted([final(1), final(1), final(2)], 4) == Audit(sent=4, closing=3, lost=2, duplicated=1)


def test_provisional_and_corrections_do_not_close():
    """Only the final of a record counts."""
    assert counted([final(1, "provisional"), final(1), final(1, "correction")], 1).duplicated == 0


def test_a_replayed_dead_letter_counts_by_its_last_source():
    """Headers of an earlier life stand before our own."""
    again = ConsoleRecord(0, 0, "shunt-source:reviews/0/1,kind:final,shunt-source:reviews/0/9", "k", "{}")
    assert counted([final(1), again], 2) == Audit(sent=2, closing=2, lost=0, duplicated=0)


def test_kills_come_during_the_run_and_hit_both_lanes():
    """At least three kills, none at the same time, the last before feeding ends; bounded however long it is."""
    for feeding_s in (0.0, 20.0, 40.0, 10_000.0):
        kills = kill_schedule(feeding_s)
        assert 3 <= len(kills) <= KILLS_MAX
        assert {role for kill in kills for role in kill.roles} == {"classify", "escalate"}
        times = [kill.at_s for kill in kills]
        assert times == sorted(set(times))
        assert times[0] == FIRST_S
        if feeding_s >= 20.0:
            assert times[-1] < feeding_s

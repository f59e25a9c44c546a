"""Workers as a supervisor keeps them: each end is counted once, where it belongs."""

from __future__ import annotations

from stream_app.local.ports import claim_port
from tests.faults.fleet import Fleet

SETTINGS = """
[kafka]
bootstrap_servers = "127.0.0.1:{port}"
input_topic = "reviews"

[[tasks]]
name = "sentiment"
tiers = ["echo"]
threshold = 0.5
"""


def test_a_guest_that_found_no_broker_and_left_is_not_counted_at_the_end_again(tmp_path):
    """A run under faults was called unsound when a guest came and went while its one broker was away."""
    claimed = claim_port()
    (tmp_path / "shunt.toml").write_text(SETTINGS.format(port=claimed.number))
    fleet = Fleet(tmp_path)
    try:
        fleet.add("guest", "classify")
        fleet.workers["guest"].process.wait(60)
        assert fleet.leave("guest", 10.0) == (0, 0.0)
        assert [(end.worker, end.status) for end in fleet.exits] == [("guest", 1)]
        assert "no Kafka broker answers" in fleet.exits[0].last_line
        assert fleet.end() == {}
    finally:
        fleet.abandon()

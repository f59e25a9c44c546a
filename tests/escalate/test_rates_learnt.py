"""A limit that is less than the configured one is found, from headers or from 429s alone, and then used."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.rate_headers import SILENT, Allowance, RateHeaders
from stream_app.escalate.rate_learner import Phase, RateLearner, Sent
from stream_app.escalate.said_limits import SaidLimit
from stream_app.escalate.token_bucket import Limits
from tests.escalate.paces import REQUESTS_BOUND, TOKENS_BOUND, Setting, utilisation

KINDS = ("bucket", "fixed", "sliding")
THIRDS = {
    "requests": (Limits(500 / 3, 1_000_000), REQUESTS_BOUND),
    "tokens": (Limits(2_000, 200_000 / 3), TOKENS_BOUND),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", THIRDS)
def test_a_third_is_learnt_from_429s_alone(kind, bound):
    """From 60 s after the first 429 on: at least 0.95 of the real limit, at most 5 further 429s in ten minutes."""
    real, configured = THIRDS[bound]
    for seed in range(2):
        fleet = Setting(kind, "max", real, configured, seed=seed, latency=seed % 2).fleet()
        fleet.run(780)
        began_s = fleet.provider.refusals[0] + 60
        assert utilisation(fleet, real, began_s, began_s + 600) >= 0.95, f"seed {seed}"
        assert sum(began_s < at_s <= began_s + 600 for at_s in fleet.provider.refusals) <= 5, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", THIRDS)
def test_a_third_is_learnt_from_headers(kind, bound):
    """The first response tells: at least 0.95 of the real limit from 60 s on, and no 429 in ten minutes."""
    real, configured = THIRDS[bound]
    for seed in range(2):
        fleet = Setting(kind, "max", real, configured, seed=seed, headers=True, latency=seed % 2).fleet()
        fleet.run(660)
        assert utilisation(fleet, real, 60, 660) >= 0.95, f"seed {seed}"
        assert fleet.provider.refusals == [], f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_three_workers_learn_their_shares(kind):
    """Without a word between them, three workers use at least 0.9 of a limit in requests; each pays its own 429s."""
    real, configured = THIRDS["requests"]
    for seed in range(2):
        fleet = Setting(kind, "max", real, configured, workers=3, seed=seed).fleet()
        fleet.run(780)
        began_s = fleet.provider.refusals[0] + 60
        assert utilisation(fleet, real, began_s, began_s + 600) >= 0.9, f"seed {seed}"
        assert sum(began_s < at_s <= began_s + 600 for at_s in fleet.provider.refusals) <= 15, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_that_is_raised_is_found(kind):
    """A limit learnt from 429s that later grows to the configured one is used again within fifteen minutes."""
    real, configured = THIRDS["requests"]
    fleet = Setting(kind, "max", real, configured).fleet()
    fleet.run(300)
    fleet.provider.requests.limit = configured.requests_per_minute
    fleet.run(1_200)
    assert utilisation(fleet, configured, 1_200 - 60, 1_200) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_others_on_the_same_key_are_made_room_for(kind):
    """When somebody else begins to take 40 %, the headers tell: we make room without a swing, and use the rest.

    A sliding log that is full has no room for the first seconds of it, and 5 s pass until an answer tells: those
    429s are the other's doing. A token bucket holds enough for both until then.
    """
    fleet = Setting(kind, "max", REQUESTS_BOUND, REQUESTS_BOUND, headers=True).fleet()

    def other() -> None:
        fleet.provider.requests.take(fleet.now_s, 1)
        fleet.at(fleet.now_s + 60 / 200, other)

    fleet.at(180.0, other)
    fleet.run(900)
    ours = [at_s for at_s, _ in fleet.provider.log]
    minutes = [sum(1 for at_s in ours if from_s <= at_s < from_s + 60) for from_s in range(360, 900, 60)]
    assert len(fleet.provider.refusals) <= (0 if kind == "bucket" else 8)
    assert sum(at_s > 300 for at_s in fleet.provider.refusals) <= 3
    assert min(minutes) >= 0.8 * 300
    assert max(minutes) <= 1.02 * 300
    assert all(later >= earlier - 0.04 * 300 for earlier, later in pairwise(minutes))


@pytest.mark.parametrize(("share", "lasts_s", "back_s"), [(1.0, 15, 60), (0.7, 180, 60), (0.05, 180, 600)])
def test_429s_that_no_limit_explains_are_forgotten(share, lasts_s, back_s):
    """A server in trouble refuses whatever the rate: soon after that the configured limit is used as before.

    Where every call is refused for a while nothing was measured, so a minute is enough. Few refusals among many
    calls look like a limit, which is left by climbing; but use does not sink below two fifths meanwhile.
    """
    for seed in range(2):
        fleet = Setting("bucket", "max", REQUESTS_BOUND, REQUESTS_BOUND, seed=seed).fleet()
        trouble, admits = random.Random(seed), fleet.provider.admits

        def troubled(now_s, call, trouble=trouble, admits=admits, fleet=fleet) -> bool:
            if 400 <= now_s < 400 + lasts_s and trouble.random() < share:
                fleet.provider.refusals.append(now_s)
                return False
            return admits(now_s, call)

        fleet.provider.admits = troubled
        fleet.run(1_500)
        over_s = 400 + lasts_s + 60  # the last probe may wait for a minute's edge
        assert utilisation(fleet, REQUESTS_BOUND, over_s + back_s, over_s + back_s + 60) >= 0.9, f"seed {seed}"
        assert utilisation(fleet, REQUESTS_BOUND, over_s, over_s + 60) >= 0.4, f"seed {seed}"


@pytest.mark.parametrize("lasts_s", [15, 180])
def test_refusals_at_the_very_start_are_forgotten(lasts_s):
    """An endpoint that refuses everything when the lane starts is used in full two minutes after its recovery."""
    fleet = Setting("bucket", "max", REQUESTS_BOUND, REQUESTS_BOUND).fleet()
    admits = fleet.provider.admits
    fleet.provider.admits = lambda now_s, call: now_s >= lasts_s and admits(now_s, call)
    fleet.run(lasts_s + 180)
    assert utilisation(fleet, REQUESTS_BOUND, lasts_s + 120, lasts_s + 180) >= 0.9


def test_a_429_that_says_there_is_room_teaches_nothing():
    """With plenty left by its own headers it is not for the limit: calls wait, and go on as before."""
    rate = CorrectedRate(Limits(600, 60_000), 1)
    rate.gain(0, 0.0)
    said = RateHeaders(Allowance(600, 500, 10.0), Allowance(60_000, 50_000, 10.0), retry_after_s=1.0)
    for at_s in (10.0, 20.0, 30.0):
        assert rate.wait_s(100, at_s) == 0
        rate.refused(rate.start(100, at_s), said, at_s + 0.1, at_s + 0.1)
        assert rate.wait_s(100, at_s + 0.2) > 0
        assert rate.wait_s(100, at_s + 1.2) == 0
        rate.answered(rate.start(100, at_s + 1.2), 100, SILENT, at_s + 1.3)
    assert rate.learner.refusals == 3
    assert (rate.learner.requests.share(40.0), rate.learner.tokens.share(40.0)) == (1.0, 1.0)


def test_a_header_never_raises_the_configured_limit():
    """An account that may use more than is configured is used as configured; one that may use less, at once."""
    rate = CorrectedRate(Limits(600, 60_000), 1)
    rate.gain(0, 0.0)
    for at_s, limit, factor in ((2.0, 10_000.0, 1.0), (4.0, 150.0, 0.25), (6.0, 300.0, 0.5)):
        assert rate.wait_s(10, at_s) == 0
        rate.answered(rate.start(10, at_s), 10, RateHeaders(requests=Allowance(limit)), at_s)
        assert rate.factors(at_s).requests == factor
    assert rate.factors(6.0).tokens == 1.0


def test_a_429_charges_nothing_and_retry_after_is_obeyed():
    """After a 429 all tokens are back, nobody goes before the time the server named, and then one call alone."""
    rate = CorrectedRate(Limits(6_000, 600_000), 1)
    rate.gain(0, 0.0)
    rate.wait_s(5_000, 1.0)
    before = rate.shares.tokens.level
    started = rate.start(5_000, 1.0)
    rate.refused(started, RateHeaders(retry_after_s=7.0), 1.0, 1.0)
    assert rate.shares.tokens.level == before
    assert rate.wait_s(100, 1.0) == pytest.approx(7.0)
    assert rate.wait_s(100, 8.0) == 0
    probe = rate.start(100, 8.0)
    assert rate.wait_s(100, 8.01) > 0
    rate.answered(probe, 100, SILENT, 8.1)
    assert rate.learner.phase is Phase.OPEN


def test_an_older_answer_is_not_listened_to():
    """Answers overtake each other: what the provider said later stands."""
    said = SaidLimit()
    said.said(Allowance(100, 90, 6.0), 200, 0.05, sent_s=10.0)
    said.said(Allowance(200, 0, 60.0), 200, 0.05, sent_s=9.0)
    assert said.share(10.0) == 0.5


def test_late_refusals_belong_to_the_refusal_that_ended():
    """A 429 for a call that was sent before the last refusal ended opens no new one."""
    learner = RateLearner()
    early = [learner.sent(0.01, 0.0, at_s) for at_s in (0.0, 0.1, 0.2)]
    learner.refused(early[0], 0.3, 0.3, 1.0)
    learner.refused(early[1], 0.4, 0.4)
    assert learner.wait_s(1.3) == 0
    probe = learner.sent(0.01, 0.0, 1.3)
    learner.admitted(probe)
    learner.refused(early[2], 1.5, 1.5, 5.0)
    assert learner.phase is Phase.OPEN
    assert learner.refusals == 1


def test_a_probe_that_is_refused_slowly_is_still_refused():
    """A 429 that comes later than 429s use to come takes back what was concluded in the meantime."""
    learner = RateLearner()
    for number in range(200):
        learner.admitted(learner.sent(0.005, 0.0, number / 10))
    learner.refused(learner.sent(0.005, 0.0, 20.0), 20.1, 20.1, 1.0)
    assert learner.wait_s(21.1) == 0
    probe, since = learner.sent(0.005, 0.0, 21.1), learner.requests.since
    assert learner.wait_s(22.0) == 0, "nothing was heard, so it was admitted"
    assert learner.requests.share(22.0) < 1
    other = learner.sent(0.005, 0.0, 22.0)
    learner.refused(probe, 22.5, 22.5, 1.0)
    assert learner.phase is Phase.HELD
    assert learner.requests.share(22.5) == 1
    assert learner.requests.since == pytest.approx(since), "the probe is out, the other call is in"
    learner.admitted(other)
    assert learner.wait_s(23.0) > 0
    assert learner.wait_s(23.5) == 0
    assert learner.refusals == 1


def _refused_again(learner: RateLearner) -> Sent:
    """A bucket is empty at 20 s and again at 58 s, thirty calls later, half a minute from an edge; then a probe."""
    for number in range(200):
        learner.admitted(learner.sent(0.005, 0.0, number / 10))
    learner.refused(learner.sent(0.005, 0.0, 20.0), 20.1, 50.1, 1.0)
    assert learner.wait_s(21.1) == 0
    learner.admitted(learner.sent(0.005, 0.0, 21.1))
    for number in range(30):
        learner.admitted(learner.sent(0.005, 0.0, 22.0 + number * 1.2))
    learner.refused(learner.sent(0.005, 0.0, 58.0), 58.1, 88.1, 1.0)
    assert learner.wait_s(59.1) == 0
    return learner.sent(0.005, 0.0, 59.1)


def test_what_a_slowly_refused_probe_seemed_to_tell_leaves_nothing_behind():
    """The next refusal's end is judged as if the probe had been waited for."""
    waited, presumed = RateLearner(), RateLearner()
    for learner in (waited, presumed):
        probe = _refused_again(learner)
        if learner is presumed:
            assert learner.wait_s(59.9) == 0, "nothing was heard, so it was admitted"
        learner.refused(probe, 60.0, 90.0, 0.5)
        assert learner.wait_s(60.5) == 0
        learner.admitted(learner.sent(0.005, 0.0, 60.5))
    assert presumed.requests.belief == waited.requests.belief
    assert presumed.requests.since == waited.requests.since
    assert presumed.requests.belief.estimate < 1, "less came in since the bucket was empty than in the minute"


def test_a_slowly_refused_probe_shortens_no_newer_hold():
    """A call that went after it was refused first, and named a longer wait: that one holds."""
    learner = RateLearner()
    probe = _refused_again(learner)
    assert learner.wait_s(59.9) == 0
    learner.refused(learner.sent(0.005, 0.0, 59.9), 60.0, 90.0, 30.0)
    learner.refused(probe, 60.1, 90.1, 1.0)
    assert learner.wait_s(60.1) == pytest.approx(29.9)


def test_a_slowly_refused_probe_leaves_a_newer_one_to_tell():
    """Its answer ends the refusal, which began before both."""
    learner = RateLearner()
    probe = _refused_again(learner)
    assert learner.wait_s(59.9) == 0
    learner.refused(learner.sent(0.005, 0.0, 59.9), 60.0, 90.0, 0.1)
    assert learner.wait_s(60.1) == 0
    newer = learner.sent(0.005, 0.0, 60.1)
    learner.refused(probe, 60.2, 90.2, 1.0)
    assert learner.phase is Phase.PROBING
    learner.admitted(newer)
    assert learner.phase is Phase.OPEN
    assert learner.requests.belief.estimate < 1, "less came in since the bucket was empty than in the minute"


def test_a_probe_that_is_refused_after_a_newer_refusal_ended_is_no_news():
    """What came later tells more: nothing is taken back, nobody waits."""
    learner = RateLearner()
    probe = _refused_again(learner)
    assert learner.wait_s(59.9) == 0
    learner.refused(learner.sent(0.005, 0.0, 59.9), 60.0, 90.0, 0.1)
    assert learner.wait_s(60.1) == 0
    learner.admitted(learner.sent(0.005, 0.0, 60.1))
    believed = learner.requests.belief
    learner.refused(probe, 60.3, 90.3, 1.0)
    assert (learner.phase, learner.requests.belief) == (Phase.OPEN, believed)


def test_the_longest_retry_after_holds_all_calls():
    """Of several 429s at once the longest wait counts: a shorter one that comes later does not shorten it."""
    learner = RateLearner()
    sent = [learner.sent(0.01, 0.0, at_s) for at_s in (0.0, 0.1, 0.2)]
    for call, waits_s in zip(sent, (5.0, 9.0, 1.0), strict=True):
        learner.refused(call, 1.0, 1.0, waits_s)
    assert learner.wait_s(1.0) == pytest.approx(9.0)
    assert learner.refusals == 1


def test_a_call_whose_end_nobody_knows_counts_as_estimated():
    """A cancelled call stays charged; a probe that was cancelled told nothing, so the next call is the probe."""
    rate = CorrectedRate(Limits(6_000, 600_000), 1)
    rate.gain(0, 0.0)
    rate.wait_s(1_000, 1.0)
    rate.refused(rate.start(1_000, 1.0), RateHeaders(retry_after_s=2.0), 1.1, 1.1)
    assert rate.wait_s(1_000, 3.1) == 0
    probe, before = rate.start(1_000, 3.1), rate.shares.tokens.level
    rate.lost(probe, 3.1)
    assert rate.shares.tokens.level == before
    assert rate.shares.in_flight == 0
    assert rate.learner.phase is Phase.HELD
    assert rate.wait_s(1_000, 4.2) == 0
    rate.answered(rate.start(1_000, 4.2), 1_000, SILENT, 4.3)
    assert rate.learner.phase is Phase.OPEN

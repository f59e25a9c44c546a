"""What the stand-in's provider charges, reserves and spends, to the token and to the last part of a dollar. Pure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.llm.account import Prices
from stream_app.local.llm.limits import LimitKind
from stream_app.local.llm.provider import (
    KEYS_MAX,
    OTHER_KEYS,
    Admission,
    Provider,
    QuotaSpent,
    RateLimited,
    Rates,
    TokenAdmission,
)

WINDOW = LimitKind.SLIDING_LOG


def provider(admission: TokenAdmission, tokens_per_minute: int = 1_000) -> Provider:
    return Provider(Rates(WINDOW, 0, tokens_per_minute), admission=admission)


def left(one: Provider, now_s: float = 0.0) -> int:
    assert one.limits.tokens is not None
    return one.limits.tokens.remaining(now_s)


def test_settled_gives_back_what_was_not_used():
    """Input and the most output are taken when the call is let in; at its end only what it used stays taken."""
    one = provider(TokenAdmission.SETTLED)
    admitted = one.admit("a", 100, 300, 0.0)
    assert isinstance(admitted, Admission)
    assert (left(one), admitted.reserved_tokens) == (600, 400)
    one.settle(admitted, 100, 20, 5.0)
    assert (left(one, 5.0), admitted.charged_tokens) == (880, 120)


def test_max_tokens_keeps_what_was_reserved():
    """As OpenAI describes it: the estimate counts, whatever the answer's length."""
    one = provider(TokenAdmission.MAX_TOKENS)
    admitted = one.admit("a", 100, 300, 0.0)
    one.settle(admitted, 100, 20, 5.0)
    assert (left(one, 5.0), admitted.charged_tokens) == (600, 400)


def test_by_use_counts_at_the_end_alone():
    """A call is let in while there is room for one token, and takes what it used, beyond the limit too."""
    one = provider(TokenAdmission.USE, tokens_per_minute=100)
    calls = [one.admit("a", 60, 300, 0.0) for _ in range(3)]
    assert left(one) == 100
    for admitted in calls:
        one.settle(admitted, 60, 20, 5.0)
    assert left(one, 5.0) == 0
    refused = one.admit("a", 1, 1, 6.0)
    assert isinstance(refused, RateLimited)
    assert refused.wait_s == 59.0, "all three were taken at 5"


def test_what_is_refused_takes_nothing():
    """A call that one limit refuses is charged against no other, and costs nothing."""
    one = Provider(Rates(WINDOW, 2, 100), prices=Prices(1, 1))
    assert isinstance(one.admit("a", 90, 0, 0.0), Admission)
    refused = one.admit("a", 20, 0, 1.0)
    assert refused == RateLimited("tokens", 100, 20, 59.0)
    assert one.limits.requests is not None
    assert one.limits.requests.remaining(1.0) == 1
    assert one.as_json()["admitted"] == 1
    too_large = one.admit("a", 101, 0, 1.0)
    assert isinstance(too_large, RateLimited)
    assert math.isinf(too_large.wait_s)


def test_each_key_has_its_own_limits_within_those_of_all():
    """A key that is out of requests does not keep another out; all together do."""
    one = Provider(Rates(WINDOW, 5), key_rates=Rates(WINDOW, 2))
    kept_out = [isinstance(one.admit(key, 1, 1, 0.0), RateLimited) for key in "aaabbbc"]
    assert kept_out == [False, False, True, False, False, True, False]
    assert isinstance(one.admit("c", 1, 1, 0.0), RateLimited), "five of all keys together"
    one.account_of("d").limits.retune(Rates(WINDOW, 1), 30.0)
    assert isinstance(one.admit("d", 1, 1, 60.0), Admission)
    assert isinstance(one.admit("d", 1, 1, 60.0), RateLimited)


def test_a_key_whose_dollars_are_spent_is_let_in_no_more():
    """The quota is of what was spent; calls in flight finish, and another key goes on."""
    one = Provider(Rates(), key_quota_usd=0.001, prices=Prices(10, 0))
    first, second = one.admit("a", 100, 0, 0.0), one.admit("a", 50, 0, 0.0)
    assert isinstance(first, Admission)
    assert isinstance(second, Admission)
    one.settle(second, 50, 0, 1.0)
    third = one.admit("a", 50, 0, 1.0)
    assert isinstance(third, Admission)
    one.settle(third, 50, 0, 2.0)
    assert isinstance(one.admit("a", 1, 0, 2.0), QuotaSpent)
    one.settle(first, 100, 0, 3.0)
    assert one.as_json()["keys"]["a"]["spent_usd"] == 0.002
    assert isinstance(one.admit("b", 1, 0, 3.0), Admission)
    one.account_of("a").quota_usd = None
    assert isinstance(one.admit("a", 1, 0, 3.0), Admission)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 500), st.integers(0, 500), st.integers(0, 600))),
    st.data(),
)
def test_the_account_is_exact(calls, data):
    """Spent and reserved are the sums over ended calls and those in flight, in total and by key, with no rounding."""
    one, open_calls = Provider(Rates(), prices=Prices(0.15, 0.6)), []
    spent, most = dict.fromkeys("abc", 0), 0
    for key, input_tokens, output_max, output_tokens in calls:
        admitted = one.admit(key, input_tokens, output_max, 0.0)
        open_calls.append((key, input_tokens, output_max, output_tokens, admitted))
        most = max(most, one.account.spent_pico + one.account.reserved_pico)
        if data.draw(st.booleans()):
            ended, used, _, output, admitted = open_calls.pop(data.draw(st.integers(0, len(open_calls) - 1)))
            cost = one.settle(admitted, used, output, 0.0)
            assert cost == used * 150_000 + output * 600_000, "picodollars"
            spent[ended] += cost
            most = max(most, one.account.spent_pico + one.account.reserved_pico)
        for key_now in "abc":
            reserved = sum(i * 150_000 + o * 600_000 for k, i, o, _, _ in open_calls if k == key_now)
            account = one.account_of(key_now)
            assert (account.spent_pico, account.reserved_pico) == (spent[key_now], reserved)
    assert one.account.spent_pico == sum(spent.values())
    assert one.account.in_flight == len(open_calls)
    assert one.account.most_pico == most


def test_keys_are_bounded():
    """Keys beyond a thousand share one account: a client that makes keys up does not fill the memory."""
    one = Provider(Rates())
    for number in range(KEYS_MAX + 10):
        one.admit(f"key-{number}", 1, 1, 0.0)
    assert len(one.accounts) == KEYS_MAX + 1
    assert one.accounts[OTHER_KEYS].admitted == 10


def test_another_kind_begins_anew_and_the_same_goes_on():
    """A changed number keeps what was taken; a changed kind counts from nothing."""
    one = Provider(Rates(WINDOW, 60))
    for _ in range(60):
        one.admit("a", 1, 1, 0.0)
    one.limits.retune(Rates(WINDOW, 20), 1.0)
    assert isinstance(one.admit("a", 1, 1, 1.0), RateLimited)
    one.limits.retune(Rates(LimitKind.FIXED_WINDOW, 20), 1.0)
    assert isinstance(one.admit("a", 1, 1, 1.0), Admission)
    one.limits.retune(Rates(LimitKind.FIXED_WINDOW, 0), 1.0)
    assert all(isinstance(one.admit("a", 1, 1, 1.0), Admission) for _ in range(50))


def test_a_limit_below_nought_is_refused():
    """Numbers that mean nothing are no settings."""
    with pytest.raises(ValueError):
        Rates(WINDOW, -1)

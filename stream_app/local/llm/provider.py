"""The provider's side of a call: whether it is let in, what it takes of each limit, and what it costs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from stream_app.local.llm.account import PICO, Account, Prices
from stream_app.local.llm.limits import LimitKind, new_limit

if TYPE_CHECKING:
    from stream_app.local.llm.limits import Charge, Limit

KEYS_MAX = 1_000
OTHER_KEYS = "(other keys)"
"""Keys beyond the first `KEYS_MAX` share one account."""


class TokenAdmission(StrEnum):
    """What a call takes of the limits on tokens."""

    SETTLED = "settled"  # input and most output when it is let in; what it did not use is given back at its end
    MAX_TOKENS = "max_tokens"  # input and most output when it is let in, and nothing is given back
    USE = "use"  # room for one token lets it in; what it used is taken at its end


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits of all keys together, or of one key. 0 is no limit; `burst_s` is of the token bucket only."""

    kind: LimitKind = LimitKind.TOKEN_BUCKET
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    burst_s: float = 60.0

    def __post_init__(self) -> None:
        if min(self.requests_per_minute, self.tokens_per_minute, self.burst_s) < 0 or not math.isfinite(self.burst_s):
            raise ValueError("a limit is not below 0")


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Not let in: `requested` units are more than the limit has room for. They may pass in `wait_s`; inf is never."""

    limit: Literal["requests", "tokens"]
    per_minute: int
    requested: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class QuotaSpent:
    """Not let in: the key's dollars are spent."""


class RateLimits:
    """The limits on requests and on tokens, of all keys together or of one key."""

    __slots__ = ("rates", "requests", "tokens")

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.requests = new_limit(rates.kind, rates.requests_per_minute, rates.burst_s)
        self.tokens = new_limit(rates.kind, rates.tokens_per_minute, rates.burst_s)

    def retune(self, rates: Rates, now_s: float) -> None:
        """Other limits from now on. Of the same kind, they remember what was taken; of another, they begin anew."""
        kept = rates.kind == self.rates.kind
        self.requests = _retuned(self.requests if kept else None, rates, rates.requests_per_minute, now_s)
        self.tokens = _retuned(self.tokens if kept else None, rates, rates.tokens_per_minute, now_s)
        self.rates = rates

    def lacking(self, tokens: int, now_s: float) -> RateLimited | None:
        """The limit that has no room for one request of so many tokens; of two, the one with the longer wait."""
        worst: RateLimited | None = None
        if self.requests is not None and (wait_s := self.requests.wait_s(1, now_s)) > 0:
            worst = RateLimited("requests", self.requests.per_minute, 1, wait_s)
        if self.tokens is None or (wait_s := self.tokens.wait_s(tokens, now_s)) <= (worst.wait_s if worst else 0):
            return worst
        return RateLimited("tokens", self.tokens.per_minute, tokens, wait_s)


class KeyAccount(Account):
    """The account of one API key, with its own limits and quota (None: none)."""

    __slots__ = ("limits", "quota_usd")

    def __init__(self, rates: Rates, quota_usd: float | None) -> None:
        super().__init__()
        self.limits = RateLimits(rates)
        self.quota_usd = quota_usd

    @property
    def is_spent(self) -> bool:
        """Whether its dollars are spent. Calls in flight may take it beyond."""
        return self.quota_usd is not None and self.spent_pico >= round(self.quota_usd * PICO)


@dataclass(slots=True)
class Admission:
    """A call that was let in, and what it holds until its end."""

    account: KeyAccount
    by: TokenAdmission
    reserved_pico: int
    reserved_tokens: int
    charged_tokens: int
    held: list[tuple[Limit, Charge]] = field(default_factory=list["tuple[Limit, Charge]"])


class Provider:
    """The limits, prices and accounts. A setting that is replaced holds for what comes from then on."""

    def __init__(
        self,
        rates: Rates,
        *,
        key_rates: Rates | None = None,
        key_quota_usd: float | None = None,
        admission: TokenAdmission = TokenAdmission.SETTLED,
        prices: Prices | None = None,
    ) -> None:
        self.limits = RateLimits(rates)
        self.admission = admission
        self.prices = prices or Prices()
        self.account = Account()
        self.accounts: dict[str, KeyAccount] = {}
        self._key_rates = key_rates or Rates()
        self._key_quota_usd = key_quota_usd

    def account_of(self, key: str) -> KeyAccount:
        """The key's account, which is opened when it is first heard of."""
        found = self.accounts.get(key)
        if found is None:
            if len(self.accounts) >= KEYS_MAX and key != OTHER_KEYS:
                return self.account_of(OTHER_KEYS)
            found = self.accounts[key] = KeyAccount(self._key_rates, self._key_quota_usd)
        return found

    def admit(
        self, key: str, input_tokens: int, output_tokens_max: int, now_s: float
    ) -> Admission | RateLimited | QuotaSpent:
        """Let a call in and charge it, or say what keeps it out; then nothing is charged."""
        account = self.account_of(key)
        if account.is_spent:
            return QuotaSpent()
        by_use = self.admission is TokenAdmission.USE
        most = input_tokens + output_tokens_max
        limits = (self.limits, account.limits)
        lacking = [one for each in limits if (one := each.lacking(1 if by_use else most, now_s)) is not None]
        if lacking:
            return max(lacking, key=lambda one: one.wait_s)
        reserved_pico = self.prices.pico(input_tokens, output_tokens_max)
        admitted = Admission(account, self.admission, reserved_pico, reserved := 0 if by_use else most, reserved)
        for each in limits:
            if each.requests is not None:
                each.requests.take(1, now_s)
            if each.tokens is not None and not by_use:
                admitted.held.append((each.tokens, each.tokens.take(most, now_s)))
        self.account.reserve(reserved_pico)
        account.reserve(reserved_pico)
        return admitted

    def settle(self, admitted: Admission, input_tokens: int, output_tokens: int, now_s: float) -> int:
        """The call has ended, having used so many tokens. Gives what it cost, in picodollars."""
        used = input_tokens + output_tokens
        match admitted.by:
            case TokenAdmission.SETTLED:
                for limit, charge in admitted.held:
                    limit.settle(charge, used, now_s)
                admitted.charged_tokens = used
            case TokenAdmission.USE:
                for each in (self.limits, admitted.account.limits):
                    if each.tokens is not None and used:
                        each.tokens.take(used, now_s)
                admitted.charged_tokens = used
            case TokenAdmission.MAX_TOKENS:
                pass
        pico = self.prices.pico(input_tokens, output_tokens)
        for account in (self.account, admitted.account):
            account.spend(admitted.reserved_pico, pico, input_tokens, output_tokens)
        return pico

    def as_json(self) -> dict[str, Any]:
        """The account of all keys together, and of each."""
        keys = {key: {**one.as_json(), "quota_usd": one.quota_usd} for key, one in self.accounts.items()}
        return {**self.account.as_json(), "keys": keys}


def _retuned(limit: Limit | None, rates: Rates, per_minute: int, now_s: float) -> Limit | None:
    if limit is None or not per_minute:
        return new_limit(rates.kind, per_minute, rates.burst_s)
    limit.retune(per_minute, rates.burst_s, now_s)
    return limit

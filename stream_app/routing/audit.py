"""An alarm over audited answers that may be looked at after every one of them. Pure.

A bound from a calibration sample says how often accepted answers are wrong there. In the stream a uniform share of
them is audited, and each audit adds or takes away evidence that the bound no longer holds. A fixed-size test,
looked at again and again, would cry wolf sooner or later; this one (an e-process: a wealth that bets against the
bound, and that nobody can expect to grow while the bound holds) may run for ever.
"""

from dataclasses import dataclass, field

BET_MAX = 0.5
"""The most of its wealth that a bet can lose: c of Timans et al."""
LATE_STAKE = 0.25
"""What is staked on a change that comes later. The first bettor learns from all losses, so after 2,000 good audits
as many bad ones must come to convince it; these forget. Their stake costs a few more audits where the risk was wrong
from the first on, and finds a later change in a half to an eighth of the time (`benchmarks/alarm.py`)."""
MEMORY_LOSSES = 10
"""The later bettors remember as many audits as bring so many losses at the bound, and one begins every so often."""


@dataclass(slots=True)
class RiskMonitor:
    """Watches whether the risk, the mean loss of an audited answer, is at most `bound`.

    While it is, and each audited answer is drawn without looking at it, P(there is ever an alarm) <= delta. A loss is
    1 for an audit that disagreed or had no answer, and 0 for one that agreed; anything between is allowed.

    After each loss l a bettor's wealth is multiplied by 1 + b * (l - bound), with b = clip((mu - bound) / (var + (mu
    - bound)^2), 0, c / bound), mu and var from earlier losses alone (Timans et al. 2025, arXiv 2506.16416). One
    bettor begins with the first audit and remembers all; its part of the stake is 1 - LATE_STAKE. The k-th later one
    begins with 1 / (k * (k + 1)) of the rest and goes by recent losses (bettors that share a stake, as the mixtures
    of Shin, Ramdas and Rinaldo 2022, arXiv 2203.03532). Under the bound nobody can expect all their wealth together
    to grow, so that it ever reaches 1 / delta has probability at most delta: Ville's inequality.
    """

    bound: float
    delta: float
    audited: int = 0
    lost: float = 0.0
    alarm: bool = False
    """Stays: evidence once sufficient is not taken back by later answers."""
    _squares: float = 0.0
    _first: float = 1.0
    _later: float = 0.0
    _begun: int = 0
    _recent: float = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError for a bound or delta that is no probability strictly between 0 and 1."""
        if not (0 < self.bound < 1 and 0 < self.delta < 1):
            raise ValueError(f"bound {self.bound} and delta {self.delta} must lie between 0 and 1")
        self._recent = self.bound

    @property
    def risk(self) -> float | None:
        """The mean loss so far; None before the first."""
        return self.lost / self.audited if self.audited else None

    @property
    def wealth(self) -> float:
        """What all bettors have together, of 1 at first: those to come have their stake still."""
        return (1 - LATE_STAKE) * self._first + LATE_STAKE * (self._later + 1 / (self._begun + 1))

    def observe(self, loss: float) -> bool:
        """Counts one audited answer's loss in [0, 1]. True if there is an alarm now, or was before."""
        if not 0 <= loss <= 1:
            raise ValueError(f"a loss of {loss} is not in [0, 1]")
        if self.audited >= self._begun * MEMORY_LOSSES / self.bound:
            self._begun += 1
            self._later += 1 / (self._begun * (self._begun + 1))
        beyond = loss - self.bound
        self._first *= 1 + self._bet() * beyond
        self._later *= 1 + self._bet_on(self._recent, self._recent * (1 - self._recent)) * beyond
        self._recent += (loss - self._recent) * self.bound / MEMORY_LOSSES
        self.audited += 1
        self.lost += loss
        self._squares += loss * loss
        self.alarm |= self.wealth >= 1 / self.delta
        return self.alarm

    def _bet(self) -> float:
        """By the losses before this one, and by one more that is just the bound's: nothing is known at first."""
        count = self.audited + 1
        mean = (self.lost + self.bound) / count
        return self._bet_on(mean, (self._squares + self.bound) / count - mean * mean)

    def _bet_on(self, mean: float, variance: float) -> float:
        above = mean - self.bound
        if above <= 0:
            return 0.0
        return min(above / (variance + above * above), BET_MAX / self.bound)

"""An alarm over audited answers that may be looked at after every one of them. Pure.

A bound from a calibration sample says how often accepted answers are wrong there. In the stream a uniform share of
them is audited, and each audit adds or takes away evidence that the bound no longer holds. A fixed-size test,
looked at again and again, would cry wolf sooner or later; this one (an e-process: a wealth that bets against the
bound, and that nobody can expect to grow while the bound holds) may run for ever.
"""

from dataclasses import dataclass

BET_MAX = 0.5
"""The most of its wealth that a bet can lose: c of Timans et al."""


@dataclass(slots=True)
class RiskMonitor:
    """Watches whether the risk, the mean loss of an audited answer, is at most `bound`.

    While it is, and each audited answer is drawn without looking at it, P(there is ever an alarm) <= delta. A loss is
    1 for an audit that disagreed or had no answer, and 0 for one that agreed; anything between is allowed.

    After each loss l the wealth is multiplied by 1 + b * (l - bound), with b = clip((mu - bound) / (var + (mu -
    bound)^2), 0, c / bound), mu and var from earlier losses alone (Timans et al. 2025, arXiv 2506.16416). That it
    ever reaches 1 / delta has probability at most delta under the bound: Ville's inequality.
    """

    bound: float
    delta: float
    audited: int = 0
    lost: float = 0.0
    wealth: float = 1.0
    alarm: bool = False
    """Stays: evidence once sufficient is not taken back by later answers."""
    _squares: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a bound or delta that is no probability strictly between 0 and 1."""
        if not (0 < self.bound < 1 and 0 < self.delta < 1):
            raise ValueError(f"bound {self.bound} and delta {self.delta} must lie between 0 and 1")

    @property
    def risk(self) -> float | None:
        """The mean loss so far; None before the first."""
        return self.lost / self.audited if self.audited else None

    def observe(self, loss: float) -> bool:
        """Counts one audited answer's loss in [0, 1]. True if there is an alarm now, or was before."""
        if not 0 <= loss <= 1:
            raise ValueError(f"a loss of {loss} is not in [0, 1]")
        self.wealth *= 1 + self._bet() * (loss - self.bound)
        self.audited += 1
        self.lost += loss
        self._squares += loss * loss
        self.alarm |= self.wealth >= 1 / self.delta
        return self.alarm

    def _bet(self) -> float:
        """By the losses before this one, and by one more that is just the bound's: nothing is known at first."""
        count = self.audited + 1
        mean = (self.lost + self.bound) / count
        above = mean - self.bound
        if above <= 0:
            return 0.0
        variance = (self._squares + self.bound) / count - mean * mean
        return min(above / (variance + above * above), BET_MAX / self.bound)

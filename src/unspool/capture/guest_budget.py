"""How often a guest is sampled: an uneven period, and a rate that falls when the guest would be held too long."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

JITTER = 0.25
"""A period is this much shorter or longer by chance, so that the samples do not fall in step with the guest's timer."""
_SMOOTHING = 0.05
_SAVED_SECONDS = 1.0
"""A guest that was left alone may be held for what it has saved in so long."""
_HOLDS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What sampling may cost a guest: `share` of its time, and seconds that one hold may last before the vCPU is let go unread."""

    share: float = 0.1
    longest: float = 0.05


@dataclass(slots=True)
class Budget:
    """The times at which to sample: `frequency` rounds a second where the guest's share allows it, fewer where it does not.

    What a round may cost is saved up at the rate of `limits.share`; one that costs more has the next wait. `held` is called with what each
    round has cost, `period` then gives the time to the next. All times are seconds.

    >>> budget = Budget(100, Limits(share=0.1))
    >>> for _ in range(200):
    ...     budget.held(0.002)
    ...     _ = budget.period()
    >>> 45 < budget.rate < 55
    True
    """

    frequency: float
    limits: Limits
    chance: random.Random = field(default_factory=random.Random)
    total: float = 0.0
    longest: float = 0.0
    _saved: float = 0.0
    _mean_period: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_HOLDS_KEPT))

    def held(self, seconds: float) -> None:
        """Note one round: for how long the guest stood still (one vCPU of several counts as its part)."""
        self.total += seconds
        self.longest = max(self.longest, seconds)
        self._recent.append(seconds)
        self._saved -= seconds

    @property
    def rate(self) -> float:
        """Rounds a second that are taken now."""
        return 1 / self._mean_period if self._mean_period else self.frequency

    @property
    def median(self) -> float:
        """The median of the recent rounds."""
        ordered = sorted(self._recent)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def period(self) -> float:
        """Seconds to the next round."""
        share = self.limits.share
        seconds = max(self.chance.uniform(1 - JITTER, 1 + JITTER) / self.frequency, -self._saved / share)
        self._saved = min(self._saved + share * seconds, share * _SAVED_SECONDS)
        self._mean_period += _SMOOTHING * (seconds - self._mean_period) if self._mean_period else seconds
        return seconds

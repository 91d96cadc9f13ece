"""How often a guest is sampled: an uneven period, and a rate that falls when the guest would be held too long."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

JITTER = 0.25
"""A period is this much shorter or longer by chance, so that the samples do not fall in step with the guest's timer."""
_SMOOTHING = 0.1
_HOLDS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What sampling may cost a guest: `share` of its time, and seconds that one hold may last before the vCPU is let go unread."""

    share: float = 0.1
    longest: float = 0.05


@dataclass(slots=True)
class Budget:
    """The times at which to sample, for `frequency` samples a second and vCPU where the guest's share allows it.

    `held` is called with what each round of samples has cost. All times are seconds.

    >>> budget = Budget(100, Limits(share=0.1))
    >>> for _ in range(100): budget.held(0.002)
    >>> round(budget.rate)
    50
    """

    frequency: float
    limits: Limits
    chance: random.Random = field(default_factory=random.Random)
    total: float = 0.0
    longest: float = 0.0
    rounds: int = 0
    _mean: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_HOLDS_KEPT))

    def held(self, seconds: float) -> None:
        """Note one round: for how long the guest stood still (one vCPU of several counts as its part)."""
        self.total += seconds
        self.longest = max(self.longest, seconds)
        self.rounds += 1
        self._recent.append(seconds)
        # The first rounds find nothing in any cache; a mean that starts with them alone would keep the rate low for a while.
        weight = max(_SMOOTHING, 1 / self.rounds)
        self._mean += weight * (seconds - self._mean)

    @property
    def rate(self) -> float:
        """Samples a second and vCPU that are taken now."""
        if self._mean * self.frequency <= self.limits.share:
            return self.frequency
        return self.limits.share / self._mean

    @property
    def median(self) -> float:
        """The median of the recent rounds."""
        ordered = sorted(self._recent)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def period(self) -> float:
        """Seconds from one sample to the next."""
        return self.chance.uniform(1 - JITTER, 1 + JITTER) / self.rate

"""How complete a profile is: what share of its samples is whole, why the rest is not, and which modules cause it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.model.verdict import Stop, Verdict
from unspool.profile.arrays import summed
from unspool.profile.columns import NONE, UNKNOWN, Profile, ending_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cause:
    """One stop: how many samples end with it, and the modules that made them do so (path, samples), most first. Ends have no module."""

    stop: Stop
    samples: int
    modules: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Numbers of samples: all, by ending, by verdict, by reason of an unreliable verdict, and by stop, most first."""

    samples: int
    whole: int
    cut: int
    none: int
    unknown: int
    verdicts: dict[Verdict, int]
    reasons: dict[Stop, int]
    causes: tuple[Cause, ...]

    def share(self, samples: int) -> float:
        """Part of all samples, between 0 and 1."""
        return samples / self.samples if self.samples else 0.0

    def stack_share(self, samples: int) -> float:
        """Part of the samples that have a user stack, between 0 and 1: threads of the kernel and exiting ones have none."""
        return samples / (self.samples - self.none) if self.samples > self.none else 0.0


def quality(profile: Profile) -> Quality:
    """How complete the profile is."""
    stacks = profile.stacks
    samples = summed(profile.counted.stack, profile.counted.count, len(stacks))
    by_stop = _by(stacks.stop, samples)
    endings = {"whole": 0, "cut": 0, "none": 0, UNKNOWN: 0}
    for stop, count in by_stop.items():
        endings[ending_of(Stop(stop))] += count
    verdicts = _by(stacks.verdict, samples)
    reasons = _by(stacks.reason, samples)
    return Quality(
        samples=profile.samples,
        **endings,
        verdicts={verdict: verdicts.get(verdict, 0) for verdict in Verdict},
        reasons={Stop(reason): count for reason, count in reasons.items() if reason != Stop.NONE},
        causes=tuple(Cause(Stop(stop), count, _modules(profile, samples, stop)) for stop, count in by_stop.items()),
    )


def _modules(profile: Profile, samples: Ints, stop: int) -> tuple[tuple[str, int], ...]:
    chosen = profile.stacks.stop == stop
    counts = _by(profile.stacks.stop_module[chosen], samples[chosen])
    return tuple((profile.modules[module].path, count) for module, count in counts.items() if module != NONE)


def _by(keys: Ints, samples: Ints) -> dict[int, int]:
    """The number of samples for each key that has any, most first."""
    import numpy as np

    counts = np.bincount(keys + 1, weights=samples, minlength=1).astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    return {int(key) - 1: int(counts[key]) for key in order if counts[key]}

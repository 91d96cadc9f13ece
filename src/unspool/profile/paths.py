"""Stacks as functions: every frame replaced by the calls behind it, inlined ones included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.profile.arrays import distinct, spans, summed
from unspool.profile.columns import Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Paths:
    """Stack i is the calls `entries[start[i]:start[i + 1]]`, innermost first, each an index into `Profile.entries`."""

    start: Ints
    entries: Ints

    @property
    def lengths(self) -> Ints:
        """The number of calls of each stack."""
        return self.start[1:] - self.start[:-1]


@dataclass(frozen=True, slots=True)
class FunctionTotals:
    """For each function of a profile, the weight of the samples it was running in (`own`) and was on the stack of (`total`)."""

    own: Ints
    total: Ints


def paths(profile: Profile) -> Paths:
    """Every stack of the profile as calls."""
    import numpy as np

    starts = profile.frames.entry_start
    lengths = (starts[1:] - starts[:-1])[profile.stacks.frames]
    entries = spans(starts[:-1][profile.stacks.frames], lengths)
    ends = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))
    return Paths(ends[profile.stacks.start], entries)


def function_totals(profile: Profile, of: Paths | None = None) -> FunctionTotals:
    """Own and total weight of each function; a recursive function counts once a sample."""
    import numpy as np

    of = of or paths(profile)
    size = len(profile.functions)
    weight = summed(profile.counted.stack, profile.counted.weight, len(profile.stacks))
    functions = profile.entries.function[of.entries]
    filled = (of.lengths > 0) & (weight != 0)
    own = summed(functions[of.start[:-1][filled]], weight[filled], size)
    used = np.repeat(weight != 0, of.lengths)
    stack_of = np.repeat(np.arange(len(profile.stacks), dtype=np.int64), of.lengths)
    pairs = distinct(stack_of[used] * size + functions[used])
    return FunctionTotals(own, summed(pairs % size, weight[pairs // size], size) if size else own)

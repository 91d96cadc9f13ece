"""What changed from one profile to another: shares of the whole, because two recordings never have the same number of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from unspool.profile.arrays import numbered
from unspool.profile.columns import NONE, Function, Profile
from unspool.profile.paths import function_totals

Key = tuple[str, str]

NAMELESS = "[no names]"
"""What stands for all functions of a module that have no name: their offsets differ from build to build."""


@dataclass(frozen=True, slots=True)
class Change:
    """A function's shares of all weight, between 0 and 1, before and after: running itself (`own`) and on the stack (`total`).

    The errors are the standard errors of the changes: two recordings of the same thing differ by about so much.
    """

    name: str
    module: str
    own_before: float
    own_after: float
    total_before: float
    total_after: float
    own_error: float = 0.0
    total_error: float = 0.0

    @property
    def own(self) -> float:
        """How much its own share grew."""
        return self.own_after - self.own_before

    @property
    def total(self) -> float:
        """How much its total share grew."""
        return self.total_after - self.total_before


def difference(before: Profile, after: Profile) -> list[Change]:
    """Every function of either profile, the largest change of its own share first.

    A function is known by its name and the file name of its module, not by path or build id: most often a new build is compared.
    """
    old, new = shares(before), shares(after)
    nothing = (0.0, 0.0)
    changes = []
    for key in {**old, **new}:
        (own_before, total_before), (own_after, total_after) = old.get(key, nothing), new.get(key, nothing)
        own_error = standard_error((own_before, before.samples), (own_after, after.samples))
        total_error = standard_error((total_before, before.samples), (total_after, after.samples))
        changes.append(Change(*key, own_before, own_after, total_before, total_after, own_error, total_error))
    return sorted(changes, key=lambda change: (-abs(change.own), -abs(change.total), change.name, change.module))


def standard_error(*measured: tuple[float, int]) -> float:
    """The standard error of the difference of shares that were measured with so many samples each (binomial, independent samples).

    >>> round(standard_error((0.5, 100), (0.5, 100)), 4)
    0.0707
    """
    return math.sqrt(sum(max(share * (1 - share), 0.0) / samples for share, samples in measured if samples))


def shares(profile: Profile) -> dict[Key, tuple[float, float]]:
    """Own and total share of each function that was on a stack."""
    keys, merged = _by_key(profile)
    totals = function_totals(merged)
    whole = profile.weight or 1
    return {keys[index]: (int(totals.own[index]) / whole, int(totals.total[index]) / whole) for index in totals.total.nonzero()[0].tolist()}


def _by_key(profile: Profile) -> tuple[list[Key], Profile]:
    """The profile with one function for each key: what is merged counts once a sample, like a recursive function."""
    places, keys = numbered(_key(profile, function) for function in profile.functions)
    functions = tuple(Function(name) for name, _ in keys)
    return keys, replace(profile, functions=functions, entries=replace(profile.entries, function=places[profile.entries.function]))


def _key(profile: Profile, function: Function) -> Key:
    module = "" if function.module == NONE else profile.modules[function.module].name
    return (function.name if function.named or not module else NAMELESS, module)

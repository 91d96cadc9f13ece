"""What changed from one profile to another: shares of the whole, because two recordings never have the same number of samples."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.profile.columns import NONE, Profile
from unspool.profile.paths import function_totals

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """A function's shares of all weight, between 0 and 1, before and after: running itself (`own`) and on the stack (`total`)."""

    name: str
    module: str
    own_before: float
    own_after: float
    total_before: float
    total_after: float

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
        changes.append(Change(*key, own_before, own_after, total_before, total_after))
    return sorted(changes, key=lambda change: (-abs(change.own), -abs(change.total), change.name, change.module))


def shares(profile: Profile) -> dict[Key, tuple[float, float]]:
    """Own and total share of each function that was on a stack."""
    totals = function_totals(profile)
    whole = profile.weight or 1
    found: dict[Key, tuple[float, float]] = {}
    for index in totals.total.nonzero()[0].tolist():
        function = profile.functions[index]
        key = (function.name, "" if function.module == NONE else profile.modules[function.module].name)
        own, total = found.get(key, (0.0, 0.0))
        found[key] = (own + int(totals.own[index]) / whole, total + int(totals.total[index]) / whole)
    return found

"""Sorting and grouping of integer columns, for arrays of millions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


Thing = TypeVar("Thing", bound=Hashable)


def numbered(things: Iterable[Thing]) -> tuple[Ints, list[Thing]]:
    """For each thing its place among the distinct ones, and those in the order they came; a single 0 where there are none, to be indexed.

    >>> places, distinct = numbered("abca")
    >>> places.tolist(), distinct
    ([0, 1, 2, 0], ['a', 'b', 'c'])
    """
    import numpy as np

    known: dict[Thing, int] = {}
    places = [known.setdefault(thing, len(known)) for thing in things]
    return np.array(places or [0], dtype=np.int64), list(known)


def distinct(keys: Ints) -> Ints:
    """The keys without repetition, sorted."""
    import numpy as np

    # np.unique of NumPy 2.4 needs ten times as long for six million keys.
    ordered = np.sort(keys)
    return ordered[_first_of_run(ordered)]


def grouped(keys: Ints) -> tuple[Ints, Ints]:
    """The distinct keys, sorted, and for each key its place among them."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = _first_of_run(ordered)
    places = np.empty(len(keys), dtype=np.int64)
    places[order] = np.cumsum(first) - 1
    return ordered[first], places


def summed(places: Ints, values: Ints, size: int) -> Ints:
    """The sum of the values at each place; exact, as sums of doubles are up to 2^53."""
    import numpy as np

    return np.bincount(places, weights=values, minlength=size).astype(np.int64)


def spans(starts: Ints, lengths: Ints) -> Ints:
    """The indices `starts[i] ... starts[i] + lengths[i] - 1` of every i, one after the other.

    >>> import numpy as np
    >>> spans(np.array([10, 20]), np.array([2, 3])).tolist()
    [10, 11, 20, 21, 22]
    """
    import numpy as np

    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.arange(total, dtype=np.int64) - np.repeat(before - starts, lengths)


def _first_of_run(ordered: Ints) -> NDArray[np.bool_]:
    import numpy as np

    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first

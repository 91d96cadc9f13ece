"""Each stack as the list of what a format writes for its frames or calls, and the samples of each thread, without work for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, count, pairwise
from operator import ne
from typing import TYPE_CHECKING, TypeVar

from unspool.profile.arrays import spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

T = TypeVar("T")

BLOCK = 1000
"""How many stacks are lists at one time: a list of Python's numbers needs five times the memory of the column."""


class Pieces(Sequence[list[T]]):
    """For stack i the things `of[numbers[start[i]:start[i + 1]]]`, innermost first."""

    def __init__(self, start: Ints, numbers: Ints, of: Sequence[T]) -> None:
        """Take the columns of `Stacks` or `Paths`, and what stands for each number."""
        import numpy as np

        self._start, self._numbers = start, numbers
        self._table = np.empty(len(of), dtype=object)
        self._table[:] = list(of)

    def __len__(self) -> int:
        """How many stacks."""
        return len(self._start) - 1

    def __getitem__(self, stack: int) -> list[T]:  # type: ignore[override]  # of one stack, never of a slice
        """The things of one stack."""
        found: list[T] = self._table[self._numbers[self._start[stack] : self._start[stack + 1]]].tolist()
        return found

    def of(self, stacks: Ints) -> Iterator[list[T]]:
        """The things of each of those stacks; in blocks, which is ten times as fast as one by one."""
        for place in range(0, len(stacks), BLOCK):
            chosen = stacks[place : place + BLOCK]
            starts = self._start[chosen]
            lengths = self._start[chosen + 1] - starts
            things = self._table[self._numbers[spans(starts, lengths)]].tolist()
            ends = lengths.cumsum().tolist()
            yield from (things[start:end] for start, end in pairwise([0, *ends]))


def in_common(left: Sequence[object], right: Sequence[object]) -> int:
    """How many things at the beginning are the same.

    >>> in_common("abc", "abd"), in_common("ab", "abc"), in_common("", "a")
    (2, 2, 0)
    """
    if left is right:
        return len(left)
    return next(compress(count(), map(ne, left, right)), min(len(left), len(right)))


def rows_of_each(numbers: Ints) -> Iterator[tuple[int, Ints]]:
    """Each number that occurs, ascending, and the rows that hold it, ascending.

    >>> import numpy as np
    >>> [(number, rows.tolist()) for number, rows in rows_of_each(np.array([2, 0, 2]))]
    [(0, [1]), (2, [0, 2])]
    """
    import numpy as np

    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    bounds = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if len(order):
        for start, end in pairwise([0, *bounds.tolist(), len(order)]):
            yield int(ordered[start]), order[start:end]

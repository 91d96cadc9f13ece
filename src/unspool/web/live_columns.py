"""Columns that grow: what came first stays where it is, so that a picture taken earlier stays true while more is appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST = 1024


class Growing:
    """A column of numbers; appending costs what is appended, on average."""

    def __init__(self, dtype: str = "int64") -> None:
        """Nothing is in it."""
        import numpy as np

        self._room: NDArray[Any] = np.empty(FIRST, dtype=dtype)
        self._used = 0

    def __len__(self) -> int:
        """How many numbers."""
        return self._used

    def append(self, values: NDArray[Any]) -> None:
        """Put these behind what is there."""
        import numpy as np

        end = self._used + len(values)
        if end > len(self._room):
            room = np.empty(max(end, 2 * len(self._room)), dtype=self._room.dtype)
            room[: self._used] = self._room[: self._used]
            self._room = room
        self._room[self._used : end] = values
        self._used = end

    def change(self, places: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Other numbers at some places; in a copy, because somebody may still read the old ones."""
        self._room = self._room.copy()
        self._room[places] = values

    @property
    def values(self) -> NDArray[Any]:
        """What is there now, to be read only."""
        return self._room[: self._used]


class Tally:
    """How many samples each key has, and their weight: sorted columns into which a batch is merged."""

    def __init__(self) -> None:
        """Nothing was counted."""
        import numpy as np

        self.keys = np.empty(0, dtype=np.int64)
        self.count = np.empty(0, dtype=np.int64)
        self.weight = np.empty(0, dtype=np.int64)

    def add(self, keys: NDArray[np.int64], weight: NDArray[np.int64]) -> None:
        """Count a batch of samples, a key each."""
        import numpy as np

        from unspool.profile.arrays import grouped, summed

        found, places = grouped(keys)
        count, heavy = summed(places, weight * 0 + 1, len(found)), summed(places, weight, len(found))
        at = np.searchsorted(self.keys, found)
        known = np.zeros(len(found), dtype=bool)
        inside = at < len(self.keys)
        known[inside] = self.keys[at[inside]] == found[inside]
        # Copies: a picture that was taken earlier holds the columns of its time.
        merged = self.count.copy(), self.weight.copy()
        merged[0][at[known]] += count[known]
        merged[1][at[known]] += heavy[known]
        fresh = ~known
        self.keys = np.insert(self.keys, at[fresh], found[fresh])
        self.count = np.insert(merged[0], at[fresh], count[fresh])
        self.weight = np.insert(merged[1], at[fresh], heavy[fresh])

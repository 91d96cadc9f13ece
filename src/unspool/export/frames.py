"""Which frames a profile's samples use, and the address that formats with mappings give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unspool.profile.arrays import spans
from unspool.profile.columns import NO_OFFSET, Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def used_frames(profile: Profile) -> NDArray[np.int64]:
    """The frames on stacks that have samples, ascending."""
    import numpy as np

    used = np.unique(profile.counted.stack)
    start = profile.stacks.start
    return np.unique(profile.stacks.frames[spans(start[used], start[used + 1] - start[used])])


def location_addresses(profile: Profile) -> NDArray[np.uint64]:
    """For each frame the byte of its file, so that it is the same in every process; without a file the address."""
    import numpy as np

    return np.where(profile.frames.offset == NO_OFFSET, profile.frames.address, profile.frames.offset)

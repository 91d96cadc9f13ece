"""The hardware's shadow stack beside an unwound one (rule R11): where they part."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.model.stack import Frame


def first_not_shadowed(frames: Sequence[Frame], shadow: Sequence[int]) -> int | None:
    """The first frame whose return address is not the next one on the shadow stack; None when all are.

    A signal's trampoline is on the shadow stack, and an exact frame here: it is passed over. A frame that is missing here is next there.
    """
    position = iter(shadow)
    passed: set[int] = set()
    for index, frame in enumerate(frames):
        if frame.exact or frame.trust.is_guess:
            passed.add(frame.ip)
            continue
        if next((address for address in position if address not in passed), None) != frame.ip:
            return index
    return None

"""A call stack as an unwinder leaves it: addresses with their trust, the stop, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from unspool.model.verdict import Judgement, Stop, Trust


class Frame(NamedTuple):
    """One frame. `ip` is the pc (frame 0, and the frame a signal interrupted) or the return address.

    `cfa` is None where no rule was found. `exact` says that `ip` is the very instruction and not the one after a call.
    """

    ip: int
    sp: int
    trust: Trust
    exact: bool = False
    cfa: int | None = None
    signal: bool = False

    @property
    def lookup_pc(self) -> int:
        """The address to look up: inside the call instruction for a return address. `pc - 1` anywhere else is a bug."""
        return self.ip if self.exact else self.ip - 1


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames, innermost first; why they end, in words in `detail`; and what may be believed of them."""

    frames: tuple[Frame, ...]
    stop: Stop
    judgement: Judgement
    detail: str = ""

"""What one walk may spend on unwind data: hostile data can make each of many frames as costly as the limits of one allow."""

from __future__ import annotations

from unspool.errors import BadInput

WALK = 1 << 21
"""Units of one walk. A unit is an opcode of a CFI program or an operation of an expression; all of them take about a second."""


class OverBudget(BadInput):
    """Unwind data that may be right, but is longer than any real one: PARSE_BUDGET, not BAD_CFI."""


class Budget:
    """Units that are left."""

    __slots__ = ("left",)

    def __init__(self, units: int = WALK) -> None:
        """A full budget."""
        self.left = units

    def spend(self, units: int) -> None:
        """Take units; OverBudget when there are not so many."""
        self.left -= units
        if self.left < 0:
            raise OverBudget("the unwind data of this stack needs more work than one walk may do")

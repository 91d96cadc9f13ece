"""The names behind an address, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbol:
    """One function at an address; `offset` is bytes from its start.

    Inlined calls give several, innermost first, `inlined` on all but the last.
    """

    function: str
    offset: int = 0
    file: str | None = None
    line: int | None = None
    inlined: bool = False


@dataclass(frozen=True, slots=True)
class Unnamed:
    """An address without a name, and the reason: shown as module+offset."""

    reason: str


Named = tuple[Symbol, ...] | Unnamed
"""What a symbolizer says of an address."""

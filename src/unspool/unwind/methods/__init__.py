"""The ways to find a caller: each finds a rule, none reads a stack but the guesses."""

from __future__ import annotations

from typing import Protocol


class CodeTest(Protocol):
    """What a guess asks of an address before it takes it for a return address."""

    def is_executable(self, address: int, /) -> bool:
        """Whether code may run there."""

    def is_call_site(self, ip: int, /) -> bool:
        """Whether a call instruction ends there."""

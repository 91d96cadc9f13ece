"""Names of code that a program made at run time, from its /tmp/perf-PID.map (Linux tools/perf/Documentation/jit-interface.txt)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

MAX_SIZE = 64 << 20
"""Bytes of a map that are read."""
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class JitSymbol:
    """One piece of compiled code: `[start, start + size)` in the program's memory (Avma)."""

    start: int
    size: int
    name: str


class PerfMap:
    r"""Compiled code by address. Lines "START SIZE name" in hexadecimal; a later line replaces an earlier one of the same start.

    The file is written by the program and never trusted: lines of another form are left out and counted in `skipped`.

    >>> PerfMap(b"7f00 10 py::main:/a b.py\nnonsense\n").find(0x7f08).name
    'py::main:/a b.py'
    """

    def __init__(self, text: bytes) -> None:
        """Read the text."""
        self.skipped = 0
        found: dict[int, tuple[int, bytes]] = {}
        for line in text[:MAX_SIZE].split(b"\n"):
            fields = line.split(None, 2)
            try:
                start, size = int(fields[0], 16), int(fields[1], 16)
                name = fields[2]
            except (IndexError, ValueError):
                self.skipped += bool(line)
                continue
            if start < 0 or size <= 0:
                self.skipped += 1
                continue
            found[start] = (size, name)
        self._starts = sorted(found)
        self._found = found

    def __len__(self) -> int:
        """Pieces of code."""
        return len(self._starts)

    def find(self, address: int) -> JitSymbol | None:
        """The code at the address, None when the map states none there."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start = self._starts[index]
        size, name = self._found[start]
        if address >= start + size:
            return None
        return JitSymbol(start, size, name[:_MAX_NAME].decode("utf-8", "replace"))

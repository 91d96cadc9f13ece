"""Which kernel module an address lies in, by the ranges of /proc/modules."""

from __future__ import annotations

from bisect import bisect_right

from unspool.capture.proc import read_file

KERNEL = "[kernel]"


class KernelModules:
    """The loaded kernel modules by address; their memory is one range each as far as /proc/modules tells."""

    def __init__(self, text: bytes) -> None:
        """Read the text of /proc/modules; lines without an address (no CAP_SYSLOG) are left out."""
        rows = []
        for line in text.splitlines():
            fields = line.split()
            try:
                start, size = int(fields[5], 16), int(fields[1])
            except (IndexError, ValueError):
                continue
            if start:
                rows.append((start, start + size, f"[{fields[0].decode('utf-8', 'replace')}]"))
        rows.sort()
        self._rows = rows
        self._starts = [row[0] for row in rows]

    @classmethod
    def loaded(cls) -> KernelModules:
        """Those that are loaded now."""
        return cls(read_file("/proc/modules") or b"")

    def find(self, address: int) -> str:
        """The module's name in brackets, "[kernel]" for the kernel itself.

        >>> KernelModules(b"ext4 4096 1 - Live 0xffffffffc0000000").find(0xffffffffc0000010)
        '[ext4]'
        """
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._rows[index][1]:
            return self._rows[index][2]
        return KERNEL

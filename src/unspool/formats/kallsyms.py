"""The kernel's functions, read from the text of /proc/kallsyms."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from unspool.errors import BadInput

MAX_SIZE = 256 << 20
# A function's size is not stated; no kernel function is larger, so what lies further from the last symbol is none of it.
_MAX_FUNCTION = 1 << 20


@dataclass(frozen=True, slots=True)
class KernelSymbol:
    """One kernel function: its start, and the module it is in ("" for vmlinux; "bpf" for BPF programs)."""

    address: int
    name: str
    module: str


class Kallsyms:
    """Kernel functions by address; only the lines that are looked up are decoded."""

    def __init__(self, text: bytes, *, file: str = "/proc/kallsyms") -> None:
        """Read the text; BadInput for a line that is none of "address type name [module]"."""
        if len(text) > MAX_SIZE:
            raise BadInput(f"{len(text)} bytes of kernel symbols", file=file)
        rows: list[tuple[int, bytes]] = []
        offset = 0
        for line in text.split(b"\n"):
            address, _, rest = line.partition(b" ")
            if rest[:1] in (b"t", b"T", b"w", b"W") and rest[1:2] == b" ":
                try:
                    rows.append((int(address, 16), rest))
                except ValueError:
                    raise BadInput("not a line of kallsyms", file=file, offset=offset) from None
            elif line and not rest:
                raise BadInput("not a line of kallsyms", file=file, offset=offset)
            offset += len(line) + 1
        rows.sort(key=lambda row: row[0])
        self._addresses = [address for address, _ in rows]
        self._lines = [line for _, line in rows]

    @property
    def hidden(self) -> bool:
        """Whether the kernel showed zeros for addresses: the reader lacked CAP_SYSLOG (kernel.kptr_restrict)."""
        return not self._addresses or self._addresses[-1] == 0

    def address(self, name: str) -> int | None:
        """Where the function of that name in vmlinux begins, None without one."""
        wanted = name.encode()
        places = (address for address, line in zip(self._addresses, self._lines, strict=True) if line[2:].strip() == wanted)
        return next(places, None)

    def find(self, address: int) -> KernelSymbol | None:
        """The function that the address lies in, None where there is none. Of aliases the first, as in the kernel's own traces (%pS)."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or self._addresses[index] == 0 or address - self._addresses[index] >= _MAX_FUNCTION:
            return None
        index = bisect_left(self._addresses, self._addresses[index])
        name, _, module = self._lines[index][2:].partition(b"\t")
        return KernelSymbol(
            self._addresses[index], name.strip().decode("utf-8", "replace"), module.strip(b"[] ").decode("utf-8", "replace")
        )

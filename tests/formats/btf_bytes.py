"""BTF written type by type (Documentation/bpf/btf.rst of the Linux sources)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, CONST = 1, 2, 3, 4, 5, 6, 8, 10
MAGIC = 0xEB9F


class BtfBytes:
    """Types in the order in which they are added; each call gives the type's id, `bytes()` the whole."""

    def __init__(self) -> None:
        """Start with void and the empty string."""
        self._types: list[bytes] = []
        self._strings = bytearray(b"\0")

    def int(self, name: str, size: int) -> int:
        """An integer."""
        return self._add(name, INT, 0, size, pack("<I", 8 * size))

    def ptr(self, to: int = 0) -> int:
        """A pointer."""
        return self._add("", PTR, 0, to)

    def array(self, of: int, count: int, index: int = 1) -> int:
        """An array."""
        return self._add("", ARRAY, 0, 0, pack("<III", of, index, count))

    def typedef(self, name: str, of: int) -> int:
        """A typedef."""
        return self._add(name, TYPEDEF, 0, of)

    def const(self, of: int) -> int:
        """A qualified type."""
        return self._add("", CONST, 0, of)

    def enum(self, name: str, values: dict[str, int]) -> int:
        """An enumeration of 32-bit values."""
        items = b"".join(pack("<Ii", self.string(key), value) for key, value in values.items())
        return self._add(name, ENUM, len(values), 4, items)

    def struct(self, name: str, size: int, members: Sequence[tuple[str, int, int] | tuple[str, int, int, int]], kind: int = STRUCT) -> int:
        """A struct (or union) of (name, type, bit offset[, bit-field width]); one width makes all offsets carry widths."""
        wide = any(len(member) == 4 for member in members)
        items = b""
        for member in members:
            bits = member[3] if len(member) == 4 else 0
            items += pack("<III", self.string(member[0]), member[1], member[2] | bits << 24 if wide else member[2])
        return self._add(name, kind, len(members), size, items, flag=wide)

    def string(self, text: str) -> int:
        """The string's offset."""
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1

    def __bytes__(self) -> bytes:
        """Header, types, strings."""
        types = b"".join(self._types)
        return pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings)) + types + bytes(self._strings)

    def _add(self, name: str, kind: int, count: int, size: int, rest: bytes = b"", *, flag: bool = False) -> int:
        self._types.append(pack("<III", self.string(name), count | kind << 24 | flag << 31, size) + rest)
        return len(self._types)

"""The kernel's symbol table as scripts/kallsyms.c of each age of Linux writes it, label by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from struct import pack


class Age(Enum):
    """The layouts."""

    OLD = auto()
    """To 6.0: offsets, relative base, count, names, markers, tokens, index; per-CPU addresses absolute."""
    SEQUENCES = auto()
    """6.1 to 6.3: the same with kallsyms_seqs_of_names before the tokens."""
    NEW = auto()
    """6.4 to 6.14: count, names, markers, tokens, index, offsets, relative base; per-CPU addresses absolute."""
    NEW_RELATIVE = auto()
    """6.15: the same, all offsets counting up from the relative base."""
    SELF_RELATIVE = auto()
    """7.x: the same without a base: each offset counts from its own place; aligned to 4."""


Row = tuple[int, str, str]
# Tokens of several letters, at numbers that no letter of a name has.
LONG_TOKENS = {1: "func", 2: "tion_", 3: "__", 4: "kallsyms_", 130: "start", 255: "nel"}


def token_table() -> list[str]:
    """256 tokens: each letter for itself, some longer ones, the rest empty."""
    return [LONG_TOKENS.get(code, chr(code) if 33 <= code < 127 else "") for code in range(256)]


def compress(text: str) -> bytes:
    """The name as token numbers, longest tokens first, behind its length."""
    codes, at = bytearray(), 0
    longest = sorted(LONG_TOKENS.items(), key=lambda item: -len(item[1]))
    while at < len(text):
        code, token = next(((code, token) for code, token in longest if text.startswith(token, at)), (ord(text[at]), text[at]))
        codes.append(code)
        at += len(token)
    length = bytes([len(codes)]) if len(codes) < 128 else bytes([len(codes) & 0x7F | 0x80, len(codes) >> 7])
    return length + bytes(codes)


@dataclass
class Table:
    """The table's bytes, to be placed at `address`, and the address of each of its labels."""

    address: int
    align: int = 8
    data: bytearray = field(default_factory=bytearray)
    labels: dict[str, int] = field(default_factory=dict)

    def put(self, label: str, content: bytes) -> None:
        """Add a part."""
        self.data += bytes(-len(self.data) % self.align)
        self.labels[label] = self.address + len(self.data)
        self.data += content


def kallsyms(rows: Sequence[Row], address: int, age: Age, relative_base: int) -> Table:
    """The symbols, sorted by address, as one table at `address`."""
    table = Table(address, 4 if age is Age.SELF_RELATIVE else 8)
    names = [compress(kind + name) for _, kind, name in rows]
    if age in {Age.OLD, Age.SEQUENCES}:
        _put_offsets(table, rows, age, relative_base)
    table.put("kallsyms_num_syms", pack("<I", len(rows)))
    table.put("kallsyms_names", b"".join(names))
    table.put("kallsyms_markers", b"".join(pack("<I", sum(map(len, names[:first]))) for first in range(0, len(names), 256)))
    if age is Age.SEQUENCES:
        order = sorted(range(len(rows)), key=lambda index: rows[index][2])
        table.put("kallsyms_seqs_of_names", b"".join(index.to_bytes(3, "big") for index in order))
    tokens = [token.encode() + b"\0" for token in token_table()]
    table.put("kallsyms_token_table", b"".join(tokens))
    table.put("kallsyms_token_index", b"".join(pack("<H", sum(map(len, tokens[:code]))) for code in range(256)))
    if age not in {Age.OLD, Age.SEQUENCES}:
        _put_offsets(table, rows, age, relative_base)
    return table


def _put_offsets(table: Table, rows: Sequence[Row], age: Age, base: int) -> None:
    table.put("kallsyms_offsets", bytes(4 * len(rows)))
    start = table.labels["kallsyms_offsets"]
    content = b""
    for index, (address, _, _) in enumerate(rows):
        if age is Age.SELF_RELATIVE:
            offset = address - (start + 4 * index)
        elif age is Age.NEW_RELATIVE:
            offset = address - base
        else:
            offset = address if address < 1 << 31 else base - 1 - address
        content += (offset & 0xFFFF_FFFF).to_bytes(4, "little")
    table.data[start - table.address :] = content
    if age is not Age.SELF_RELATIVE:
        table.put("kallsyms_relative_base", pack("<Q", base))

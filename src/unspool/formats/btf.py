"""BTF, the kernel's own description of its types: where a member of a struct lies.

The format is Documentation/bpf/btf.rst of the Linux sources. One pass over the types notes where each one stands; everything else is
decoded when it is asked for.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct as Layout
from struct import error as struct_error

from unspool.errors import BadInput

MAX_SIZE = 64 << 20
MAX_TYPES = 1 << 19
"""Four times what Linux 7.2 has."""
_MAGIC = 0xEB9F
_HEADER = Layout("<HBBIIIII")
_TYPE = Layout("<III")
_MEMBER = Layout("<III")
_ARRAY = Layout("<III")
# Members looked at for one name: no struct has as many, and anonymous structs that hold each other end.
_MAX_MEMBERS = 50_000
# A name stands once in the strings; and no kernel has as many constants in all its enumerations.
_MAX_REPEATS = 16
_MAX_CONSTANTS = 1 << 20
_MAX_CHAIN = 64
_WORD = 8

_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FLOAT, _TYPE_TAG, _ENUM64 = 16, 18, 19
_MODIFIERS = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
# Bytes after the 12 of every type: a fixed part, and a part for each of its `vlen` items.
_TAIL = {
    _INT: (4, 0), _PTR: (0, 0), _ARRAY_KIND: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8), _FWD: (0, 0), _TYPEDEF: (0, 0),
    _VOLATILE: (0, 0), _CONST: (0, 0), _RESTRICT: (0, 0), 12: (0, 0), 13: (0, 8), 14: (4, 0), 15: (0, 12), _FLOAT: (0, 0), 17: (4, 0),
    _TYPE_TAG: (0, 0), _ENUM64: (0, 12),
}  # fmt: skip
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[\d+\])*)\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """A member's place from the start of its struct, in bits; `bits` is the width of a bit field, 0 for any other member.

    `size` is the member's size in bytes (of a bit field: of its declared type).
    """

    bit_offset: int
    bits: int
    size: int
    type_id: int

    @property
    def offset(self) -> int:
        """Bytes from the struct's start to the byte that holds the member's first bit."""
        return self.bit_offset // 8


class Struct:
    """A struct or union by its name; members are named by paths such as `mm.owner`, `mem[0].base`, anonymous members left out."""

    def __init__(self, btf: Btf, name: str, type_id: int) -> None:
        """Look at the type; `Btf.struct` makes these."""
        self.name = name
        self._btf = btf
        self._id = type_id
        self._found: dict[str, Member | None] = {}

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._btf.size_of(self._id)

    def find(self, path: str) -> Member | None:
        """The member, None when this kernel's struct has none of that name."""
        if path not in self._found:
            self._found[path] = self._btf.member(self._id, path)
        return self._found[path]

    def member(self, path: str) -> Member:
        """The member; BadInput names it when there is none."""
        found = self.find(path)
        if found is None:
            raise BadInput(f"struct {self.name} has no member {path}", file="BTF")
        return found

    def offset(self, path: str) -> int:
        """Bytes from the struct's start to the member; BadInput when there is none, or when it is a bit field."""
        found = self.member(path)
        if found.bits:
            raise BadInput(f"member {path} of struct {self.name} is a bit field", file="BTF")
        return found.offset


class Btf:
    """The types of one kernel (`[__start_BTF, __stop_BTF)`); offsets are bytes, ids as in the format (0 is void)."""

    def __init__(self, data: bytes) -> None:
        """Note where every type stands; BadInput when the bytes are no BTF."""
        if len(data) > MAX_SIZE:
            raise BadInput(f"{len(data)} bytes of BTF", file="BTF")
        try:
            magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
        except struct_error:
            raise BadInput("no BTF header", file="BTF", offset=0) from None
        if magic != _MAGIC or version != 1:
            raise BadInput("no BTF of version 1", file="BTF", offset=0)
        self._types = data[header + type_at : header + type_at + type_size]
        self._strings = data[header + string_at : header + string_at + string_size]
        if len(self._types) != type_size or len(self._strings) != string_size:
            raise BadInput("BTF is cut short", file="BTF", offset=len(data))
        self._named: dict[int, int] = {}
        self._enums: list[int] = []
        self._at = self._index()
        self._structs: dict[str, Struct] = {}

    def __len__(self) -> int:
        """How many types there are, void included."""
        return len(self._at)

    @property
    def size(self) -> int:
        """The bytes of memory that the types take, about."""
        return len(self._types) + len(self._strings) + 4 * len(self._at) + 100 * len(self._named)

    def has(self, name: str) -> bool:
        """Whether there is a struct or union of that name."""
        return self._struct_id(name) is not None

    def struct(self, name: str) -> Struct:
        """The struct or union of that name; BadInput when there is none."""
        found = self._structs.get(name)
        if found is None:
            type_id = self._struct_id(name)
            if type_id is None:
                raise BadInput(f"there is no struct {name}", file="BTF")
            found = self._structs[name] = Struct(self, name, type_id)
        return found

    def enumerator(self, name: str) -> int | None:
        """The value of an enumeration's constant (of 32 bits), None when there is none of that name."""
        wanted, budget = set(self._string_offsets(name)), _MAX_CONSTANTS
        for type_id in self._enums if wanted else ():
            at, count = self._at[type_id] + 12, self._info(type_id)[1]
            budget -= count
            if budget < 0:
                return None
            for item in range(at, at + 8 * count, 8):
                if int.from_bytes(self._types[item : item + 4], "little") in wanted:
                    return int.from_bytes(self._types[item + 4 : item + 8], "little", signed=True)
        return None

    def member(self, type_id: int, path: str) -> Member | None:
        """The member of a struct or union by its path, None when a step of it is missing."""
        bit_offset, found = 0, None
        for step in path.split("."):
            match = _STEP.match(step)
            if match is None:
                return None
            found = self._step(self._plain(type_id), match[1])
            if found is None:
                return None
            for index in re.findall(r"\d+", match[2]):
                found = self._element(found, int(index))
                if found is None:
                    return None
            bit_offset += found.bit_offset
            type_id = found.type_id
        return None if found is None else Member(bit_offset, found.bits, found.size, found.type_id)

    def size_of(self, type_id: int) -> int:
        """A type's size in bytes; 0 for void, functions and types that end nowhere."""
        count = 1
        for _ in range(_MAX_CHAIN):
            type_id = self._plain(type_id)
            kind, _, size = self._info(type_id)
            if kind == _PTR:
                return count * _WORD
            if kind in {_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT}:
                return count * size
            if kind != _ARRAY_KIND:
                return 0
            type_id, _, elements = _ARRAY.unpack_from(self._types, self._at[type_id] + 12)
            count *= elements
        return 0

    def _index(self) -> array[int]:
        """The offset of every type by its id, from one pass; also which structs and enumerations have names."""
        types, at, end = self._types, 0, len(self._types)
        unpack, tail = _TYPE.unpack_from, _TAIL
        found = array("I", [0])
        while at < end:
            try:
                name, info, _ = unpack(types, at)
                fixed, item = tail[info >> 24 & 31]
            except (struct_error, KeyError):
                raise BadInput("not a type of BTF", file="BTF", offset=at) from None
            kind = info >> 24 & 31
            if kind in {_STRUCT, _UNION} and name:
                self._named.setdefault(name, len(found))
            elif kind == _ENUM:
                self._enums.append(len(found))
            found.append(at)
            at += 12 + fixed + item * (info & 0xFFFF)
            if len(found) > MAX_TYPES:
                raise BadInput("too many types", file="BTF", offset=at)
        if at != end:
            raise BadInput("the last type is cut short", file="BTF", offset=end)
        return found

    def _info(self, type_id: int) -> tuple[int, int, int]:
        """Kind, number of items, and size (or the type it refers to); kind 0 for void and ids that do not exist."""
        if not 0 < type_id < len(self._at):
            return 0, 0, 0
        _, info, size = _TYPE.unpack_from(self._types, self._at[type_id])
        return info >> 24 & 31, info & 0xFFFF, size

    def _plain(self, type_id: int) -> int:
        """The type without typedefs and qualifiers."""
        for _ in range(_MAX_CHAIN):
            kind, _, target = self._info(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target
        return 0

    def _step(self, type_id: int, name: str) -> Member | None:
        """A struct's member by its name, looked for in its anonymous members too."""
        budget, todo = _MAX_MEMBERS, [(type_id, 0)]
        while todo:
            struct, base = todo.pop()
            for offset, member_name, member_type, bits in self._members(struct):
                budget -= 1
                if budget < 0:
                    return None
                if not member_name:
                    todo.append((self._plain(member_type), base + offset))
                elif self._is(member_name, name):
                    return Member(base + offset, bits, self.size_of(member_type), member_type)
        return None

    def _members(self, type_id: int) -> Iterator[tuple[int, int, int, int]]:
        """Bit offset, name, type and bit-field width of every member."""
        kind, count, _ = self._info(type_id)
        if kind not in {_STRUCT, _UNION}:
            return
        at = self._at[type_id]
        # The kind flag says that a member's offset carries a bit-field width in its top byte.
        flagged = self._types[at + 7] & 0x80
        for item in range(at + 12, at + 12 + 12 * count, 12):
            name, member_type, offset = _MEMBER.unpack_from(self._types, item)
            yield (offset & 0xFFFFFF, name, member_type, offset >> 24) if flagged else (offset, name, member_type, 0)

    def _element(self, member: Member, index: int) -> Member | None:
        """One element of a member that is an array; None when it has no such element."""
        type_id = self._plain(member.type_id)
        if self._info(type_id)[0] != _ARRAY_KIND:
            return None
        element, _, count = _ARRAY.unpack_from(self._types, self._at[type_id] + 12)
        size = self.size_of(element)
        return Member(member.bit_offset + 8 * size * index, 0, size, element) if index < max(count, 1) else None

    def _is(self, offset: int, name: str) -> bool:
        return self._strings.startswith(name.encode() + b"\0", offset)

    def _struct_id(self, name: str) -> int | None:
        return next((self._named[at] for at in self._string_offsets(name) if at in self._named), None)

    def _string_offsets(self, name: str) -> Iterator[int]:
        """The offsets at which the string stands whole."""
        wanted, at = b"\0" + name.encode() + b"\0", 0
        for _ in range(_MAX_REPEATS):
            at = self._strings.find(wanted, at)
            if at < 0:
                return
            yield at + 1
            at += 1

"""Protocol buffers' wire format for what a profile has most of: samples and stacks, which are dear as message objects."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

BYTES = 2
"""The wire type of what has a length: messages, packed numbers."""
_SMALL = [bytes((number,)) for number in range(128)]


def varint(number: int) -> bytes:
    r"""A number of 64 bits, seven to a byte, lowest first; negative ones as two's complement.

    >>> varint(300), len(varint(-1))
    (b'\xac\x02', 10)
    """
    return _SMALL[number] if 0 <= number < len(_SMALL) else _long(number & 2**64 - 1)


# The same few periods and sizes come again and again.
@lru_cache(1 << 14)
def _long(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def field(number: int, content: bytes) -> bytes:
    r"""A field that has a length.

    >>> field(2, b"ab")
    b'\x12\x02ab'
    """
    return _SMALL[number << 3 | BYTES] + varint(len(content)) + content


def packed(number: int, values: Iterable[int]) -> bytes:
    """A field of packed numbers; nothing when there are none."""
    content = b"".join(map(varint, values))
    return field(number, content) if content else b""

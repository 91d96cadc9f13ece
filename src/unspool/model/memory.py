"""Memory of a process, a core dump or a copied stack, as an unwinder reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Memory(Protocol):
    """Bytes by address. A read gives all the bytes asked for or None: no 0 for unreadable, no short answers."""

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at `address` (an Avma), or None when any of them cannot be read."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """One range of memory that is held as bytes, starting at `start`."""

    start: int
    data: bytes

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at `address`, or None when they do not all lie in the range."""
        offset = address - self.start
        if offset < 0 or size < 0 or offset + size > len(self.data):
            return None
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Layered:
    """Several memories, asked in order: the first that can answer a read answers it."""

    layers: Sequence[Memory]

    def read(self, address: int, size: int) -> bytes | None:
        """The first layer's bytes, or None when no layer has them."""
        for layer in self.layers:
            data = layer.read(address, size)
            if data is not None:
                return data
        return None

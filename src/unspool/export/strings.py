"""Tables in which each thing stands once, as most formats have them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Numbered(Generic[T]):
    """Things in the order in which they came, each once; `first` is what stands at number 0, where a format reserves it."""

    def __init__(self, *first: T) -> None:
        """Start with the reserved ones."""
        self.things: list[T] = list(first)
        self._numbers = {thing: number for number, thing in enumerate(first)}

    def number(self, thing: T) -> int:
        """The thing's number."""
        number = self._numbers.setdefault(thing, len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number

    def __len__(self) -> int:
        """How many."""
        return len(self.things)

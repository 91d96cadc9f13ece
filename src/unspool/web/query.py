"""The parameters of an address: filters under the names the command line gives them, and the choices of a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from unspool.errors import BadRequest
from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import UNKNOWN
from unspool.profile.filters import MODES, Filter

T = TypeVar("T")
ENDINGS = ("whole", "cut", "none", UNKNOWN)
MOST = 1000
"""More values than this of one parameter are refused."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters as they came: name and value, each name any number of times."""

    pairs: tuple[tuple[str, str], ...]

    def check(self, allowed: Iterable[str]) -> None:
        """BadRequest for a name that the view does not know: a misspelt filter must not show everything."""
        unknown = {name for name, _ in self.pairs} - set(allowed) - set(FILTERS)
        if unknown:
            raise BadRequest(f"unknown parameter {min(unknown)!r}")
        if len(self.pairs) > MOST:
            raise BadRequest(f"more than {MOST} parameters")

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of that name."""
        return tuple(value for key, value in self.pairs if key == name)

    def one(self, name: str, default: str = "") -> str:
        """The last value of that name."""
        return (self.all(name) or (default,))[-1]

    def listed(self, name: str, kind: Callable[[str], T]) -> tuple[T, ...]:
        """The values of a parameter that takes lists: `cpu=0,1&cpu=2`."""
        return tuple(self._value(name, kind, part) for value in self.all(name) for part in value.split(",") if part)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number between two others."""
        value = self._value(name, int, self.one(name, str(default)))
        if not low <= value <= high:
            raise BadRequest(f"{name} takes a number from {low} to {high}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some words, the first one when nothing is said."""
        value = self.one(name, choices[0])
        if value not in choices:
            raise BadRequest(f"{name} takes one of {', '.join(choices)}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """0 or 1."""
        return self.choice(name, ("1", "0") if default else ("0", "1")) == "1"

    def filter(self) -> Filter:
        """The filter they ask for."""
        return Filter(
            pids=self.listed("pid", int),
            tids=self.listed("tid", int),
            comms=self.all("comm"),
            modules=self.all("module"),
            triggers=self.all("on"),
            cpus=self.listed("cpu", int),
            verdicts=self.listed("verdict", lambda text: Verdict[text.upper()]),
            endings=self.listed("ending", _ending),
            stops=self.listed("stop", Stop.of),
            since=self._seconds("from"),
            until=self._seconds("to"),
            guests=self.all("guest"),
            vcpus=self.listed("vcpu", int),
            kernels=self.all("kernel"),
            cgroups=self.all("cgroup"),
            modes=self.listed("mode", _mode),
        )

    def _seconds(self, name: str) -> float | None:
        text = self.one(name)
        if not text:
            return None
        value = self._value(name, float, text)
        # Also what is no number: nan compares with nothing.
        if not abs(value) < 1e9:
            raise BadRequest(f"{name} takes seconds")
        return value

    @staticmethod
    def _value(name: str, kind: Callable[[str], T], text: str) -> T:
        try:
            return kind(text)
        except (KeyError, ValueError):
            raise BadRequest(f"{text[:80]!r} is not one of the values that {name} takes") from None


FILTERS = (
    "pid",
    "tid",
    "comm",
    "module",
    "on",
    "cpu",
    "verdict",
    "ending",
    "stop",
    "from",
    "to",
    "guest",
    "vcpu",
    "kernel",
    "mode",
    "cgroup",
)


def _mode(text: str) -> str:
    if text not in MODES:
        raise ValueError
    return text


def _ending(text: str) -> str:
    if text not in ENDINGS:
        raise ValueError
    return text

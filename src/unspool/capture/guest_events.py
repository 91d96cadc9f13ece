"""What a guest's sampler tells the recorder, as messages over a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from unspool.capture.guest_budget import Budget
from unspool.capture.guest_channel import Channel, Closed, Message
from unspool.capture.guest_wire import BadAnswer, Failed, GuestStack, KernelFound, checked_kernel, checked_stack, stack_to_wire


@dataclass(frozen=True, slots=True)
class Ready:
    """The guest can be sampled: how its registers and memory are read."""

    registers_by: str
    memory_by: str
    accel: str


@dataclass(frozen=True, slots=True)
class CannotSample:
    """The guest cannot be sampled at all, and what the user can do about it."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel was found."""

    generation: int
    found: KernelFound


@dataclass(frozen=True, slots=True)
class Sample:
    """A stack of the kernel told last."""

    time_ns: int
    vcpu: int
    stack: GuestStack


@dataclass(frozen=True, slots=True)
class Names:
    """Functions (address looked up, name, offset in it) of the kernel told last."""

    names: list[tuple[int, str, int]]


@dataclass(frozen=True, slots=True)
class File:
    """The bytes of a module; `descriptor` belongs to whom gets this."""

    module: int
    descriptor: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """Totals: counters, and for how many seconds the guest was held in all, in the median round and at most; the rate that is kept now."""

    counters: dict[str, int]
    held: float
    median: float
    longest: float
    rate: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The sampler ends; the reason is "" when it was told to."""

    reason: str


Event = Ready | CannotSample | Kernel | Sample | Names | File | Counted | Ended


class EventSender:
    """The sampler's end: an `Outlet` that writes messages. Closed when the recorder is gone."""

    def __init__(self, channel: Channel) -> None:
        """Send through that channel."""
        self._channel = channel

    def ready(self, ready: Ready) -> None:
        """Say that sampling begins."""
        self._channel.send_value({"type": "ready", "by": [ready.registers_by, ready.memory_by, ready.accel]})

    def cannot(self, message: str, hint: str) -> None:
        """Say that nothing can be sampled."""
        self._channel.send_value({"type": "cannot", "message": message, "hint": hint})

    def kernel(self, generation: int, found: KernelFound) -> None:
        """Send a kernel."""
        fields = {name: getattr(found, name) for name in ("release", "version", "build_id", "base", "symbols", "missing")}
        self._channel.send_value({"type": "kernel", "generation": generation, "kernel": fields})

    def sample(self, time_ns: int, vcpu: int, stack: GuestStack) -> None:
        """Send a sample."""
        self._channel.send_value({"type": "sample", "time": time_ns, "vcpu": vcpu, "stack": stack_to_wire(stack)})

    def names(self, names: list[tuple[int, str, int]]) -> None:
        """Send names."""
        self._channel.send_value({"type": "names", "names": names})

    def file(self, module: int, descriptor: int, *, whole: bool) -> None:
        """Send a file's bytes, and close our descriptor of them."""
        try:
            self._channel.send_value({"type": "file", "module": module, "whole": whole}, [descriptor])
        finally:
            os.close(descriptor)

    def count(self, counters: dict[str, int], budget: Budget) -> None:
        """Send the totals."""
        held = [budget.total, budget.median, budget.longest, budget.rate]
        self._channel.send_value({"type": "count", "counters": counters, "held": held})

    def ended(self, reason: str) -> None:
        """Say that nothing more comes."""
        self._channel.send_value({"type": "ended", "reason": reason})


def events(messages: list[Message]) -> Iterator[Event]:
    """The events in messages of a sampler: it is a process of ours and has checked what it passes on, so a wrong one is Closed."""
    for message in messages:
        try:
            yield _event(message)
        except (BadAnswer, KeyError, TypeError, ValueError) as error:
            raise Closed("a message that is none of a sampler's") from error


def _event(message: Message) -> Event:
    fields = message.value()
    if not isinstance(fields, dict):
        raise TypeError
    match fields["type"]:
        case "sample":
            stack = checked_stack(fields["stack"])
            if isinstance(stack, Failed):
                raise TypeError
            return Sample(fields["time"], fields["vcpu"], stack)
        case "names":
            return Names([(address, name, offset) for address, name, offset in fields["names"]])
        case "file":
            return File(fields["module"], message.descriptors[0], fields["whole"])
        case "kernel":
            found = checked_kernel(fields["kernel"])
            if isinstance(found, Failed):
                raise TypeError
            return Kernel(fields["generation"], found)
        case "count":
            return Counted(fields["counters"], *fields["held"])
        case "ready":
            return Ready(*fields["by"])
        case "cannot":
            return CannotSample(fields["message"], fields["hint"])
        case "ended":
            return Ended(fields["reason"])
        case _:
            raise ValueError

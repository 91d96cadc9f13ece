"""A virtual machine of this host, as a recording knows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

HOST = "[host]"
"""What stands for this machine where guests have their names."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest from one boot to the next: `generation` counts them, from 1. What is not known is empty or 0.

    `name` is what its VMM calls it; `vmm_pid` and `vmm_start_ns` (since boot) are the VMM's process on the host.
    `registers_by` and `memory_by` say how its registers and memory were read, `accel` what runs its code (`kvm`, `tcg`).
    `twin`: another VMM has a guest of the same name, so that the name alone says too little (`told_apart`).
    """

    name: str
    vmm_pid: int
    vmm_start_ns: int = 0
    generation: int = 1
    uuid: str = ""
    kernel_release: str = ""
    kernel_build_id: str = ""
    accel: str = ""
    registers_by: str = ""
    memory_by: str = ""
    twin: bool = False

    @property
    def title(self) -> str:
        """The name, with the VMM's pid when another guest has the same name.

        >>> Guest("web", 1234).title, Guest("web", 1234, twin=True).title
        ('web', 'web@1234')
        """
        return f"{self.name}@{self.vmm_pid}" if self.twin else self.name

    @property
    def boot(self) -> str:
        """The title with the number of the boot: what a filter takes for this row alone.

        >>> Guest("web", 1234).boot
        'web#1'
        """
        return f"{self.title}#{self.generation}"

    @property
    def label(self) -> str:
        """The title, with the generation when the guest was booted again.

        >>> Guest("web", 1234).label, Guest("web", 1234, generation=2).label
        ('web', 'web#2')
        """
        return self.title if self.generation == 1 and self.name != HOST else self.boot

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a filter may call it; another guest, or another boot, may have some of them too."""
        return self.name, f"{self.name}#{self.generation}", self.title, self.boot, self.uuid, str(self.vmm_pid)


def told_apart(guests: Iterable[Guest]) -> tuple[Guest, ...]:
    """The same guests, those marked as twins whose name another VMM's guest has too.

    >>> [guest.label for guest in told_apart([Guest("web", 1), Guest("web", 1, generation=2), Guest("db", 2), Guest("db", 3)])]
    ['web', 'web#2', 'db@2', 'db@3']
    """
    guests, owners = tuple(guests), defaultdict(set)
    for guest in guests:
        owners[guest.name].add((guest.vmm_pid, guest.vmm_start_ns))
    return tuple(replace(guest, twin=len(owners[guest.name]) > 1) for guest in guests)

"""A virtual machine of this host, as a recording knows it."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "[host]"
"""What stands for this machine where guests have their names."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest from one boot to the next: `generation` counts them, from 1. What is not known is empty or 0.

    `name` is what its VMM calls it; `vmm_pid` and `vmm_start_ns` (since boot) are the VMM's process on the host.
    `registers_by` and `memory_by` say how its registers and memory were read, `accel` what runs its code (`kvm`, `tcg`).
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

    @property
    def label(self) -> str:
        """The name, with the generation when the guest was booted again.

        >>> Guest("web", 1234).label, Guest("web", 1234, generation=2).label
        ('web', 'web#2')
        """
        return self.name if self.generation == 1 and self.name != HOST else f"{self.name}#{self.generation}"

"""What a recording asks of the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from unspool.capture.triggers import Trigger
from unspool.model.verdict import PROOFS, Trust

RING_BYTES = 1 << 23
"""Room for records between two drains: 8 MB hold 17,000 samples of 50 frames, and there are 20 drains a second."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which threads are sampled, by what trigger, how often.

    `pids` and `tids` are numbers in our own PID namespace; with neither, the whole machine but ourselves is sampled. `follow`: children of
    `pids` are sampled too. `frequency` is in samples a second and CPU, for the trigger `cpu`, which counts hardware cycles where
    `hardware` is set and the machine has them. `ring_bytes` is a power of two, at least a page. `methods`: the unwind data that may be
    used, SFrame first.
    """

    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    trigger: Trigger = field(default_factory=Trigger)
    frequency: int = 99
    follow: bool = True
    kernel_frames: bool = True
    hardware: bool = True
    ring_bytes: int = RING_BYTES
    methods: frozenset[Trust] = PROOFS

    @property
    def everything(self) -> bool:
        """Whether the whole machine is asked for."""
        return not self.pids and not self.tids

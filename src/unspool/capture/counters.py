"""What the sampler counts, by name: the numbers are those of `enum counter` in native/record.h."""

from __future__ import annotations

import enum


class Counter(enum.IntEnum):
    """One total. Every sample taken is emitted, lost (its name begins with LOST_) or still waits for its deferred walk."""

    SAMPLES = 0
    EMITTED = 1
    LOST_RING_FULL = 2
    LOST_NO_SCRATCH = 3
    LOST_NESTED = 4
    IDLE = 5
    FILTERED = 6
    NO_USER_STACK = 7
    EXITED = 8
    COMPAT = 9
    DEFERRED = 10
    DEFERRED_DONE = 11
    DEFERRED_BUSY = 12
    DEFERRED_FAILED = 13
    DEFERRED_FULL = 14
    DEFERRED_NO_SLOT = 15
    DEFERRED_CHANGED = 16
    PENDING_EXIT = 17
    PENDING_FLUSHED = 18
    PENDING_STOLEN = 19
    ROW_HITS = 20
    ROW_MISSES = 21
    MAPPING_HITS = 22
    MAPPING_WALKS = 23
    MAPPING_RACES = 24
    MODULE_HITS = 25
    MODULE_MISSES = 26
    INHERITED = 27
    NOT_FOLLOWED = 28
    PROGRAM_PERF = 29
    PROGRAM_SYSCALL = 30

    @property
    def label(self) -> str:
        """The name in recordings and JSON.

        >>> Counter.LOST_RING_FULL.label
        'lost-ring-full'
        """
        return self.name.lower().replace("_", "-")

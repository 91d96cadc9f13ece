"""What the sampler counts, by name: the numbers are those of `enum counter` in native/record.h."""

from __future__ import annotations

import enum


class Counter(enum.IntEnum):
    """One total. Every sample taken is emitted, lost (its name begins with LOST_) or still waits for its deferred walk."""

    SAMPLES = 0
    EMITTED = 1
    LOST_RING_FULL = 2
    LOST_NO_SCRATCH = 3
    IDLE = 4
    FILTERED = 5
    NO_USER_STACK = 6
    EXITED = 7
    COMPAT = 8
    DEFERRED = 9
    DEFERRED_DONE = 10
    DEFERRED_BUSY = 11
    DEFERRED_FAILED = 12
    DEFERRED_FULL = 13
    DEFERRED_NO_SLOT = 14
    DEFERRED_CHANGED = 15
    PENDING_EXIT = 16
    PENDING_FLUSHED = 17
    PENDING_STOLEN = 18
    ROW_HITS = 19
    ROW_MISSES = 20
    MAPPING_HITS = 21
    MAPPING_WALKS = 22
    MAPPING_RACES = 23
    MODULE_HITS = 24
    MODULE_MISSES = 25
    PROGRAM_PERF = 26
    PROGRAM_SYSCALL = 27

    @property
    def label(self) -> str:
        """The name in recordings and JSON.

        >>> Counter.LOST_RING_FULL.label
        'lost-ring-full'
        """
        return self.name.lower().replace("_", "-")

"""Why an address has no name: each sentence is explained, with what mends it, in docs/symbols.md."""

from __future__ import annotations

import enum

from unspool.model.symbol import Unnamed


class Reason(enum.StrEnum):
    """The sentences of `Unnamed.reason`; some are followed by ": " and a detail."""

    NOT_MAPPED = "nothing is mapped there"
    ANONYMOUS = "no file is behind this memory"
    UNKNOWN_FILE = "the file was never found"
    FILE_UNREACHABLE = "the file cannot be opened"
    NOT_PERMITTED = "the file may not be opened"
    NOT_REGULAR = "what is mapped is not a regular file"
    FILE_CHANGED = "the file was replaced after it was mapped"
    OTHER_BUILD = "the file at this path is another build"
    TOO_LARGE = "the file is too large"
    BAD_FILE = "the file is broken"
    NOT_IN_FILE = "the file has nothing at this address"
    STRIPPED = "the file has no symbols"
    NO_SYMBOL = "no symbol covers this address"
    PARSER_DIED = "the parser died on this file"
    KERNEL_HIDDEN = "kernel addresses are hidden"
    NO_KERNEL_SYMBOL = "no kernel symbol covers this address"
    NO_JIT_NAME = "the perf map has no name for this code"
    NO_JIT_MAP = "no usable perf map for this code"

    def because(self, detail: str = "") -> Unnamed:
        """An address without a name for this reason."""
        return Unnamed(f"{self.value}: {detail}" if detail else self.value)

"""What can go wrong with a user's request; what concerns one pc, frame or sample is a value, never one of these.

UnspoolError            every error below; str() is one sentence, `hint` says what to do
├── BadInput            a file or memory holds bytes that break its format: names file and offset
├── NotPermitted        the kernel refused: which capability is missing
├── NoSuchTarget        the process, thread, file or function that was asked for is not there
├── Unsupported         this kernel, machine or build cannot do it
├── BadRequest          arguments that contradict each other or name nothing
└── RecordingError      a recording that cannot be written or read
"""

from __future__ import annotations


class UnspoolError(Exception):
    """An error that ends the user's request, with a hint that says what to do about it."""

    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Take the sentence, and a hint better than the class's own."""
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class BadInput(UnspoolError):
    """Bytes that break their format: what is wrong, in which file, at which offset (bytes from the file's or section's start)."""

    def __init__(self, what: str, *, file: str = "", offset: int | None = None, hint: str | None = None) -> None:
        """Compose "file: what at 0x1d0"."""
        place = "" if offset is None else f" at {offset:#x}"
        super().__init__(f"{file}: {what}{place}" if file else f"{what}{place}", hint=hint)
        self.what = what
        self.file = file
        self.offset = offset

    def within(self, file: str) -> BadInput:
        """The same error with the file's name, for a reader that was given bytes only."""
        return BadInput(self.what, file=self.file or file, offset=self.offset, hint=self.hint or None)


class NotPermitted(UnspoolError):
    """The kernel refused a call for want of privilege."""

    hint = "Run as root, or grant CAP_BPF and CAP_PERFMON (and CAP_SYS_PTRACE for other users' processes)."


class NoSuchTarget(UnspoolError):
    """The process, thread, file or function that was asked for is not there."""


class Unsupported(UnspoolError):
    """This kernel, machine or build cannot do what was asked for."""

    hint = "`unspool doctor` shows what this machine can do."


class BadRequest(UnspoolError):
    """Arguments that contradict each other or name nothing."""


class RecordingError(UnspoolError):
    """A recording that cannot be written or read."""

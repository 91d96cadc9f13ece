"""Text and files that a command writes: stdout whatever its encoding, files whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from unspool.errors import BadRequest


def write_lines(lines: Iterable[str]) -> None:
    """Print lines; what the terminal's encoding cannot show is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """A line on stderr, as `write_stderr` writes."""
    write_stderr(f"{line}\n")


def write_stderr(text: str) -> None:
    """Write to stderr; that the terminal is gone, or the disk of a log is full, ends no work."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let a stream that cannot be written end in nothing: what it still holds is not tried again at the exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Send bytes to stdout."""
    sys.stdout.flush()
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file: beside its place first, and put there by a rename when it is complete. A pipe or device is written to as it is."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadRequest(f"{path} is a directory", hint="Name a file with -o.")
        if not stat.S_ISREG(mode):
            try:
                with path.open("wb") as device:
                    device.writelines(chunks)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise _unwritten(path, error) from error
            return
    # It loads OpenSSL: 10 ms that no other command has to wait for.
    import secrets

    partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(chunks)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> BadRequest:
    return BadRequest(f"{path} cannot be written: {error.strerror}", hint="Choose another place with -o.")

"""Names of code that a running program compiled, from the perf map it keeps: read only when it can have come from that program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unspool.formats.perf_map import MAX_SIZE, PerfMap
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.symbols.demangle import demangled
from unspool.symbols.files import NotRegular, open_in_root
from unspool.symbols.reasons import Reason


@dataclass(frozen=True, slots=True)
class JitNames:
    """A `NameTable` of compiled code by its address in the program (Avma)."""

    perf_map: PerfMap

    def name(self, address: int) -> Named:
        """What the program says it compiled to that address. A claim: it names a frame and never makes a stack more trustworthy."""
        found = self.perf_map.find(address)
        return Reason.NO_JIT_NAME.because() if found is None else (Symbol(demangled(found.name), address - found.start),)


def jit_names(pid: int) -> JitNames | Unnamed:
    """The names in /tmp/perf-PID.map below the process's root, under its number in its own namespace; or why they cannot be used.

    The file must be regular, no symbolic link, have one name, belong to the process's user or to root, and be at most 64 MiB:
    anybody can write to /tmp.
    """
    try:
        status = dict(_status(pid))
        path = f"/tmp/perf-{status['NSpid'].split()[-1]}.map"  # noqa: S108 (the interface's own path)
        owners = {0, int(status["Uid"].split()[1])}
        data = _read(pid, path, owners)
    except NotRegular as error:
        return Reason.NO_JIT_MAP.because(str(error))
    except FileNotFoundError:
        return Reason.NO_JIT_MAP.because("the program writes none")
    except (OSError, KeyError, IndexError, ValueError) as error:
        return Reason.NO_JIT_MAP.because(str(getattr(error, "strerror", "") or error))
    return JitNames(PerfMap(data))


def _read(pid: int, path: str, owners: set[int]) -> bytes:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_in_root(root, path, follow=False, max_size=MAX_SIZE)
    finally:
        os.close(root)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid not in owners:
            raise NotRegular(f"{path} belongs to user {facts.st_uid}")
        if facts.st_nlink != 1:
            raise NotRegular(f"{path} has {facts.st_nlink} names")
        return file.read(MAX_SIZE)


def _status(pid: int) -> Iterator[tuple[str, str]]:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            key, value = line.split(":", 1)
            yield key, value

"""Lines and inlined calls by elfutils' eu-addr2line, for files that dwz has taken parts out of: `symbolic` does not read those."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.sandbox import NOBODY
from unspool.symbols.demangle import demangled, without_clone_mark
from unspool.symbols.files import OpenFile

_TOOL = "eu-addr2line"
_MEMORY = 2 << 30
_MAX_OUTPUT = 64 << 20
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_PLACE = re.compile(r"(.*?):(\d+)(?::\d+)?(?: \(.*\))?")


@cache
def available() -> bool:
    """Whether the tool is installed (Debian: elfutils)."""
    return shutil.which(_TOOL) is not None


def with_lines(file: OpenFile, addresses: Sequence[int], names: list[Named], *, timeout: float) -> list[Named]:
    """The names with the tool's lines and inlined calls added, 2 ms an address; as they were when the tool fails. `addresses` are Svmas."""
    try:
        process = subprocess.run(
            [_TOOL, "-a", "-f", "-i", "-e", f"/proc/self/fd/{file.descriptor}", *(hex(address) for address in addresses)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(file.descriptor,),
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            timeout=timeout,
            check=False,
            preexec_fn=_limit,
        )
    except (OSError, subprocess.SubprocessError):
        return names
    answers = _parsed(process.stdout[:_MAX_OUTPUT].decode("utf-8", "replace"))
    if len(answers) != len(addresses):
        return names
    return [_joined(name, calls) for name, calls in zip(names, answers, strict=True)]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_OUTPUT, _MAX_OUTPUT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _parsed(output: str) -> list[list[tuple[str, str | None, int | None]]]:
    """For each address its calls (function, file, line), innermost first: after the address two lines a call."""
    answers: list[list[tuple[str, str | None, int | None]]] = []
    function = None
    for line in output.splitlines():
        if function is None and _ADDRESS.fullmatch(line):
            answers.append([])
        elif function is None:
            function = line
        elif answers:
            place = _PLACE.fullmatch(line)
            file, number = (place[1], int(place[2])) if place else ("??", 0)
            # "f inlined at a.c:3 in g" names the caller, which the next two lines state again.
            answers[-1].append((function.partition(" inlined at ")[0], None if file == "??" else file, number or None))
            function = None
    return answers


def _joined(name: Named, calls: list[tuple[str, str | None, int | None]]) -> Named:
    if not calls or calls[-1][0] == "??":
        return name
    *inlined, (function, file, line) = calls
    offset = 0 if isinstance(name, Unnamed) else name[-1].offset
    return (
        *(Symbol(_shown(inner), 0, path, number, inlined=True) for inner, path, number in inlined),
        Symbol(_shown(function), offset, file, line),
    )


def _shown(name: str) -> str:
    return demangled(without_clone_mark(name))

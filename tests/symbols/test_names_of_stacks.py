"""The names on the stacks of live processes, inlined calls included, are those that gdb shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from peer_stacks import TIMEOUT
from stack_targets import TARGETS
from target_programs import Programs

from unspool.session.stacks import stacks_of

pytestmark = pytest.mark.live

Call = tuple[int, bool, str | None]
"""Address, whether inlined, name."""

LOST_ON_GDB = ("deleted", "replaced", "memfd", "no section headers")
"""gdb 13 opens the program's file by its path and reads its sections: these stacks it cuts after three frames."""

SCRIPT = """
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() != gdb.TAILCALL_FRAME:
            print("FRAME", thread.ptid[1], "%x" % frame.pc(), int(frame.type() == gdb.INLINE_FRAME), frame.name())
        frame = frame.older()
"""


def by_gdb(pid: int) -> dict[int, list[Call]]:
    command = [
        "gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
        "-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on", "-ex", "set backtrace limit unlimited",
        "-p", str(pid), "-ex", f"python exec({SCRIPT!r})",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    stacks: dict[int, list[Call]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("FRAME "):
            _, tid, address, inlined, name = line.split(" ", 4)
            stacks.setdefault(int(tid), []).append((int(address, 16), inlined == "1", None if name == "None" else alike(name)))
    return stacks


def alike(name: str) -> str:
    """The name without what the demanglers of GNU and LLVM write differently: closing brackets and lambdas."""
    name = re.sub(r"\{lambda(\([^)]*\))#\d+\}|'lambda\d*'(\([^)]*\))", lambda found: f"lambda{found[1] or found[2]}", name)
    return name.replace("> >", ">>").replace("> >", ">>").replace("&&&", "&").replace("&&", "&")


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in LOST_ON_GDB])
def test_names_are_those_of_gdb(name: str, programs: Programs, tmp_path: Path) -> None:
    with TARGETS[name](programs, tmp_path) as process:
        ours = {
            thread.tid: [
                (frame.frame.ip, bool(call and call.inlined), alike(call.function) if call else None)
                for frame in thread.frames
                for call in frame.calls()
            ]
            for thread in stacks_of(process.pid).threads
        }
        assert by_gdb(process.pid) == ours

"""The stacks of a live process as gdb and elfutils' eu-stack see them: addresses by thread, innermost first."""

from __future__ import annotations

import re
import subprocess

TIMEOUT = 300

GDB_SCRIPT = """
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    addresses = []
    frame = gdb.newest_frame()
    while frame is not None:
        # Inlined functions and tail callers are worked out from debug information; they are no frames on the stack.
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            addresses.append("%x" % frame.pc())
        frame = frame.older()
    print("THREAD", thread.ptid[1], *addresses)
"""


def gdb_stacks(pid: int) -> dict[int, list[int]]:
    """What gdb says: addresses by thread."""
    command = [
        "gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
        "-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on", "-ex", "set backtrace limit unlimited",
        "-p", str(pid), "-ex", f"python exec({GDB_SCRIPT!r})",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("THREAD ")]
    assert lines, f"gdb said:\n{done.stdout}\n{done.stderr}"
    return {int(words[1]): [int(word, 16) for word in words[2:]] for words in lines}


def eu_stacks(pid: int) -> dict[int, list[int]]:
    """What eu-stack says: addresses by thread."""
    done = subprocess.run(["eu-stack", "-n", "0", "-q", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    stacks: dict[int, list[int]] = {}
    frames: list[int] = []
    for line in done.stdout.splitlines():
        if found := re.match(r"TID (\d+):", line):
            frames = stacks[int(found[1])] = []
        elif found := re.match(r"#\d+ +0x([0-9a-f]+)", line):
            frames.append(int(found[1], 16))
    assert stacks, f"eu-stack said:\n{done.stdout}\n{done.stderr}"
    return stacks

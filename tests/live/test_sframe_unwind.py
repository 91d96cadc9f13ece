"""System programs and libraries converted by `unspool sframe make`: unwound through .sframe alone, the stacks are those through CFI."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sframe_toolchain import Toolchain

from unspool.cli.main import main
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit
from unspool.unwind.api import Unwinder
from unspool.unwind.policy import Method, Policy

pytestmark = pytest.mark.live

LIBRARIES = ("libc.so.6", "libm.so.6", "libtinfo.so.6", "libz.so.1", "libexpat.so.1", "libcrypt.so.1")
FOLDER = Path("/lib/x86_64-linux-gnu")

PYTHON = """
import sys, threading
def down(n):
    if n: return down(n - 1)
    print("ready", flush=True)
    return sys.stdin.read()
threading.Thread(target=lambda: sorted([1, 2], key=lambda _: down(10)), daemon=True).start()
threading.Event().wait()
"""
COMMANDS = {
    "/usr/bin/bash": ["-c", "f() { if [ $1 = 0 ]; then echo ready; read line; else f $(($1 - 1)); fi; }; f 20"],
    "/usr/bin/perl": ["-e", "$| = 1; sub f { my $n = shift; $n ? f($n - 1) : sub { print qq(ready\\n); <STDIN> }->() } f(30)"],
    "/usr/bin/python3.11": ["-c", PYTHON],
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the converted programs and libraries."""
    folder = tmp_path_factory.mktemp("sframe")
    for file in [*map(Path, COMMANDS), *(FOLDER / name for name in LIBRARIES)]:
        if file.exists():
            assert 0 == main(["sframe", "make", str(file), "-o", str(folder / file.name)])
    return folder


@contextmanager
def waiting(folder: Path, program: str) -> Iterator[int]:
    """The converted program, blocked at the bottom of its recursion; its pid."""
    command = [str(folder / Path(program).name), *COMMANDS[program]]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            settle(process.pid)
            yield process.pid
        finally:
            process.kill()


def settle(pid: int) -> None:
    """Wait until every thread sleeps."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        states = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
            except OSError:
                states.append("gone")
        if all(state == "S" for state in states):
            return
        time.sleep(0.01)


def unwound(pid: int, *methods: Method) -> list[Stack]:
    """Every thread's stack by these methods alone."""

    def look(visited: Visited) -> Stack:
        assert isinstance(visited.thread, Thread)
        return Unwinder(Policy(methods=frozenset(methods))).unwind(visited.thread)

    return visit(Process(pid), look)


@pytest.mark.parametrize("program", COMMANDS)
def test_stacks_through_sframe_are_those_through_cfi(program: str, converted: Path) -> None:
    """Frame by frame and in the verdict; the ends keep their own kind."""
    if not (converted / Path(program).name).exists():
        pytest.skip(f"{program} is not installed")
    with waiting(converted, program) as pid:
        through_cfi, through_sframe = unwound(pid, Method.CFI), unwound(pid, Method.SFRAME)
        both = unwound(pid, Method.SFRAME, Method.CFI)
    assert len(through_cfi) == len(through_sframe)
    assert max(len(stack.frames) for stack in through_cfi) > 10
    for cfi, sframe, mixed in zip(through_cfi, through_sframe, both, strict=True):
        assert [frame.ip for frame in cfi.frames] == [frame.ip for frame in sframe.frames] == [frame.ip for frame in mixed.frames]
        assert Stop.END_SFRAME_OUTER is sframe.stop
        assert cfi.stop.is_end
        assert Verdict.RELIABLE is cfi.judgement.verdict is sframe.judgement.verdict
        assert {Trust.SFRAME} == {frame.trust for frame in sframe.frames[1:]}
        assert {Trust.CFI} == {frame.trust for frame in cfi.frames[1:]}


def test_what_the_toolchain_built_is_unwound_through_its_sframe(toolchain: Toolchain) -> None:
    """GNU ld's sections as they are: the program's frames by SFrame, the rest by CFI."""
    source = """
    #include <stdio.h>
    #include <unistd.h>
    static volatile int sink;
    __attribute__((noinline)) int down(int n) {
        if (n == 0) { puts("ready"); fflush(stdout); return getchar(); }
        int below = down(n - 1);
        sink += below;
        return below;
    }
    int main(void) { return down(1000); }
    """
    program = toolchain.build(source, "x86_64")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            settle(process.pid)
            (mixed,), (cfi,) = unwound(process.pid, Method.SFRAME, Method.CFI), unwound(process.pid, Method.CFI)
        finally:
            process.kill()
    assert [frame.ip for frame in cfi.frames] == [frame.ip for frame in mixed.frames]
    assert 999 <= sum(frame.trust is Trust.SFRAME for frame in mixed.frames) < len(mixed.frames) - 1
    assert Verdict.RELIABLE is mixed.judgement.verdict


HOST = """
#include <dlfcn.h>
#include <stdio.h>
__attribute__((noinline)) int in_host(int (*next)(int), int n) { int r = next(n); return r + n; }
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW);
        if (!library) { puts(dlerror()); return 1; }
        int (*enter)(int) = (int (*)(int))dlsym(library, "enter");
        in_host(enter, 30);
        dlclose(library);
    }
    return 0;
}
"""
PLUGIN = """
#include <stdio.h>
static volatile int sink;
__attribute__((noinline)) int enter(int n) {
    volatile char room[SIZE];
    room[0] = (char)n;
    if (n == 0) { puts("ready"); fflush(stdout); return getchar() + room[0]; }
    int below = enter(n - 1);
    sink += below;
    return below + room[0];
}
"""


def test_libraries_that_come_and_go(toolchain: Toolchain) -> None:
    """Dlopen and dlclose: each library's own section is asked, also where the next one lies at the address of the last."""
    host = toolchain.build(HOST, "x86_64", ("-O2", "-ldl"))
    plugins = [toolchain.build(PLUGIN, "x86_64", ("-O2", f"-DSIZE={size}", "-shared", "-fPIC")) for size in (40, 4000)]
    with subprocess.Popen([host, *plugins], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            for plugin in plugins:
                assert process.stdout.readline() == b"ready\n"
                settle(process.pid)
                (mixed,), (cfi,) = unwound(process.pid, Method.SFRAME, Method.CFI), unwound(process.pid, Method.CFI)
                assert [frame.ip for frame in cfi.frames] == [frame.ip for frame in mixed.frames]
                assert sum(frame.trust is Trust.SFRAME for frame in mixed.frames) >= 30, plugin
                assert Verdict.RELIABLE is mixed.judgement.verdict
                process.stdin.write(b"x")
                process.stdin.flush()
        finally:
            process.kill()

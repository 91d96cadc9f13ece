"""Programs that wait at a known place, each hard for an unwinder in its own way: started and ready when the block begins."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from target_programs import Programs, running, wait_asleep, wait_until

from unspool.targets import procfs

Started = subprocess.Popen[bytes]
Target = Callable[[Programs, Path], contextlib.AbstractContextManager[Started]]

BASH = 'f() { if [ "$1" -gt 0 ]; then f $(($1 - 1)); else echo ready; read -r line; fi; }; f 12'
PERL = "sub f { my $n = shift; if ($n) { f($n - 1); } else { $| = 1; print qq(ready\\n); <STDIN>; } } f(12)"
PYTHON = """
import threading, time
def down(n, last):
    return down(n - 1, last) if n else last()
lock = threading.Lock(); lock.acquire()
for last in (lock.acquire, lambda: time.sleep(10000), lambda: sorted([2, 1], key=lambda _: lock.acquire())):
    threading.Thread(target=down, args=(7, last)).start()
print("ready", flush=True)
input()
"""


def built(name: str, *flags: str, arguments: tuple[str, ...] = ()) -> Target:
    """A program of tests/programs."""

    @contextlib.contextmanager
    def start(programs: Programs, _: Path) -> Iterator[Started]:
        with running(programs.build(name, *flags), *arguments) as process:
            yield asleep(process)

    return start


def command(*words: str) -> Target:
    """A program of this machine."""

    @contextlib.contextmanager
    def start(_: Programs, __: Path) -> Iterator[Started]:
        with running(*words) as process:
            yield asleep(process)

    return start


def asleep(process: Started) -> Started:
    """The same when all its threads sleep: then its stacks stay what they are."""
    for tid in procfs.thread_ids(process.pid):
        wait_asleep(process.pid, tid)
    return process


@contextlib.contextmanager
def sqlite3(_: Programs, folder: Path) -> Iterator[Started]:
    """sqlite3 within a function of a query, in open() of a FIFO that nobody writes."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    query = f"select upper(hex(readfile('{fifo}'))) from (select 1 order by random())"
    with subprocess.Popen(["sqlite3", ":memory:", query], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            # openat is system call 257 (arch/x86/entry/syscalls/syscall_64.tbl); the file shows it only while the thread sleeps in it.
            wait_until(lambda: in_syscall(process.pid, 257, fifo), "sqlite3 to open the FIFO")
            yield process
        finally:
            process.kill()


def in_syscall(pid: int, number: int, fifo: Path) -> bool:
    """Whether the process sleeps in that call on the FIFO: loading a library calls openat, too, but never waits for a partner."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
        if words[0] != str(number):
            return False
        path = os.pread(memory := os.open(f"/proc/{pid}/mem", os.O_RDONLY), len(str(fifo)), int(words[2], 16))
        os.close(memory)
        return path == os.fsencode(fifo)
    return False


@contextlib.contextmanager
def lazy_resolver(programs: Programs, _: Path) -> Iterator[Started]:
    """A function's first call, within the dynamic linker's resolver."""
    library = programs.build("lazy_library.c", "-O2", "-shared", "-fPIC")
    with running(programs.build("lazy_plt.c", "-O2", "-Wl,-z,lazy", str(library))) as process:
        yield asleep(process)


@contextlib.contextmanager
def deleted(programs: Programs, folder: Path) -> Iterator[Started]:
    """A program whose file is gone."""
    path = Path(shutil.copy(programs.build("deep.c", "-O2"), folder / "deleted"))
    with running(path) as process:
        path.unlink()
        yield asleep(process)


@contextlib.contextmanager
def replaced(programs: Programs, folder: Path) -> Iterator[Started]:
    """A program in whose place another file lies now."""
    path = Path(shutil.copy(programs.build("deep.c", "-O2"), folder / "replaced"))
    with running(path) as process:
        path.unlink()
        shutil.copy(programs.build("threads.c", "-O2"), path)
        yield asleep(process)


@contextlib.contextmanager
def from_memory(programs: Programs, _: Path) -> Iterator[Started]:
    """A program that lies in no file system (memfd_create)."""
    descriptor = os.memfd_create("unspool")
    os.write(descriptor, programs.build("deep.c", "-O2").read_bytes())
    with running(f"/proc/{os.getpid()}/fd/{descriptor}") as process:
        os.close(descriptor)
        yield asleep(process)


@contextlib.contextmanager
def other_mount_namespace(programs: Programs, folder: Path) -> Iterator[Started]:
    """A program that only exists in its own mount namespace."""
    script = 'mount -t tmpfs none "$1" && cp "$0" "$1/inside" && exec "$1/inside"'
    with running("unshare", "-m", "sh", "-c", script, str(programs.build("deep.c", "-O2")), str(folder)) as process:
        assert not (folder / "inside").exists()
        yield asleep(process)


@contextlib.contextmanager
def no_section_headers(programs: Programs, folder: Path) -> Iterator[Started]:
    """A program of which only the loaded segments are left."""
    data = bytearray(programs.build("deep.c", "-O2").read_bytes())
    # struct Elf64_Ehdr: e_shoff at 40; e_shentsize, e_shnum and e_shstrndx from 58 on.
    data[40:48] = bytes(8)
    data[58:64] = bytes(6)
    path = folder / "headless"
    path.write_bytes(data)
    path.chmod(0o755)
    with running(path) as process:
        yield asleep(process)


TARGETS: dict[str, Target] = {
    "python3": command("/usr/bin/python3", "-c", PYTHON),
    "bash": command("bash", "-c", BASH),
    "perl": command("perl", "-e", PERL),
    "sqlite3": sqlite3,
    "threads": built("threads.c", "-O2", arguments=("4",)),
    "frame pointers": built("deep.c", "-O0", "-fno-omit-frame-pointer"),
    "deep": built("deep.c", "-O2", arguments=("2000",)),
    "not position independent": built("deep.c", "-O2", "-no-pie"),
    "static": built("deep.c", "-O2", "-static"),
    "static-pie": built("deep.c", "-O2", "-static-pie"),
    "C++": built("recursion.cc", "-O2", arguments=("500",)),
    "C++ static": built("recursion.cc", "-O2", "-static", arguments=("50",)),
    "signals on an alternate stack": built("altstack.c", "-O2"),
    "signals, static": built("altstack.c", "-O2", "-static"),
    "DRAP": built("drap.c", "-O2", "-fomit-frame-pointer", "-mavx2"),
    "DRAP at -O0": built("drap.c", "-O0"),
    "lazy resolver": lazy_resolver,
    "deleted": deleted,
    "replaced": replaced,
    "memfd": from_memory,
    "mount namespace": other_mount_namespace,
    "no section headers": no_section_headers,
}
"""Every target by its name."""

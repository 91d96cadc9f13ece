"""Target programs of the tests: built once from `tests/programs`, started, waited for until they are ready, and always killed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "programs"
COMPILERS = {".c": "gcc", ".cc": "g++", ".cpp": "g++", ".S": "gcc"}
READY = b"ready"
PATIENCE = 60.0
"""How many seconds a program may take to say that it is ready: far more than it needs, because the machine may be busy."""


class Programs:
    """Programs by source, flags and compiler: `build` compiles what was not built before, in this session or an earlier one."""

    def __init__(self, folder: Path) -> None:
        """Keep the built programs in that folder."""
        self.folder = folder

    def build(self, name: str, *flags: str, compiler: str | None = None) -> Path:
        """The program that `tests/programs/NAME` and the flags give; -g and -O follow from the flags only.

        A source may include other files of its folder, so the key holds the whole folder's headers.
        """
        source = SOURCES / name
        tool = compiler or COMPILERS[source.suffix]
        key = hashlib.sha256("\0".join([tool, version_of(tool), *flags]).encode())
        for part in [source, *sorted(SOURCES.glob("*.h"))]:
            key.update(part.read_bytes())
        target = self.folder / f"{source.stem}-{key.hexdigest()[:16]}"
        if not target.exists():
            # Two test runs may build the same program at once: each writes its own file, and the rename is atomic.
            temporary = self.folder / f".{target.name}.{os.getpid()}"
            command = [tool, str(source), "-I", str(SOURCES), "-o", str(temporary), *flags]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            temporary.replace(target)
        return target

    @staticmethod
    def running(path: Path | str, *args: str, **options: object) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """The same as the function `running`, for tests that only have the fixture."""
        return running(path, *args, **options)  # type: ignore[arg-type]


@functools.cache
def version_of(tool: str) -> str:
    """The compiler's version, so that another compiler does not get this one's programs."""
    return subprocess.run([tool, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()[0]


@contextlib.contextmanager
def running(
    path: Path | str, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, ready: bytes = READY
) -> Iterator[subprocess.Popen[bytes]]:
    """A started program that has printed the line `ready`; its stdout stays readable, and it is dead when the block ends.

    It runs in a process group of its own, so that its children die with it.
    """
    process = subprocess.Popen(
        [str(path), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=cwd, start_new_session=True, bufsize=0
    )
    try:
        wait_for_line(process, ready)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def wait_for_line(process: subprocess.Popen[bytes], line: bytes = READY) -> None:
    """Read the program's stdout until that line has come; AssertionError when it ends or stays silent before."""
    assert process.stdout is not None
    seen = b""
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not seen.endswith(b"\n") or line not in seen.splitlines():
            assert selector.select(max(0.0, deadline - time.monotonic())), f"{process.args} was silent; before: {seen!r}"
            # One byte at a time: what follows the line belongs to the test.
            byte = os.read(process.stdout.fileno(), 1)
            assert byte, f"{process.args} ended before it was ready; it said {seen!r}"
            seen += byte


def wait_until(condition: object, what: str, patience: float = PATIENCE) -> None:
    """Call `condition` until it is true; AssertionError naming `what` when it never is."""
    assert callable(condition)
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s in vain for: {what}"
        time.sleep(0.005)


def wait_asleep(pid: int, tid: int | None = None) -> None:
    """Wait until the thread sleeps in the kernel (state S in /proc): a blocked program's stack no longer changes."""

    def asleep() -> bool:
        text = Path(f"/proc/{pid}/task/{tid or pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[0] == "S"

    wait_until(asleep, f"thread {tid or pid} to sleep")


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The builder of target programs."""
    folder = Path(tempfile.gettempdir()) / f"unspool-test-programs-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to somebody else"
    return Programs(folder)

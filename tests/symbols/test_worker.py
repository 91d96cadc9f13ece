"""The process that parses: what it may not do, and what its death costs."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unspool.symbols.worker import MAX_MESSAGE, Handler, ParserDied, Worker


def attempts() -> Handler:
    """A handler that tries what the request names."""

    def memory() -> int:
        return len(bytearray(3 << 30))

    def connect() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def code() -> None:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

    actions: dict[str, Callable[[], object]] = {
        "open": lambda: Path("/etc/passwd").read_text(encoding="utf-8"),
        "die": lambda: os.kill(os.getpid(), 9),
        "exit": lambda: os._exit(0),
        "raise": lambda: 1 // 0,
        "fork": os.fork,
        "create": lambda: Path("made").mkdir(),
        "run": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(os.getppid(), 0),
        "socket": connect,
        "code": code,
        "memory": memory,
        "too much": lambda: "x" * (MAX_MESSAGE + 1),
        "for ever": lambda: all(number == 0 for number in iter(int, 1)),
    }

    def handle(request: str | list[int], descriptors: list[int]) -> object:
        if isinstance(request, list):
            return [len(descriptors), *(os.pread(descriptor, 4, 0).hex() for descriptor in descriptors), sum(request)]
        try:
            return actions[request]()
        except (OSError, MemoryError) as error:
            return type(error).__name__

    return handle


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(attempts)
    yield made
    made.close()


def status(worker: Worker) -> dict[str, str]:
    lines = Path(f"/proc/{worker._pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_it_answers_and_reads_the_descriptors_it_is_given(worker: Worker) -> None:
    with Path("/bin/ls").open("rb") as first, Path("/bin/cat").open("rb") as second:
        assert [2, "7f454c46", "7f454c46", 6] == worker.ask([1, 2, 3], [first.fileno(), second.fileno()])
    assert [0, 0] == worker.ask([])


def test_a_long_message_arrives_whole(worker: Worker) -> None:
    with Path("/bin/ls").open("rb") as file:
        assert [1, "7f454c46", 3_000_000] == worker.ask([1] * 3_000_000, [file.fileno()])


def test_it_has_no_privileges_left(worker: Worker) -> None:
    worker.ask([])
    facts = status(worker)
    assert "1" == facts["NoNewPrivs"]
    assert "2" == facts["Seccomp"]
    if os.geteuid() == 0:
        assert ["65534"] * 4 == facts["Uid"].split() == facts["Gid"].split()
        assert "" == facts["Groups"]
        assert "0000000000000000" == facts["CapEff"] == facts["CapPrm"]


def test_it_holds_no_descriptor_but_its_channel() -> None:
    with Path("/etc/hostname").open("rb"):
        worker = Worker(attempts)
    worker.ask([])
    if os.geteuid() == 0:
        assert {"0", "1", "2", "3"} == {path.name for path in Path(f"/proc/{worker._pid}/fd").iterdir()}
    worker.close()


@pytest.mark.parametrize("request_", ["open", "fork", "create"])
def test_nothing_is_opened_started_or_made(request_: str, worker: Worker) -> None:
    assert "PermissionError" == worker.ask(request_)


def test_no_memory_becomes_code(worker: Worker) -> None:
    assert "PermissionError" == worker.ask("code")


def test_memory_is_limited(worker: Worker) -> None:
    assert "MemoryError" == worker.ask("memory")


@pytest.mark.parametrize("request_", ["die", "exit", "raise", "kill", "run", "socket", "too much"])
def test_what_it_may_not_do_ends_it_and_nobody_else(request_: str) -> None:
    worker = Worker(attempts)
    with pytest.raises(ParserDied):
        worker.ask(request_)
    assert not worker.alive
    with pytest.raises(ParserDied):
        worker.ask([])


def test_an_answer_that_takes_too_long_ends_it() -> None:
    worker = Worker(attempts, timeout=0.5)
    with pytest.raises(ParserDied):
        worker.ask("for ever")
    assert not worker.alive


def test_closing_leaves_no_process() -> None:
    worker = Worker(attempts)
    process = worker._pid
    worker.ask([])
    worker.close()
    worker.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(process, os.WNOHANG)


def test_an_interrupt_of_the_terminal_is_not_for_it(worker: Worker) -> None:
    worker.ask([])
    with contextlib.suppress(PermissionError):
        os.kill(worker._pid, 2)
    assert [0, 1] == worker.ask([1])

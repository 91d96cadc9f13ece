"""The gdbstub back end against a fake of QEMU's: the machine runs on in every case, and no answer makes it wait or raise."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest.fake_vmm import CR3, EFER, RIP, FakeGdb, registers, serving
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput, NoSuchTarget, UnspoolError, Unsupported
from unspool.targets.guest import channel, watchdog
from unspool.targets.guest.channel import Channel, Endpoint
from unspool.targets.guest.gdbstub import Gdb, GdbStub, attach, packet, parse_registers
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState
from unspool.targets.guest.vcpu_threads import VcpuThreads


@pytest.fixture
def gdb(tmp_path: Path) -> Iterator[FakeGdb]:
    with serving(FakeGdb, tmp_path / "gdb") as fake:
        assert isinstance(fake, FakeGdb)
        yield fake
        # QEMU 7.2 crashes at a second one.
        assert fake.detachments <= 1


def opened(fake: FakeGdb) -> contextlib.closing[GdbStub]:
    return contextlib.closing(GdbStub.open(Endpoint(path=str(fake.path))))


def test_a_hold_gives_the_registers_of_a_machine_that_stands_still(gdb: FakeGdb) -> None:
    """By DWARF number; the machine runs before and after."""
    with opened(gdb) as source:
        assert (0, 1) == source.vcpus
        assert gdb.wait_running()
        with source.hold(1) as state:
            assert isinstance(state, VcpuState)
            assert not gdb.running
            assert 2 == gdb.selected
            assert (RIP, CR3, EFER, 0) == (state.registers.pc, state.cr3, state.efer, state.cpl)
            # rax rbx rcx rdx rsi rdi rbp rsp in gdb's order; rsp has DWARF number 7.
            assert 0x107 == state.registers.sp
            assert {0: 0x100, 3: 0x101, 2: 0x102, 1: 0x103}.items() <= dict(state.registers.values).items()
            assert (0x11, 0x22, 0x33) == (state.fs_base, state.gs_base, state.kernel_gs_base)
            assert state.snapshot
            assert state.long_mode
        assert gdb.wait_running()
    assert gdb.wait_running()


def test_holds_inside_each_other_are_one_stop(gdb: FakeGdb) -> None:
    """Several vCPUs are read at the same instant."""
    with opened(gdb) as source:
        assert gdb.wait_running()
        before = gdb.stops
        with source.hold(0) as first, source.hold(1) as second:
            assert isinstance(first, VcpuState)
            assert isinstance(second, VcpuState)
        assert gdb.wait_running()
        assert before + 1 == gdb.stops


class Idle(VcpuThreads):
    """Threads of which vCPU 1's is idle, and vCPU 0's too once the machine is stopped."""

    gdb: FakeGdb

    def halted(self, vcpu: int) -> bool:
        """As from outside: the thread of a vCPU that is stopped waits as well."""
        return vcpu == 1 or not Idle.gdb.running


def test_an_idle_vcpu_is_refused_without_a_stop(gdb: FakeGdb) -> None:
    """And in a hold inside another one's, where every thread waits; unless it is asked for."""
    Idle.gdb = gdb
    with contextlib.closing(GdbStub.open(Endpoint(path=str(gdb.path)), Idle(0, {}))) as source:
        assert gdb.wait_running()
        before = gdb.stops
        with source.hold(1) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.HALTED is state.kind
        assert before == gdb.stops
        with source.hold(0) as first, source.hold(1) as second:
            assert isinstance(first, VcpuState)
            assert isinstance(second, Refused)
            assert RefusalKind.HALTED is second.kind
        assert gdb.wait_running()
        source.skips_idle = False
        with source.hold(1) as state:
            assert isinstance(state, VcpuState)


def test_a_hold_that_raises_lets_the_machine_run(gdb: FakeGdb) -> None:
    with opened(gdb) as source, contextlib.suppress(KeyboardInterrupt), source.hold(0):
        assert not gdb.running
        raise KeyboardInterrupt
    assert gdb.wait_running()


def test_a_hold_that_took_too_long_ends_the_session(gdb: FakeGdb, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog has let the machine run; we notice, and leave it running."""
    monkeypatch.setattr(watchdog, "HOLD_SECONDS", 0.3)
    with opened(gdb) as source:
        with source.hold(0) as state:
            assert isinstance(state, VcpuState)
            assert gdb.wait_running()
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind
        assert gdb.wait_running()
    assert gdb.wait_running()


@pytest.mark.parametrize("inside", [False, True])
def test_without_its_watchdog_a_source_ends_and_the_machine_runs(gdb: FakeGdb, *, inside: bool) -> None:
    """Whatever killed it, before a hold or in one."""
    with opened(gdb) as source:
        assert gdb.wait_running()
        dog = source._gdb.watchdog
        with source.hold(0) if inside else contextlib.nullcontext():
            os.kill(dog.pid, signal.SIGKILL)
            os.waitid(os.P_PID, dog.pid, os.WEXITED | os.WNOWAIT)
        assert gdb.wait_running()
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind
        assert gdb.wait_running()


def test_a_vcpu_that_is_not_there_is_refused(gdb: FakeGdb) -> None:
    with opened(gdb) as source, source.hold(7) as state:
        assert isinstance(state, Refused)
        assert RefusalKind.IMPOSSIBLE is state.kind


def test_a_machine_that_somebody_else_paused_stays_paused(gdb: FakeGdb) -> None:
    """The source ends, and neither it nor closing it lets the machine run."""
    with opened(gdb) as source:
        assert gdb.wait_running()
        gdb.pause()
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind
        assert not gdb.running
    assert not gdb.running


@pytest.mark.parametrize(("version", "reason"), [("7.2.22 (Debian)", ""), ("10.0.2 (Debian)", " (inmigrate)"), ("10.0.2", " (prelaunch)")])
def test_a_machine_that_stood_still_before_is_left_so(gdb: FakeGdb, version: str, reason: str) -> None:
    """`c` would start a machine that waits for its migration, or whose disk failed; also after a question to its monitor."""
    gdb.set_running(running=False)
    gdb.version, gdb.reason = version, reason
    with pytest.raises(Unsupported, match="the machine is paused"):
        GdbStub.open(Endpoint(path=str(gdb.path)))
    session = attach(Endpoint(path=str(gdb.path)))
    assert f"VM status: paused{reason}" == session.hmp("info status").strip()
    session.detach()
    gdb.close()
    assert not gdb.running


def test_a_machine_that_was_let_run_meanwhile_runs_on(gdb: FakeGdb) -> None:
    """A byte of ours stops it again, which is reported, and that stop is ended."""
    gdb.set_running(running=False)
    session = attach(Endpoint(path=str(gdb.path)))
    assert session.stood_still
    gdb.set_running(running=True)
    session.hmp("info status")
    assert not gdb.running
    session.detach()
    assert gdb.wait_running()


@pytest.mark.parametrize(("version", "reason"), [("8.1.0", ""), ("10.0.2 (Debian)", ""), ("9.2.1", " (debug)"), ("development", "")])
def test_a_stop_that_connecting_made_is_ended(gdb: FakeGdb, version: str, reason: str) -> None:
    """Since 8.1 QEMU does not report it."""
    gdb.version, gdb.reason = version, reason
    with opened(gdb):
        assert gdb.wait_running()
    assert gdb.wait_running()


def test_a_machine_that_ends_is_told(gdb: FakeGdb) -> None:
    """In the hold, and at every later one."""
    with opened(gdb) as source:
        gdb.close()
        for _ in range(2):
            with source.hold(0) as state:
                assert isinstance(state, Refused)
                assert RefusalKind.GONE is state.kind


def test_a_closed_source_refuses(gdb: FakeGdb) -> None:
    with opened(gdb) as source:
        source.close()
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind


TWISTS: dict[str, Callable[[bytes], bytes]] = {
    "a wrong checksum": lambda answer: answer[:-2] + b"zz" if answer[:1] == b"$" else answer,
    "silence": lambda _: b"",
    "half an answer": lambda answer: answer[: len(answer) // 2],
    "no hexadecimal digits": lambda answer: b"$zzzz#e8" if len(answer) > 100 else answer,
    "an error": lambda answer: b"$E22#a9" if len(answer) > 100 else answer,
    "noise before it": lambda answer: b"\0\xff+-" + answer,
}


@pytest.mark.parametrize("name", TWISTS)
def test_damaged_answers_to_a_hold_are_refused_and_the_machine_runs_on(gdb: FakeGdb, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "patience", 0.5)
    with opened(gdb) as source:
        assert gdb.wait_running()
        gdb.twist = TWISTS[name]
        with source.hold(0) as state:
            assert isinstance(state, VcpuState if name == "noise before it" else Refused)
        assert gdb.wait_running()
    assert gdb.wait_running()


@pytest.mark.parametrize("name", [name for name in TWISTS if name != "noise before it"])
def test_damaged_answers_at_the_start_are_an_error_and_the_machine_runs_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Channel, "patience", 0.5)
    with serving(FakeGdb, tmp_path / "gdb", TWISTS[name]) as fake:
        with pytest.raises(UnspoolError):
            GdbStub.open(Endpoint(path=str(fake.path)))
        assert fake.wait_running()


def test_a_socket_that_serves_another_client_is_an_error(gdb: FakeGdb, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even connected to: a client that waits in the queue would stop the machine when its turn comes."""
    monkeypatch.setattr(channel, "_LEAVE_SECONDS", 0.2)
    with opened(gdb):
        stops = gdb.stops
        with pytest.raises(Unsupported, match="does not answer"):
            GdbStub.open(Endpoint(path=str(gdb.path), pid=os.getpid()))
        assert gdb.wait_running()
        assert stops == gdb.stops


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoSuchTarget):
        GdbStub.open(Endpoint(path=str(tmp_path / "none")))


@given(st.binary(max_size=1300))
def test_any_bytes_are_registers_or_bad_input(data: bytes) -> None:
    for answer in (data, data.hex().encode()):
        with contextlib.suppress(BadInput):
            assert isinstance(parse_registers(answer), VcpuState)


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=40).map(packet), max_size=8))
def test_any_answers_end_in_an_error_or_a_value(parts: list[bytes]) -> None:
    """Whatever a server sends before it goes away."""
    for ask in (Gdb.greet, Gdb.threads, lambda gdb: gdb.hmp("info status")):
        ours, theirs = socket.socketpair()
        with ours, contextlib.suppress(OSError, UnspoolError):
            with theirs:
                theirs.sendall(b"".join(parts))
            ask(Gdb(Channel(ours), None))  # type: ignore[arg-type]


def test_user_mode_is_told_by_the_code_segment() -> None:
    state = parse_registers(registers(cs=0x33, rip=0x401000).hex().encode())
    assert 3 == state.cpl
    assert not state.in_kernel


SAMPLER = """
import sys
from unspool.targets.guest import watchdog
watchdog.HOLD_SECONDS = float(sys.argv[2])
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
with GdbStub.open(Endpoint(path=sys.argv[1])).hold(0) as state:
    print(type(state).__name__, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sampler_that_dies_or_hangs_in_mid_hold_leaves_the_machine_running(gdb: FakeGdb, how: signal.Signals) -> None:
    """The watchdog lets the machine run: at once, or when no hold may take longer."""
    sampler = subprocess.Popen(
        [sys.executable, "-c", SAMPLER, str(gdb.path), "600" if how is signal.SIGKILL else "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert sampler.stdout is not None
        assert b"VcpuState\n" == sampler.stdout.readline()
        assert not gdb.running
        sampler.send_signal(how)
        assert gdb.wait_running()
    finally:
        sampler.kill()
        sampler.communicate()

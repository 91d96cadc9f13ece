"""QMP and the registers through it, against a fake of QEMU's server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest.fake_vmm import CR3, EFER, RIP, FakeQmp, PrettyQmp, hmp_registers, serving
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput, UnspoolError, Unsupported
from unspool.targets.guest.channel import Channel, Endpoint
from unspool.targets.guest.hmp_text import host_address, system_memory, vcpu_state, words
from unspool.targets.guest.qmp import Qmp, QmpRegisters
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState


@pytest.fixture(params=[FakeQmp, PrettyQmp])
def qmp(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeQmp]:
    with serving(request.param, tmp_path / "qmp") as fake:
        assert isinstance(fake, FakeQmp)
        yield fake


def opened(fake: FakeQmp, *, stopping: bool) -> contextlib.closing[QmpRegisters]:
    return contextlib.closing(QmpRegisters.open(Endpoint(path=str(fake.path)), os.getpid(), stopping=stopping))


def test_live_registers_stop_nothing_and_are_no_snapshot(qmp: FakeQmp) -> None:
    with opened(qmp, stopping=False) as source:
        assert ("qmp-live", False, (0, 1)) == (source.name, source.snapshot, source.vcpus)
        with source.hold(1) as state:
            assert isinstance(state, VcpuState)
            assert not state.snapshot
            assert qmp.running
            assert (RIP, CR3, EFER, 0x10, 0) == (state.registers.pc, state.cr3, state.efer, state.cs, state.cpl)
            assert 0xFFFF_C900_0000_3F58 == state.registers.sp
            assert state.kernel_gs_base is None
    assert 0 == qmp.stops


def test_a_stopping_hold_is_a_snapshot(qmp: FakeQmp) -> None:
    """Of a machine that stands still; holds inside each other are one stop."""
    with opened(qmp, stopping=True) as source:
        with source.hold(0) as first, source.hold(1) as second:
            assert isinstance(first, VcpuState)
            assert isinstance(second, VcpuState)
            assert first.snapshot
            assert not qmp.running
        assert qmp.wait_running()
    assert 1 == qmp.stops


def test_a_hold_that_raises_lets_the_machine_run(qmp: FakeQmp) -> None:
    with opened(qmp, stopping=True) as source, contextlib.suppress(KeyboardInterrupt), source.hold(0):
        assert not qmp.running
        raise KeyboardInterrupt
    assert qmp.wait_running()


@pytest.mark.parametrize("stopping", [False, True])
def test_a_machine_that_somebody_else_paused_stays_paused(qmp: FakeQmp, *, stopping: bool) -> None:
    """It is refused while it is paused, and sampled again when it runs."""
    with opened(qmp, stopping=stopping) as source:
        qmp.set_running(running=False)
        qmp.message({"event": "STOP"})
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.BUSY is state.kind
        assert not qmp.running
        qmp.set_running(running=True)
        qmp.message({"event": "RESUME"})
        with source.hold(0) as state:
            assert isinstance(state, VcpuState)


def test_a_paused_machine_is_not_opened_for_stopping(qmp: FakeQmp) -> None:
    qmp.set_running(running=False)
    with pytest.raises(Unsupported, match="paused"):
        opened(qmp, stopping=True)
    assert not qmp.running


def test_events_are_counted(qmp: FakeQmp) -> None:
    client = Qmp.open(Endpoint(path=str(qmp.path)))
    qmp.message({"event": "RESET"})
    assert client.running()
    assert 1 == client.events["RESET"]
    client.close()


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_message_that_comes_in_two_parts_is_one(qmp: FakeQmp, cut: int) -> None:
    """Also when only the first has come where events are looked for."""
    client = Qmp.open(Endpoint(path=str(qmp.path)))
    messages: list[bytes] = []
    qmp.twist = lambda answer: messages.append(answer) or b""  # type: ignore[func-returns-value]
    qmp.message({"event": "RESET", "data": {}, "timestamp": 1})
    qmp.twist = lambda answer: answer
    qmp.send(messages[0][:cut])
    client.notice()
    assert 0 == client.events["RESET"]
    qmp.send(messages[0][cut:])
    client.notice()
    assert 1 == client.events["RESET"]
    assert client.running()
    client.close()


def test_a_machine_that_ends_is_told(qmp: FakeQmp) -> None:
    with opened(qmp, stopping=True) as source:
        qmp.close()
        for _ in range(2):
            with source.hold(0) as state:
                assert isinstance(state, Refused)
                assert RefusalKind.GONE is state.kind


TWISTS: dict[str, Callable[[bytes], bytes]] = {
    "silence": lambda _: b"",
    "half a line": lambda answer: answer[: len(answer) // 2],
    "no JSON": lambda _: b"}{\n",
    "a list": lambda _: b"[1]\n",
    "nested too deep": lambda _: b"[" * 100_000 + b"\n",
    "a number too long": lambda _: b"9" * 10_000 + b"\n",
    "an error": lambda _: b'{"error": {"class": "GenericError", "desc": "no"}, "id": 3}\n',
    "another type": lambda _: b'{"return": 7, "id": 3}\n',
}


@pytest.mark.parametrize("name", TWISTS)
@pytest.mark.parametrize("stopping", [False, True])
def test_damaged_answers_are_refused_and_the_machine_runs_on(
    qmp: FakeQmp, name: str, monkeypatch: pytest.MonkeyPatch, *, stopping: bool
) -> None:
    monkeypatch.setattr(Channel, "patience", 0.3)
    with opened(qmp, stopping=stopping) as source:
        qmp.twist = TWISTS[name]
        with source.hold(0) as state:
            assert isinstance(state, Refused)
        assert qmp.wait_running()


@pytest.mark.parametrize("name", TWISTS)
def test_damaged_answers_at_the_start_are_an_error(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "patience", 0.3)
    with serving(FakeQmp, tmp_path / "qmp", TWISTS[name]) as fake, pytest.raises(UnspoolError):
        Qmp.open(Endpoint(path=str(fake.path)))


SAMPLER = """
import os, sys
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.qmp import QmpRegisters
with QmpRegisters.open(Endpoint(path=sys.argv[1]), os.getpid(), stopping=True).hold(0) as state:
    print(type(state).__name__, flush=True)
    sys.stdin.read()
"""


def test_a_sampler_that_dies_in_mid_hold_leaves_the_machine_running(qmp: FakeQmp) -> None:
    sampler = subprocess.Popen(
        [sys.executable, "-c", SAMPLER, str(qmp.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert sampler.stdout is not None
        assert b"VcpuState\n" == sampler.stdout.readline()
        assert not qmp.running
        sampler.send_signal(signal.SIGKILL)
        assert qmp.wait_running()
    finally:
        sampler.kill()
        sampler.communicate()


@given(st.text(max_size=2000))
def test_any_text_of_the_monitor_is_read_or_bad_input(text: str) -> None:
    for read in (lambda: vcpu_state(text, snapshot=False), lambda: system_memory(text), lambda: host_address(text)):
        with contextlib.suppress(BadInput):
            read()
    assert isinstance(words(text), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
MESSAGES = st.dictionaries(st.sampled_from(["id", "return", "error", "event", "QMP", "data"]), JSON | st.integers(1, 3)) | JSON


@given(st.lists(st.binary(max_size=100) | MESSAGES.map(lambda message: json.dumps(message).encode() + b"\n"), max_size=8))
def test_any_answers_end_in_an_error_or_a_value(parts: list[bytes]) -> None:
    """Whatever a server sends before it goes away."""
    for ask in (Qmp.greet, Qmp.running, lambda qmp: qmp.vcpu_threads(1), lambda qmp: qmp.hmp("info status")):
        ours, theirs = socket.socketpair()
        with ours, contextlib.suppress(OSError, UnspoolError):
            with theirs:
                theirs.sendall(b"".join(parts))
            ask(Qmp(Channel(ours)))


def test_real_mode_prints_narrow_registers() -> None:
    """Right after a reset: EIP for RIP, no long mode."""
    text = "EAX=00000001 EBX=00000002 ECX=00000003 EDX=00000004\nESI=00000005 EDI=00000006 EBP=00000007 ESP=00000008\n"
    text += "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\nCS =f000 ffff0000 0000ffff 00009b00\n"
    text += (
        "FS =0000 00000000 0000ffff 00009300\nGS =0000 00000000 0000ffff 00009300\nCR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\n"
    )
    state = vcpu_state(text + "EFER=0000000000000000\n", snapshot=False)
    assert (0xFFF0, 0, False) == (state.registers.pc, state.cr3, state.long_mode)


def test_the_monitor_of_a_halted_vcpu_says_so() -> None:
    assert vcpu_state(hmp_registers(0).replace("HLT=0", "HLT=1"), snapshot=True).halted


MTREE = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram 0 KVM
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000fffff (prio 0, rom): ram 0 @00000000000c0000 KVM
  0000000000100000-00000000bfffffff (prio 0, ram): ram 0 @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram KVM
  0000000100000000-000000013fffffff (prio 0, ram): ram 0 @00000000c0000000 KVM

FlatView #2
 AS "memory", root: system
  0000000000000000-0000000000000fff (prio 0, ram): second
"""


def test_the_memory_tree_of_the_system_is_found_among_the_others() -> None:
    """With and without the suffix of KVM; the block's name may hold blanks."""
    for text in (MTREE, MTREE.replace(" KVM", "")):
        regions = system_memory(text)
        assert ["ram 0", "vga-lowmem", "ram 0", "ram 0", "vga.vram", "ram 0"] == [region.name for region in regions]
        assert (0x1_0000_0000, 0x4000_0000, "ram", 0xC000_0000) == (
            regions[-1].start, regions[-1].size, regions[-1].kind, regions[-1].offset,
        )  # fmt: skip


def test_the_address_in_qemu_is_read() -> None:
    assert 0x7F9943FFF000 == host_address("Host virtual address for 0x0 (ram 0) is 0x7f9943fff000\r\n")

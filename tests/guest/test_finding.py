"""Machines found by their command lines and descriptors, and what is said to be missing; sockets that a command line only claims."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from guest.fake_vmm import FakeQmp, serving
from hypothesis import given
from hypothesis import strategies as st
from target_programs import wait_until

from unspool.cli import guest
from unspool.cli.main import main
from unspool.errors import NoSuchTarget, Unsupported
from unspool.targets.guest import sockets
from unspool.targets.guest.channel import Endpoint, connect
from unspool.targets.guest.layout import Block
from unspool.targets.guest.machines import Machine, find_machines, machine_of, select
from unspool.targets.guest.missing import hints
from unspool.targets.guest.opening import automatic, open_source
from unspool.targets.guest.qemu_options import is_qemu, is_x86, parse
from unspool.targets.guest.vcpu_threads import VcpuThreads

LIBVIRT = (
    "-name guest=web-1,debug-threads=on -S -machine pc-q35-7.2,memory-backend=pc.ram,max-ram-below-4g=2G -accel kvm -m size=4194304k "
    '-object {"qom-type":"memory-backend-ram"} -smp 4,sockets=4 -uuid 2f0c -chardev socket,id=charmonitor,fd=33,server=on,wait=off '
    "-mon chardev=charmonitor,id=monitor,mode=control"
)  # fmt: skip


def test_a_plain_command_line_says_all() -> None:
    """Also with two minus signs, and with a doubled comma in a path."""
    text = "--name plain -M q35 -m 2G -smp 3 -qmp unix:/run/a,,b.qmp,server=on,wait=off -gdb tcp::1234 -enable-kvm"
    options = parse(text.split(), 7)
    assert ("plain", "q35", 2 << 30, 3) == (options.name, options.plan.machine_type, options.plan.size, options.vcpus)
    assert Endpoint(path="/run/a,b.qmp", pid=7) == options.qmp
    assert Endpoint(port=1234, pid=7) == options.gdb


def test_libvirts_command_line_hands_the_qmp_socket_over() -> None:
    options = parse(LIBVIRT.split())
    assert ("web-1", "2f0c", "pc-q35-7.2", 4 << 30, 4, 2 << 30) == (
        options.name, options.uuid, options.plan.machine_type, options.plan.size, options.vcpus, options.plan.low_limit,
    )  # fmt: skip
    assert options.qmp is None
    assert options.qmp_inherited


@pytest.mark.parametrize(
    ("text", "qmp", "gdb"),
    [
        ("-chardev socket,id=m,path=rel.sock,server=on -mon chardev=m,mode=control", Endpoint(path="rel.sock"), None),
        ("-chardev socket,id=m,path=/human,server=on -mon chardev=m,mode=readline", None, None),
        ("-chardev socket,id=m,path=/client,server=off -mon m,mode=control", None, None),
        ("-chardev socket,id=m,host=localhost,port=4444,server=on -qmp chardev:m", Endpoint(port=4444), None),
        ("-qmp tcp:127.0.0.1:4444,server=on -s", Endpoint(port=4444), Endpoint(port=1234)),
        ("-qmp tcp:10.0.0.1:4444,server=on -gdb dev:x", None, None),
        ("-qmp stdio -gdb unix:,server=on", None, None),
        ("-gdb unix:g.sock,server=on,wait=off", None, Endpoint(path="g.sock")),
        ("-mon -qmp -m -smp x", None, None),
    ],
)
def test_control_sockets_are_found_where_qemu_serves_them(text: str, qmp: Endpoint | None, gdb: Endpoint | None) -> None:
    options = parse(text.split())
    assert (qmp, gdb) == (options.qmp, options.gdb)


@pytest.mark.parametrize(
    ("text", "wants"),
    [("-enable-kvm", True), ("-accel kvm,x=y", True), ("-machine pc,accel=kvm:tcg", True), ("-accel tcg", False), ("-machine kvm", False)],
)
def test_what_accelerates_is_said(text: str, *, wants: bool) -> None:
    assert wants is parse(text.split()).wants_kvm


NODES = (
    "-machine q35,memory-backend=none -m 4096 -object memory-backend-ram,id=n0,size=3G -numa node,nodeid=1,memdev=n1,cpus=1 "
    '-object {"qom-type":"memory-backend-memfd","id":"n1","size":1073741824} -numa node,nodeid=0,memdev=n0 -numa node,nodeid=2,cpus=2'
)


def test_the_blocks_of_memory_are_those_of_the_nodes() -> None:
    """In the order of their numbers; without nodes, or where one is not understood, it is one block."""
    assert (Block("n0", 3 << 30), Block("n1", 1 << 30)) == parse(NODES.split()).plan.blocks
    for text, name in {
        "": "pc.ram",
        "-M microvm": "microvm.ram",
        "-machine pc,memory-backend=ram -numa node": "ram",
        "-numa node,memdev=x": "pc.ram",
        "-numa cpu,node-id=0 -object memory-backend-ram,id=x -numa node,memdev=x": "pc.ram",
    }.items():
        assert (Block(name, 1 << 30),) == parse(["-m", "1G", *text.split()]).plan.blocks


def test_a_layout_that_is_given_by_hand_is_written_out() -> None:
    """Each part with its address in the guest: both sides of the hole below 4 GiB."""
    (hint,) = hints(machine(accel="kvm", memory_by=""), "qemu-kvm", parse([*LIBVIRT.split(), *NODES.split()]), busy=False, encrypted="")
    given = "0x0:0x80000000@0xADDRESS,0x100000000:0x40000000@0xADDRESS,0x140000000:0x40000000@0xADDRESS"
    assert f"'gpa2hva 0x140000000'   and give it: --guest-memory {given}" in hint.mend


def test_encrypted_machines_are_recognised() -> None:
    assert "sev-snp-guest" == parse(["-object", "sev-snp-guest,id=sev0,cbitpos=51"]).encrypted
    assert "tdx-guest" == parse(["-object", "qom-type=tdx-guest,id=tdx0"]).encrypted
    assert "sev-guest" == parse(["-object", '{"qom-type":"sev-guest","id":"lsec0","cbitpos":51}']).encrypted, "as libvirt writes it"
    assert "confidential-guest-support" == parse(["-machine", "q35,confidential-guest-support=lsec0"]).encrypted
    assert "memory-encryption" == parse(["-machine", "q35,memory-encryption=sev0"]).encrypted
    for plain in ('{"qom-type":"memory-backend-ram"}', "{", "{}", '{"qom-type":7}', "[" * 100_000, "memory-backend-file,id=sev-guest"):
        assert not parse(["-object", plain]).encrypted


@given(st.lists(st.text(max_size=40) | st.sampled_from(["-qmp", "-m", "-name", "-chardev", "-mon", "chardev=a,mode=control", "-smp"])))
def test_any_command_line_is_read(words: list[str]) -> None:
    """Whatever is malformed is left out."""
    options = parse(words)
    assert options.plan.size > 0
    assert options.vcpus > 0


def test_programs_are_told_apart_by_name() -> None:
    assert is_qemu("qemu-system-aarch64")
    assert not is_x86("qemu-system-aarch64")
    assert is_x86("qemu-kvm")
    assert is_x86("qemu-system-x86"), "as the kernel cuts it"
    assert not is_qemu("qemu-nbd")


def machine(**given: object) -> Machine:
    plain = {"name": "m", "uuid": "u", "pid": os.getpid(), "start_ns": 0, "vmm": "qemu", "accel": "tcg", "vcpus": 1, "ram_bytes": 1 << 30}
    return Machine(**(plain | {"memory_by": "process"} | given))  # type: ignore[arg-type]


def test_machines_are_selected_by_name_uuid_or_pid() -> None:
    one, two = machine(pid=11, uuid="a"), machine(pid=12, name="n", uuid="b")
    assert [one, two] == select("all", [one, two])
    assert [two, one] == select("n,11", [one, two])
    assert [one] == select("a,m,11", [one, two])
    for wanted in ("", "x", "m,"):
        with pytest.raises(NoSuchTarget):
            select(wanted, [one, two])
    with pytest.raises(NoSuchTarget, match="more than one"):
        select("m", [one, machine(pid=13)])


@pytest.mark.parametrize(
    ("given", "options", "what", "mend"),
    [
        ({"qmp": None}, "-name m", "no QMP socket and no gdb socket", "-gdb unix:"),
        ({"qmp": Endpoint(path="q")}, "-qmp unix:q", "no gdb socket", "unspool guest gdb"),
        ({}, LIBVIRT, "no gdb socket", "virsh qemu-monitor-command m --hmp 'gdbserver unix:"),
        ({"accel": "kvm", "memory_by": ""}, LIBVIRT, "memory lies", "virsh qemu-monitor-command m --hmp 'gpa2hva 0x0'; "),
        ({"accel": "kvm", "memory_by": ""}, "-name m", "memory lies", "--guest-memory"),
    ],
)
def test_what_is_missing_comes_with_what_mends_it(given: dict[str, object], options: str, what: str, mend: str) -> None:
    found = list(hints(machine(**given), "qemu-system-x86_64", parse(options.split()), busy=False, encrypted=""))
    assert 1 == len(found)
    assert what in found[0].what
    assert mend in found[0].mend


@pytest.mark.parametrize(("name", "beside"), [("domain-1-web", True), ("domain-2-my web", False), ("d" * 70, False)])
def test_libvirts_machine_gets_a_gdb_socket_where_it_may_make_one(name: str, *, beside: bool) -> None:
    """The rules of AppArmor and SELinux let it write beside its monitor's socket, and not into /tmp."""
    # Short, because a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as short:
        folder = Path(short, name)
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", LISTENER, short, str(folder / "monitor.sock")], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert b"ready\n" == process.stdout.readline()
                (hint,) = hints(machine(pid=process.pid), "qemu-kvm", parse(LIBVIRT.split()), busy=False, encrypted="")
            finally:
                process.kill()
    expected = f"{folder}/gdb.sock" if beside else f"/tmp/{process.pid}.gdb"
    assert f"virsh qemu-monitor-command m --hmp 'gdbserver unix:{expected},server=on,wait=off'" == hint.mend


def test_nothing_mends_what_cannot_be_read() -> None:
    options = parse([])
    assert ["emulates another"] == [
        hint.what[len("qemu-system-arm ") :][:16] for hint in hints(machine(), "qemu-system-arm", options, busy=False, encrypted="")
    ]
    (hint,) = hints(machine(), "qemu-kvm", options, busy=False, encrypted="sev-guest")
    assert ("", True) == (hint.mend, "encrypted" in hint.what)


def test_a_client_on_a_control_socket_is_told(tmp_path: Path) -> None:
    """Nothing that needs the socket is offered then."""
    with serving(FakeQmp, tmp_path / "gdb") as fake:
        endpoint = Endpoint(path=str(fake.path), pid=os.getpid())
        connection = connect(endpoint)
        try:
            wait_until(lambda: sockets.busy(os.getpid(), str(fake.path), 0), "the client to be served")
            found = machine(gdb=endpoint, qmp=endpoint)
            told = [hint.what for hint in hints(found, "qemu-kvm", parse([]), busy=True, encrypted="")]
            assert ["its QMP socket serves", "its gdb socket serves"] == [what[:21] for what in told]
        finally:
            connection.close()
    assert ["its QMP socket serves"] == [
        hint.what[:21] for hint in hints(machine(qmp=Endpoint(path="q")), "qemu-kvm", parse([]), busy=True, encrypted="")
    ]


def test_a_port_in_another_network_namespace_is_told() -> None:
    """With the command that runs us there."""
    (hint,) = hints(machine(gdb=Endpoint(port=1)), "qemu-kvm", parse([]), busy=False, encrypted="")
    assert "does not listen on port 1 of this network namespace" in hint.what
    assert f"nsenter -t {os.getpid()} -n unspool guest list" == hint.mend


def test_another_machines_files_need_privileges() -> None:
    (hint,) = hints(machine(pid=1 << 22), "qemu-kvm", parse([]), busy=False, encrypted="")
    assert "not ours to see" in hint.what


def test_a_stopped_process_is_told() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            (hint,) = hints(machine(pid=process.pid, accel="kvm"), "qemu-kvm", parse([]), busy=False, encrypted="")
            assert f"kill -CONT {process.pid}" == hint.mend
            with pytest.raises(Unsupported, match="is stopped"):
                open_source(machine(pid=process.pid, qmp=Endpoint(path="q"), registers_by=("qmp-live",)))
        finally:
            process.kill()


def test_a_machine_without_a_way_in_says_what_mends_it() -> None:
    with pytest.raises(Unsupported) as caught:
        automatic(machine(registers_by=("tcg-state",)))
    assert caught.value.hint
    with pytest.raises(Unsupported, match="cannot be read by gdbstub"):
        open_source(machine(), "gdbstub")
    assert "qmp-live" == automatic(machine(registers_by=("tcg-state", "qmp-live", "qmp-stop")))
    assert "kvm-hold" == automatic(machine(accel="kvm", registers_by=("kvm-hold", "gdbstub")))
    assert "qmp-live" == automatic(machine(accel="kvm", registers_by=("gdbstub", "qmp-live", "qmp-stop")))


def test_names_of_hostile_machines_are_escaped() -> None:
    text = "\n".join(guest.lines([machine(name="\x1b]0;owned\a")]))
    assert "\x1b" not in text
    assert "\\x1b]0;owned" in text
    assert json.loads(json.dumps(guest.as_json(machine(name="\x1b")))) ["name"] == "\x1b"  # fmt: skip


def test_this_process_runs_no_machine() -> None:
    assert machine_of(os.getpid()) is None
    assert machine_of(1 << 22) is None
    assert os.getpid() not in {found.pid for found in find_machines()}


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON for programs, as text for people, whatever runs here."""
    assert 0 == main(["guest", "list", "--json", "--no-kernel"])
    assert isinstance(json.loads(capsys.readouterr().out), list)
    assert 0 == main(["guest", "list", "--no-kernel"])
    assert capsys.readouterr().out


LISTENER = """
import os, socket, sys
os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen(1)
print("ready", flush=True)
held = []
while True:
    held.append(listener.accept())
"""


# The rule of `channel`: through the process's own root or directory, a socket, and its own.


def test_a_relative_path_is_in_its_directory(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENER, str(tmp_path), "q.sock"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        try:
            assert ["q.sock"] == sockets.listening_paths(process.pid)
            for path in ("q.sock", str(tmp_path / "q.sock")):
                connect(Endpoint(path=path, pid=process.pid)).close()
            with pytest.raises(OSError, match="cross-device"):
                connect(Endpoint(path="../q.sock", pid=process.pid))
        finally:
            process.kill()


def test_another_process_socket_is_refused(tmp_path: Path) -> None:
    """A hostile command line may name any socket of the host."""
    with serving(FakeQmp, tmp_path / "qmp") as fake, subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(NoSuchTarget, match="is the socket of process"):
                connect(Endpoint(path=str(fake.path), pid=process.pid))
            connect(Endpoint(path=str(fake.path), pid=os.getpid())).close()
        finally:
            process.kill()


def test_what_is_no_socket_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(NoSuchTarget, match="is not a socket"):
            connect(Endpoint(path=str(path), pid=os.getpid()))


def test_a_port_of_another_process_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "60"]) as process:
        port = server.getsockname()[1]
        try:
            with pytest.raises(NoSuchTarget, match="does not listen"):
                connect(Endpoint(port=port, pid=process.pid))
            connect(Endpoint(port=port, pid=os.getpid())).close()
        finally:
            process.kill()


def test_a_thread_without_a_known_vcpu_is_never_idle() -> None:
    threads = VcpuThreads(os.getpid(), {0: os.getpid()})
    assert not threads.halted(0)
    assert not threads.halted(1)
    assert not VcpuThreads(1 << 22, {0: 1 << 22}).halted(0)

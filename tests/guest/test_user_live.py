"""User stacks of a real guest: a program without frame pointers whole to its entry, with files out of the guest's memory alone."""

from __future__ import annotations

import re

import pytest
from guest.live_guest import LiveGuest, Sample, looked_at
from guest_machines import GuestMachine

from unspool.capture.guest_user import UserStack
from unspool.formats.elf import Elf
from unspool.formats.elf.symtab import symbol_tables
from unspool.model.verdict import Stop, Verdict
from unspool.targets.guest.tasks import Task

pytestmark = pytest.mark.live


def functions(guest: LiveGuest, found: UserStack) -> list[str]:
    """The names of the frames, by the symbol table of the file as the guest has it in its page cache."""
    names = []
    for frame in found.stack.frames:
        mapping = found.process.space.find(frame.lookup_pc)
        assert mapping is not None
        file = found.process.file(mapping)
        assert file is not None
        data = guest.users.users.elf_bytes(file)
        assert data is not None
        elf = Elf(data, file=file.path)
        stated = elf.svma(mapping.file_offset(frame.lookup_pc))
        assert stated is not None
        names.append(next((symbol.name for table in symbol_tables(elf) for symbol in table.covering(stated)), "?"))
    return names


def sampled(guest: LiveGuest, name: str) -> list[Sample]:
    """Looks that found the program on a vCPU, distinct ones."""
    found: dict[tuple[int, int], Sample] = {}
    for _ in range(60):
        for vcpu in guest.stub.vcpus:
            sample = guest.sample(vcpu)
            if sample is not None and sample.task is not None and sample.task.comm == name:
                found[sample.state.registers.pc, sample.state.registers.sp] = sample
    return list(found.values())


def test_a_program_without_frame_pointers_is_whole_to_its_entry(guest_machine: GuestMachine) -> None:
    """Whether it is interrupted or not: reliable, and every function by its name."""
    with looked_at(guest_machine) as guest, guest_machine.workload("user"):
        samples = sampled(guest, "guest_user")
        assert samples
        # Within a few instructions of an entry registers are in no place that can be known; such a sample says so.
        walked = [sample.user for sample in samples if sample.user is not Stop.REG_UNAVAILABLE]
        assert walked
        for found in walked:
            assert isinstance(found, UserStack), found
            assert (Stop.END_PROCESS_ENTRY, Verdict.RELIABLE) == (found.stack.stop, found.stack.judgement.verdict)
        last = walked[-1]
        assert isinstance(last, UserStack)
        names = [name.partition(".")[0] for name in functions(guest, last)]
        assert ["main", "_start"] == [name for name in names if name in {"main", "_start"}]
        assert ["middle", "outer", "main"] == names[names.index("middle") : names.index("main") + 1]


def test_a_program_that_was_stopped_is_whole_too(guest_machine: GuestMachine) -> None:
    """From the registers at the base of its kernel stack. A busybox has no unwind data, and its stack says so."""
    with looked_at(guest_machine) as guest, guest_machine.workload("user") as (pid,):
        guest_machine.shell(f"kill -STOP {pid}; until grep -q 'State:.T' /proc/{pid}/status; do :; done")
        with guest.stopped():
            tasks = {task.pid: task for task in guest.tasks.all()}
            assert "T" == tasks[pid].state
            found = asleep(guest, tasks[pid])
            assert isinstance(found, UserStack), found
            assert (Stop.END_PROCESS_ENTRY, Verdict.RELIABLE) == (found.stack.stop, found.stack.judgement.verdict)
            shell = asleep(guest, tasks[1])
            assert isinstance(shell, UserStack), shell
            assert (Stop.NO_UNWIND_INFO, Verdict.UNRELIABLE) == (shell.stack.stop, shell.stack.judgement.verdict)


def asleep(guest: LiveGuest, task: Task) -> UserStack | Stop | None:
    """The user stack of a task that sleeps, None for one that does not."""
    thread = guest.tasks.sleeping(task, snapshot=True)
    return None if thread is None else guest.users.sleeping(task, guest.unwinder.unwind(thread, exact=False), snapshot=True)


def test_mappings_are_those_of_proc_maps(guest_machine: GuestMachine) -> None:
    """Addresses, rights, offsets, devices, inodes and paths; [vvar] is a name that only /proc/PID/maps gives."""
    pid = int(guest_machine.shell("pidof sleep").split()[0])
    said = guest_machine.shell(f"cat /proc/{pid}/maps")
    with looked_at(guest_machine) as guest, guest.stopped():
        task = next(task for task in guest.tasks.all() if task.pid == pid)
        process = guest.users.users.process(task.mm)
        assert process is not None
        lines = []
        for mapping in process.space:
            rights = "".join(
                letter if has else "-" for letter, has in zip("rwx", (mapping.readable, mapping.writable, mapping.executable), strict=True)
            )
            lines.append(
                f"{mapping.start:08x}-{mapping.end:08x} {rights}{'s' if mapping.shared else 'p'} {mapping.offset:08x} "
                f"{mapping.device[0]:02x}:{mapping.device[1]:02x} {mapping.inode} {mapping.path}".strip()
            )
        expected = [re.sub(r" +", " ", line).strip() for line in said.splitlines() if "-" in line]
        assert [line.removesuffix(" [vvar]") for line in expected] == lines


def test_a_build_id_comes_out_of_the_page_cache(guest_machine: GuestMachine) -> None:
    """That of busybox, whose notes lie in its first page."""
    with looked_at(guest_machine) as guest, guest.stopped():
        task = next(task for task in guest.tasks.all() if task.comm == "sh" and task.mm)
        process = guest.users.users.process(task.mm)
        assert process is not None
        (file,) = set(process.files.values())
        data = guest.users.users.elf_bytes(file)
        assert data is not None
        assert "/bin/busybox" == file.path
        assert Elf(data).build_id == guest.users.users.cache.build_id(file) != ""

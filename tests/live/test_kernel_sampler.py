"""What the sampler in the kernel takes, of whom, and that every sample is accounted for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from kernel_samples import SYSCALLS, addresses, enter_again, gathered, samples_of_blocked
from oracle.probe import uretprobe
from target_programs import Programs, running, wait_until

from unspool.capture.kernel import Sampler
from unspool.capture.records import RawSample, RecordFlag, samples
from unspool.capture.request import Request
from unspool.capture.syscall_names import syscall_number
from unspool.capture.triggers import Trigger, parse_trigger
from unspool.model.verdict import Stop, Verdict
from unspool.targets import procfs

pytestmark = pytest.mark.live

EXITED_AT_ONCE = 20


def rest_of(sampler: Sampler) -> list[RawSample]:
    """Stop sampling and give what is left, waiting samples included."""
    sampler.stop()
    sampler.flush()
    found: list[RawSample] = []
    while data := sampler.drain():
        found += samples(data)
    return found


def assert_accounted(sampler: Sampler, taken: int) -> None:
    """Every sample that the kernel took was emitted, and every emitted one has arrived."""
    counters = sampler.counters()
    assert counters["samples"] == counters["emitted"] + counters["lost-ring-full"] + counters["lost-no-scratch"]
    assert counters["emitted"] == taken
    assert 0 == sampler.pending


def test_a_spinning_program_is_sampled_whole(programs: Programs) -> None:
    with (
        running(programs.build("deep.c", "-O2"), "100", "spin") as process,
        Sampler(Request(pids=(process.pid,), frequency=499)) as sampler,
    ):
        sampler.start()
        found = gathered(sampler, lambda so_far: len(so_far) >= 20, "20 samples")
        found += rest_of(sampler)
        assert_accounted(sampler, len(found))
    for sample in found:
        if RecordFlag.NOT_RESUMED in sample.flags:
            continue
        assert (process.pid, process.pid) == (sample.pid, sample.tid)
        assert (Stop.END_PROCESS_ENTRY, Verdict.RELIABLE) == (sample.stop, sample.judgement.verdict)
        assert 100 < len(sample.user) < 120
    assert [sample.time_ns for sample in found if sample.time_ns > time.monotonic_ns()] == []


@pytest.mark.parametrize(
    ("depth", "deferred", "stop"),
    [("1000", False, Stop.END_PROCESS_ENTRY), ("3800", True, Stop.END_PROCESS_ENTRY), ("5000", True, Stop.FRAME_LIMIT)],
)
def test_deep_stacks(depth: str, stop: Stop, programs: Programs, *, deferred: bool) -> None:
    """A thousand frames at once, 3,900 later, and no more: what is deeper says so."""
    with running(programs.build("deep.c", "-O2"), depth) as process:
        found = samples_of_blocked(process.pid)[process.pid]
    assert {stop} == {sample.stop for sample in found}
    assert {min(int(depth) + 5, 4096)} == {min(len(sample.user), int(depth) + 5) for sample in found}
    assert deferred or any(not sample.flags & RecordFlag.DEFERRED for sample in found)


def test_a_cut_walk_is_put_off_and_a_blocked_threads_sample_is_flushed(programs: Programs) -> None:
    """The stack is too deep for the interrupt, and its thread never comes back: its sample is emitted as it was, with its time."""
    with running(programs.build("deep.c", "-O2"), "3000") as process, Sampler(Request(pids=(process.pid,), trigger=SYSCALLS)) as sampler:
        sampler.start()
        before = time.monotonic_ns()
        enter_again(process.pid)
        after = time.monotonic_ns()
        assert 1 <= sampler.pending
        found = rest_of(sampler)
        assert_accounted(sampler, len(found))
        assert 1 <= sampler.counters()["pending-flushed"]
    last = max(found, key=lambda sample: sample.time_ns)
    assert before < last.time_ns < after
    assert RecordFlag.NOT_RESUMED in last.flags
    assert not last.stop.is_end


def test_a_process_that_exits_leaves_no_sample_behind() -> None:
    """Every exit_group is one sample, though hardly any of these processes has its unwind data in memory, and none ever returns."""
    exit_group = syscall_number("exit_group")
    loop = f"read -r line; for i in $(seq {EXITED_AT_ONCE}); do /bin/true; done; read -r line"
    with (
        subprocess.Popen(["bash", "-c", loop], stdin=subprocess.PIPE) as shell,
        Sampler(Request(pids=(shell.pid,), trigger=parse_trigger("syscalls:exit_group"))) as sampler,
    ):
        assert shell.stdin is not None
        sampler.start()
        shell.stdin.write(b"go\n")
        shell.stdin.flush()
        found = gathered(sampler, lambda so_far: len({sample.pid for sample in so_far}) >= EXITED_AT_ONCE, "every process to exit")
        shell.stdin.write(b"end\n")
        shell.stdin.flush()
        assert 0 == shell.wait(60)
        found += rest_of(sampler)
        assert_accounted(sampler, len(found))
    assert {exit_group} == {sample.detail for sample in found}
    assert shell.pid in {sample.pid for sample in found}
    assert len(found) == len({sample.pid for sample in found})


def test_short_lived_processes_reach_the_end() -> None:
    script = Path(__file__).parents[1] / "programs" / "short_lived.sh"
    with subprocess.Popen(["bash", "-c", f"read -r line; . {script} 125"], stdin=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        with Sampler(Request(pids=(shell.pid,), frequency=999)) as sampler:
            sampler.start()
            shell.stdin.write(b"go\n")
            shell.stdin.close()
            found: list[RawSample] = []
            while shell.poll() is None:
                found += samples(sampler.drain())
                time.sleep(0.02)
            found += rest_of(sampler)
            assert_accounted(sampler, len(found))
    stops = Counter(sample.stop for sample in found)
    # A process that has given its memory back has no stack.
    walked = [sample for sample in found if sample.stop not in {Stop.EXITED, Stop.NO_USER_STACK}]
    assert len({sample.pid for sample in found}) > 50
    assert sum(sample.stop.is_end for sample in walked) >= 0.9 * len(walked), stops


def test_rows_of_a_library_are_not_used_for_another_at_its_place(programs: Programs) -> None:
    """Three libraries whose rows differ come and go at one address, a thousand times: every stack is whole and has its frames."""
    getppid = Trigger("syscalls", (syscall_number("getppid") or 0,), "syscalls:getppid")
    flags = ("-O2", "-shared", "-fPIC", "-nostdlib", "-Wl,-e,work", "-fno-stack-protector", "-fomit-frame-pointer")
    libraries = [str(programs.build("remap_library.c", *flags, f"-DPAD={pad}")) for pad in (24, 40, 88)]
    program = programs.build("remap.c", "-O2", "-pthread")
    with running(program, "-t", *libraries) as process, Sampler(Request(pids=(process.pid,), trigger=getppid)) as sampler:
        sampler.start()
        found = gathered(sampler, lambda so_far: len(so_far) >= 1000, "a thousand calls")
        found += rest_of(sampler)
        counters = sampler.counters()
        assert_accounted(sampler, len(found))
    # The last one was perhaps cut short by the end of the recording.
    shapes = Counter((sample.stop, len(sample.user)) for sample in found if not sample.flags & RecordFlag.NOT_RESUMED)
    assert {(Stop.END_PROCESS_ENTRY, 8)} == set(shapes), shapes
    assert 1 == len({tuple(addresses(sample)) for sample in found if not sample.flags & RecordFlag.NOT_RESUMED})
    # And what was learned of one mapping is kept while others change.
    assert counters["row-hits"] > 10 * counters["row-misses"]


def test_a_programs_rows_are_not_used_after_exec(programs: Programs) -> None:
    """One process number becomes three programs that differ in their frames only; each sample reaches the end with its own."""
    flags = ("-O2", "-no-pie", "-static", "-Wl,--eh-frame-hdr", "-fno-stack-protector", "-fomit-frame-pointer")
    first, second = (str(programs.build("exec_chain.c", *flags, f"-DPAD={pad}")) for pad in (24, 88))
    getppid = parse_trigger("syscalls:getppid")
    with running(first, second) as process, Sampler(Request(pids=(process.pid,), trigger=getppid)) as sampler:
        sampler.start()
        found = gathered(sampler, lambda so_far: len(so_far) >= 300, "300 programs")
        found += rest_of(sampler)
        assert_accounted(sampler, len(found))
    stops = Counter(sample.stop for sample in found if not sample.flags & RecordFlag.NOT_RESUMED)
    assert {Stop.END_PROCESS_ENTRY} == set(stops), stops


def test_children_of_a_target_are_followed_when_asked(programs: Programs) -> None:
    program = programs.build("deep.c", "-O2")
    script = f"read -r line; {program} 20 spin & {program} 20 spin & wait"
    for follow in (True, False):
        with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as shell:
            try:
                assert shell.stdin is not None
                with Sampler(Request(pids=(shell.pid,), frequency=499, follow=follow)) as sampler:
                    sampler.start()
                    shell.stdin.write(b"go\n")
                    shell.stdin.flush()
                    wait_until(lambda: len(children_of(shell.pid)) == 2, "two children")
                    if follow:
                        found = gathered(sampler, lambda so_far: {s.pid for s in so_far} >= set(children_of(shell.pid)), "both children")
                    else:
                        wait_until(lambda: sampler.counters()["filtered"] > 100, "samples of others")
                        found = []
                    found += rest_of(sampler)
                    assert follow or {sample.pid for sample in found} <= {shell.pid}
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The process's children now."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def test_a_static_program_that_only_section_headers_explain(programs: Programs) -> None:
    """GCC leaves PT_GNU_EH_FRAME out of it: its first stacks are cut, and then the walk is told where .eh_frame is."""
    program = programs.build("deep.c", "-O2", "-static", "-no-pie")
    with running(program, "20", "spin") as process, Sampler(Request(pids=(process.pid,), frequency=499)) as sampler:
        sampler.start()
        found = gathered(sampler, lambda so_far: so_far and so_far[-1].stop.is_end, "a whole stack")
    assert Stop.NO_UNWIND_INFO is found[0].stop
    assert (Stop.END_PROCESS_ENTRY, Verdict.RELIABLE) == (found[-1].stop, found[-1].judgement.verdict)
    assert 20 < len(found[-1].user) < 40


@pytest.mark.parametrize(("source", "stop"), [("no_tables.c", Stop.BAD_CFI), ("anonymous_code.c", Stop.ANON_CODE)])
def test_code_that_cannot_be_unwound_is_not_put_off_for_ever(source: str, stop: Stop, programs: Programs) -> None:
    """That a page cannot be had is learned once, in task context; afterwards the immediate walk knows."""
    with running(programs.build(source, "-O2")) as process, Sampler(Request(pids=(process.pid,), frequency=499)) as sampler:
        sampler.start()
        found = gathered(sampler, lambda so_far: Counter(s.stop for s in so_far)[stop] >= 40, "40 samples")
        found += rest_of(sampler)
        assert_accounted(sampler, len(found))
    assert sum(RecordFlag.DEFERRED in sample.flags for sample in found) < len(found) / 2
    assert {Verdict.UNRELIABLE} == {sample.judgement.verdict for sample in found if sample.stop is stop}


def test_one_thread_of_a_process(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "3") as process:
        threads = [tid for tid in procfs.thread_ids(process.pid) if tid != process.pid]
        with Sampler(Request(tids=(threads[1],), trigger=SYSCALLS)) as sampler:
            sampler.start()
            enter_again(process.pid)
            found = rest_of(sampler)
    assert {threads[1]} == {sample.tid for sample in found}


def test_kernel_frames_are_joined_to_the_users() -> None:
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=4M"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with Sampler(Request(pids=(process.pid,), frequency=499)) as sampler:
                sampler.start()
                found = gathered(
                    sampler, lambda so_far: any(s.kernel and s.user and s.stop.is_end for s in so_far), "a sample within a system call"
                )
        finally:
            process.kill()
    for sample in found:
        assert bool(sample.kernel) <= (RecordFlag.IN_KERNEL in sample.flags)
        assert all(address >> 63 for address in sample.kernel)


def test_a_32_bit_program_is_counted_and_not_walked(programs: Programs) -> None:
    program = programs.build("mode32.S", "-m32", "-nostdlib", "-static")
    with running(program) as process, Sampler(Request(pids=(process.pid,), trigger=SYSCALLS)) as sampler:
        sampler.start()
        enter_again(process.pid)
        found = rest_of(sampler)
        assert_accounted(sampler, len(found))
    assert found
    for sample in found:
        assert RecordFlag.COMPAT in sample.flags
        assert (Stop.UNSUPPORTED_RULE, Verdict.UNRELIABLE) == (sample.stop, sample.judgement.verdict)


def test_return_addresses_that_a_uretprobe_replaced_are_found(programs: Programs) -> None:
    program = programs.build("uretprobed.c", "-O2")
    with running(program, "30") as process:
        plain = samples_of_blocked(process.pid)[process.pid][-1]
    with uretprobe(program, "recurse"), running(program, "30") as process:
        probed = samples_of_blocked(process.pid)[process.pid][-1]
    assert (plain.stop, Verdict.RELIABLE) == (probed.stop, probed.judgement.verdict)
    # Address space layout differs by whole pages from run to run; the uprobe changes no offset within one.
    assert [address & 0xFFF for address in addresses(plain)] == [address & 0xFFF for address in addresses(probed)]


def test_the_profiler_may_run_in_a_pid_namespace(programs: Programs) -> None:
    """Numbers are those of the profiler's namespace: what it asks for, and what it gets."""
    script = Path(__file__).parents[1] / "programs" / "sample_in_namespace.py"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, str(script), str(programs.build("deep.c", "-O2"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert 0 == done.returncode, done.stderr
    asked, *got = map(int, done.stdout.split())
    assert {asked} == set(got)


def test_two_capabilities_are_enough(programs: Programs) -> None:
    script = Path(__file__).parents[1] / "programs" / "sample_with_two_capabilities.py"
    with running(programs.build("deep.c", "-O2"), "10", "spin"):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=180, check=False)
    assert 0 == done.returncode, done.stderr


def test_nothing_stays_in_the_kernel_after_sigkill() -> None:
    script = Path(__file__).parents[1] / "programs" / "sample_until_killed.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            programs = {int(word) for word in process.stdout.readline().split()}
            assert len(programs) >= 4
            assert programs <= loaded_programs()
        finally:
            process.send_signal(signal.SIGKILL)
    wait_until(lambda: not programs & loaded_programs(), "the kernel to unload the programs")


def loaded_programs() -> set[int]:
    """The numbers of all BPF programs in the kernel, by BPF_PROG_GET_NEXT_ID."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    found: set[int] = set()
    number = ctypes.c_uint32(0)
    while libbpf.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        found.add(number.value)
    return found

"""What this machine and this user can do, each tried by calling it: the checks of `unspool doctor`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unspool.capture import perf_event, tiny_bpf
from unspool.capture.kernel import Sampler, pid_namespace
from unspool.capture.proc import read_file, running
from unspool.capture.request import Request
from unspool.capture.sideband import Ring, online_cpus
from unspool.capture.stranger import Stranger
from unspool.errors import UnspoolError

AS_ROOT = "run it as root (sudo), or grant the capability: setpriv --ambient-caps +bpf,+perfmon,+sys_ptrace,+syslog (docs/guide.md)"


@dataclass(frozen=True, slots=True)
class Check:
    """One feature: whether it works, whether recording is impossible without it, what was found, and what mends it."""

    name: str
    works: bool
    needed: bool
    found: str
    mend: str = ""


class Missing(Exception):
    """A feature that does not work; the argument says what was found, `mend` what to do."""

    def __init__(self, found: str, mend: str = "") -> None:
        """Take both sentences."""
        super().__init__(found)
        self.mend = mend


def checks() -> Iterator[Check]:
    """Every check, made when it is asked for; none raises."""
    for name, needed, attempt in ATTEMPTS:
        try:
            yield Check(name, works=True, needed=needed, found=attempt())
        except Missing as missing:
            yield Check(name, works=False, needed=needed, found=str(missing), mend=missing.mend)
        except UnspoolError as error:
            yield Check(name, works=False, needed=needed, found=str(error), mend=error.hint)
        except OSError as error:
            yield Check(name, works=False, needed=needed, found=error.strerror or str(error), mend=AS_ROOT)


def can_record(found: list[Check]) -> bool:
    """Whether all works that recording needs."""
    return all(check.works or not check.needed for check in found)


def _perf_clock() -> str:
    level = (read_file("/proc/sys/kernel/perf_event_paranoid") or b"?").decode().strip()
    attributes = perf_event.EventAttributes(config=perf_event.SOFTWARE_CPU_CLOCK, period=10**9, flags=("disabled",))
    cpus = online_cpus()
    for cpu in cpus:
        try:
            os.close(perf_event.open_event(attributes, cpu=cpu))
        except UnspoolError as error:
            mend = f"{AS_ROOT}, or: sysctl kernel.perf_event_paranoid=-1"
            raise Missing(f"{error} (kernel.perf_event_paranoid is {level})", mend) from error
    return f"cpu-clock on {len(cpus)} CPUs (kernel.perf_event_paranoid is {level})"


def _perf_cycles() -> str:
    attributes = perf_event.EventAttributes(perf_event.TYPE_HARDWARE, perf_event.HARDWARE_CPU_CYCLES, 10**9, ("disabled",))
    try:
        os.close(perf_event.open_event(attributes, cpu=online_cpus()[0]))
    except UnspoolError as error:
        raise Missing(str(error), "nothing to do in a virtual machine: samples are taken by a timer instead") from error
    return "the counter of CPU cycles"


def _sideband() -> str:
    Ring(online_cpus()[0], pages=8).close()
    return "mappings with build ids, exec, fork and exit"


def _bpf_map() -> str:
    os.close(tiny_bpf.ring_buffer())
    return "a ring buffer"


def _bpf_program() -> str:
    os.close(tiny_bpf.program(tiny_bpf.PERF_EVENT))
    return "a program for perf events"


def _tracepoint() -> str:
    program = tiny_bpf.program(tiny_bpf.RAW_TRACEPOINT)
    try:
        os.close(tiny_bpf.attach_raw_tracepoint(program, "sys_enter"))
    finally:
        os.close(program)
    return "raw tracepoint sys_enter"


def _btf() -> str:
    data = read_file("/sys/kernel/btf/vmlinux")
    if not data or data[:2] not in {b"\x9f\xeb", b"\xeb\x9f"}:
        raise Missing(
            "/sys/kernel/btf/vmlinux is not there", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's are"
        )
    return f"types of the kernel, {len(data) >> 20} MB"


def _task_work() -> str:
    # The kernel's own list of functions that BPF programs may call; the name lost its "_impl" after 6.19.
    data = read_file("/sys/kernel/btf/vmlinux") or b""
    if b"\0bpf_task_work_schedule_resume" not in data:
        raise Missing(
            "bpf_task_work_schedule_resume is not there", "use kernel 6.18 or later: until then stacks end where a page is missing"
        )
    return "stacks are finished in task context when a page is missing"


def _sampler() -> str:
    with Sampler(Request(pids=(os.getpid(),))):
        return "Unspool's own programs are verified and loaded"


def _kernel_symbols() -> str:
    for line in (read_file("/proc/kallsyms") or b"").splitlines():
        if int(line.split()[0], 16):
            return "kernel functions have names"
    raise Missing("the kernel shows zeros for addresses", f"{AS_ROOT}, and: sysctl kernel.kptr_restrict=1")


def _ptrace() -> str:
    with Stranger() as stranger:
        stranger.seize()
    return "threads of other processes can be stopped"


def _read_memory() -> str:
    with Stranger() as stranger:
        stranger.read_memory()
    return "memory of other processes can be read"


def _maps() -> str:
    tried = [pid for pid in running() if read_file(f"/proc/{pid}/cmdline")]
    hidden = sum(not read_file(f"/proc/{pid}/maps") for pid in tried)
    # One or two may have ended meanwhile, or be guarded by the machine's owner.
    if 2 * hidden > len(tried):
        raise Missing(f"the mappings of {hidden} of {len(tried)} processes cannot be read", AS_ROOT)
    return "mappings of other processes"


def _map_files() -> str:
    with Stranger() as stranger:
        place = stranger.mapped_file()
        try:
            os.close(os.open(place, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            found = f"{error.strerror}: libraries that were deleted while they are in use have no names"
            raise Missing(found, "run it as root (sudo), or grant CAP_CHECKPOINT_RESTORE and CAP_DAC_READ_SEARCH") from error
    return "files that were deleted while they are mapped"


def _tracefs() -> str:
    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        with contextlib.suppress(OSError):
            if "events" in os.listdir(folder):  # noqa: PTH208 (one call)
                return folder
    raise Missing("not mounted, or not readable; no trigger of today needs it", "mount -t tracefs tracefs /sys/kernel/tracing")


def _namespace() -> str:
    if pid_namespace():
        raise Missing("this is a container's: only its processes are seen", "start the container with --pid=host")
    return "the machine's own: all processes are seen"


ATTEMPTS: tuple[tuple[str, bool, Callable[[], str]], ...] = (
    ("perf events", True, _perf_clock),
    ("hardware cycles", False, _perf_cycles),
    ("events of processes", True, _sideband),
    ("BPF maps", True, _bpf_map),
    ("BPF programs", True, _bpf_program),
    ("BTF", True, _btf),
    ("sampler", True, _sampler),
    ("deferred walks", False, _task_work),
    ("system calls", False, _tracepoint),
    ("tracefs", False, _tracefs),
    ("kernel symbols", False, _kernel_symbols),
    ("mappings", False, _maps),
    ("deleted files", False, _map_files),
    ("ptrace", False, _ptrace),
    ("process_vm_readv", False, _read_memory),
    ("PID namespace", False, _namespace),
)
"""The checks: name, whether recording is impossible without it, and the attempt, which says what it found."""

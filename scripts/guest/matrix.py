"""What is too slow for the suite, and its figures as a page (`make guests`): matrix.py OUTPUT.md.

Several kernels, three guests at once with a reboot and a crash among them, what sampling costs a guest, and a Debian kernel under KVM.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src"), str(ROOT / "tests" / "guest")]

import holds  # noqa: E402
from guest_machines import GuestMachine, Wanted, boot, command_line, fetched, initramfs_of  # noqa: E402
from target_programs import Programs  # noqa: E402
from test_stack_guest import compared  # noqa: E402

from unspool.session.guest_stacks import stacks_of_guest  # noqa: E402
from unspool.session.guests import GuestPlan  # noqa: E402
from unspool.store.reader import Recording, open_recording  # noqa: E402

GUESTS = ROOT / ".cache" / "guests"
UNSPOOL = [sys.executable, "-c", "import sys; from unspool.cli.main import main; sys.exit(main())"]
KERNELS = (("stable", ""), ("trixie", "trixie"), ("sid", "sid"))
RATES = (49, 99, 997)
PAIRS = 7
BLOCKS = 24_000
"""Blocks of 64 KiB that the measured dd copies: two to three seconds."""


class Bench:
    """The programs, the kernels and the scratch folder of one run."""

    def __init__(self, folder: Path) -> None:
        """Work in that folder."""
        self.folder = folder
        self.programs = Programs(folder)
        self.newer = self._newer_qemu()

    def _newer_qemu(self) -> tuple[str, ...]:
        done = subprocess.run(["bash", ROOT / "scripts/guest/fetch-qemu.sh", GUESTS / "qemu"], capture_output=True, text=True, check=False)
        return (str(GUESTS / "qemu" / "qemu"),) if done.returncode == 0 else ("qemu-system-x86_64",)

    @contextlib.contextmanager
    def guest(self, kernel: str, **options: object) -> Iterator[GuestMachine]:
        """A booted guest of that kernel; the kernels that are not the machine's own get the newer QEMU."""
        suite = dict(KERNELS)[kernel]
        folder = fetched(GUESTS / kernel, *([suite] if suite else []))
        initramfs = self.folder / f"{kernel}.initramfs"
        if not initramfs.exists():
            initramfs_of(folder, self.programs, initramfs)
        qemu = self.newer if suite else ("qemu-system-x86_64",)
        machine = boot(initramfs, Wanted(folder=folder, qemu=qemu, **options))  # type: ignore[arg-type]
        try:
            yield machine
        finally:
            machine.kill()

    def record(self, name: str, *options: str, during: Callable[[], None] = lambda: None) -> tuple[Path, str]:
        """A recording and what was said of it; `during` runs meanwhile."""
        path = self.folder / f"{name}.unspool"
        path.unlink(missing_ok=True)
        process = subprocess.Popen([*UNSPOOL, "record", "-o", str(path), *options], stderr=subprocess.PIPE, text=True)
        during()
        _, said = process.communicate(timeout=600)
        return path, said


def main() -> None:
    """Write the page."""
    output = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="unspool-guests-") as folder:
        bench = Bench(Path(folder))
        lines = list(page(bench))
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def page(bench: Bench) -> Iterator[str]:
    """The page's lines; a part that could not be done says why."""
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    yield "# Guests: measured results"
    yield ""
    load = os.getloadavg()[0]
    yield f"Written by `make guests` on Linux {platform.release()}, {os.cpu_count()} CPUs, load average {load:.1f} at the start; {qemu}."
    yield "Guests run under emulation (TCG) unless it says KVM, with 2 vCPUs and 256 MiB. [guests.md](guests.md) says what each part means."
    for title, part in (
        ("Kernels", kernels),
        ("Three guests at once, one rebooted and one killed", three),
        ("What sampling costs the guest", overhead),
        ("One hold", one_hold),
        ("A Debian kernel that boots under KVM", kvm),
    ):
        print(title, flush=True)
        yield ""
        yield f"## {title}"
        yield ""
        try:
            yield from part(bench)
        except Exception as error:  # noqa: BLE001 - the other parts are still worth having
            yield f"Not measured: {type(error).__name__}: {str(error)[:300]}"


def kernels(bench: Bench) -> Iterator[str]:
    """A row for each kernel: names, stacks of sleeping tasks, and a recording."""
    yield "Sleeping: tasks whose kernel stack is the one that /proc/PID/stack shows. User: stacks with user frames that reach `_start`."
    yield ""
    yield "| kernel | kallsyms lines found | sleeping | samples | whole | reliable | user |"
    yield "|---|---|---|---|---|---|---|"
    for name, _ in KERNELS:
        with bench.guest(name) as machine:
            yield f"| {machine.release} | {names(machine)} | {sleeping(machine)} | {recorded(bench, machine)} |"


def names(machine: GuestMachine) -> str:
    """How many of the symbols of vmlinux that the guest lists were found."""
    listed = int(machine.shell("grep -cv '\\[' /proc/kallsyms", patience=120))
    found = stacks_of_guest(GuestPlan(str(machine.pid)), 2).kernel.symbols
    return f"{found} of {listed}"


def sleeping(machine: GuestMachine) -> str:
    """How many of the tasks that did not move have the stack that the guest prints."""
    equal, differing = compared(machine)
    return f"{len(equal)} of {len(equal) + len(differing)}"


def recorded(bench: Bench, machine: GuestMachine) -> str:
    """Samples of system calls and of a program that spins: how many whole, reliable, and down to _start."""
    with machine.workload("calls"), machine.workload("user"):
        path, _ = bench.record(machine.name, "--guest", machine.name, "-d", "6", "--guest-budget", "50")
    with open_recording(path) as recording:
        total, whole, reliable = recording.rows(
            "SELECT count(*), count(*) FILTER (ending = 'whole'), count(*) FILTER (verdict = 'reliable')"
            " FROM samples JOIN stacks USING (stack)"
        )[0]
        user, started = starts(recording)
    return f"{total} | {whole} | {reliable} | {started} of {user}"


def starts(recording: Recording) -> tuple[int, int]:
    """Samples with user frames, and those whose outermost function is _start."""
    functions = dict(recording.rows("SELECT frame, function FROM symbols"))
    rows = recording.rows("SELECT frames, kernel_frames FROM samples JOIN stacks USING (stack)")
    user = [frames for frames, kernel in rows if len(frames) > kernel]
    return len(user), sum(functions.get(frames[-1]) == "_start" for frames in user)


def three(bench: Bench) -> Iterator[str]:
    """Three guests in one recording; one reboots meanwhile, one is killed."""
    with bench.guest("stable") as first, bench.guest("stable") as second, bench.guest("sid") as third:
        guests = (first, second, third)
        with contextlib.ExitStack() as busy:
            for machine in guests:
                busy.enter_context(machine.workload("user"))

            def during() -> None:
                wait_for_samples(bench.folder / "three.unspool", len(guests))
                second.send_sysrq("b")
                second.wait_ready(2)
                third.kill()
                time.sleep(4)

            path, said = bench.record(
                "three", "--guest", ",".join(m.name for m in guests), "-d", "25", "--guest-budget", "30", during=during
            )
        with open_recording(path) as recording:
            rows = recording.rows(
                "SELECT g.name, g.generation, g.kernel_release, count(*), count(*) FILTER (st.ending = 'whole') FROM samples s"
                " JOIN stacks st USING (stack) JOIN processes p USING (process) JOIN guests g USING (guest) GROUP BY ALL ORDER BY 1, 2"
            )
    numbers = {machine.name: f"guest {index}" for index, machine in enumerate(guests, 1)}
    yield "| guest | generation | kernel | samples | whole |"
    yield "|---|---|---|---|---|"
    for name, *rest in rows:
        yield f"| {numbers[name]} | {' | '.join(map(str, rest))} |"
    yield ""
    yield "What `record` said at the end:"
    yield ""
    for line in said.splitlines():
        if line.startswith("  guest "):
            yield "    " + re.sub("|".join(map(re.escape, numbers)), lambda match: numbers[match[0]].removeprefix("guest "), line.strip())


def overhead(bench: Bench) -> Iterator[str]:
    """The CPU time of a fixed piece of work in a guest of one vCPU, without and with sampling, one after the other."""
    yield f"A guest of one vCPU copies a fixed amount with dd; {PAIRS} pairs of runs, one without and one with sampling."
    yield "Work: CPU time of the vCPU's thread without / with sampling; it depends little on what else the host does. Held: the share of"
    yield "time that the guest stood still. The ratio is work x (1 - held): how fast the guest is while it is sampled, 1 being no cost."
    yield "QEMU has a priority above the host's other programs, so that a hold is not a wait for a CPU. Median (lowest to highest)."
    yield ""
    yield "| back end | rate asked for | budget | ratio | work | held | rounds a second |"
    yield "|---|---|---|---|---|---|---|"
    with bench.guest("stable", cpus=1, nice=-12) as machine:
        work(machine)
        for method, rate, budget in (*(("gdbstub", rate, 90) for rate in RATES), ("gdbstub", 997, 10), ("tcg-state", 99, 10)):
            works, held, rounds = [], [], []
            for _ in range(PAIRS):
                alone = work(machine)
                with_it, said = sampled(bench, machine, method, rate, budget)
                found = re.search(r"(?:held ([\d.]+)%.*)?; \S+, (\d+) Hz at the end", said)
                if found is None:
                    raise RuntimeError(said)
                works.append(alone / with_it)
                held.append(float(found[1] or 0) / 100)
                rounds.append(int(found[2]))
            ratios = [cost * (1 - share) for cost, share in zip(works, held, strict=True)]
            share = f"{statistics.median(held):.1%} | {statistics.median(rounds):.0f}"
            yield f"| {method} | {rate} Hz | {budget} % | {spread(ratios)} | {spread(works)} | {share} |"


def spread(values: list[float]) -> str:
    """The median, the lowest and the highest."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def work(machine: GuestMachine) -> float:
    """CPU seconds of the vCPU's thread that the work takes."""
    threads = Path(f"/proc/{machine.pid}/task").iterdir()
    (vcpu,) = (thread for thread in threads if (thread / "comm").read_text().startswith("CPU 0/"))
    # Documentation/scheduler/sched-stats.rst: nanoseconds spent on a CPU.
    begun = int((vcpu / "schedstat").read_text().split()[0])
    machine.shell(f"dd if=/dev/zero of=/dev/null bs=64k count={BLOCKS} 2>/dev/null", patience=300)
    return (int((vcpu / "schedstat").read_text().split()[0]) - begun) / 1e9


def sampled(bench: Bench, machine: GuestMachine, method: str, rate: int, budget: int) -> tuple[float, str]:
    """The same while the guest is sampled, and what the recorder said."""
    path = bench.folder / "overhead.unspool"
    path.unlink(missing_ok=True)
    options = ["--guest", machine.name, "--guest-registers", method, "-F", str(rate), "--guest-budget", str(budget), "-o", str(path)]
    process = subprocess.Popen([*UNSPOOL, "record", *options], stderr=subprocess.PIPE, text=True)
    # An idle guest has no samples; what is measured begins when there are some, and they come when it works.
    with machine.workload("user"):
        wait_for_samples(path, 1)
    seconds = work(machine)
    process.send_signal(2)
    return seconds, process.communicate(timeout=120)[1]


def wait_for_samples(path: Path, guests: int) -> None:
    """Wait until the recording that is being made has samples of so many guests."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception), open_recording(path) as recording:
            if recording.rows("SELECT count(DISTINCT guest) FROM samples JOIN processes USING (process)")[0][0] >= guests:
                return
        time.sleep(0.2)


def one_hold(bench: Bench) -> Iterator[str]:
    """What each back end's hold costs."""
    with bench.guest("stable") as machine:
        yield from holds.holds(machine)


def kvm(bench: Bench) -> Iterator[str]:
    """A Debian kernel under KVM, as far as this machine's KVM carries it, sampled by kvm-hold."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield "Not measured: /dev/kvm does not open here."
        return
    folder = fetched(GUESTS / "stable")
    elf = bench.folder / "vmlinux"
    elf.write_bytes(uncompressed((folder / "vmlinuz").read_bytes()))
    wanted = Wanted(folder=bench.folder, accel="kvm", cpu="qemu64,-cx16,-xsave", cpus=1, append="noxsave nokaslr")
    (bench.folder / "vmlinuz").unlink(missing_ok=True)
    elf.rename(bench.folder / "vmlinuz")
    initramfs = initramfs_of(folder, bench.programs, bench.folder / "kvm.initramfs")
    with tempfile.TemporaryDirectory(prefix="unspool-kvm-") as place, (Path(place) / "stderr").open("wb") as errors:
        command = command_line("unspool-kvm", Path(place), initramfs, wanted)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        machine = GuestMachine("unspool-kvm", Path(place), process)
        try:
            time.sleep(20)
            path, said = bench.record("kvm", "--guest", str(machine.pid), "-d", "40")
        finally:
            machine.process.kill()
            machine.process.wait()
        console = machine.console.decode(errors="replace").strip().splitlines()
    with open_recording(path) as recording:
        rows = recording.rows(
            "SELECT st.ending, st.stop, st.verdict, count(*) FROM samples JOIN stacks st USING (stack) GROUP BY ALL ORDER BY 4 DESC"
        )
        functions = recording.rows(
            "SELECT y.function, count(*) FROM samples JOIN stacks st USING (stack) JOIN symbols y ON y.frame = st.frames[1]"
            " GROUP BY 1 ORDER BY 2 DESC"
        )
        registers = recording.rows("SELECT registers_by, memory_by, kernel_release FROM guests")
    yield f"Read by {registers[0][0]}, memory by {registers[0][1]}, Linux {registers[0][2]}." if registers else "No kernel was found."
    yield ""
    yield "| end | stop | verdict | samples |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""
    yield f"Most frequent innermost functions: {', '.join(f'`{name}` {count}' for name, count in functions[:6]) or 'none'}."
    yield ""
    yield f"    {' '.join(line.strip() for line in said.splitlines() if line.startswith('  guest '))}"
    yield ""
    yield f"The guest's last line on its console: `{console[-1] if console else 'none'}`."


def uncompressed(image: bytes) -> bytes:
    """The ELF file inside a bzImage (Documentation/arch/x86/boot.rst: payload_offset): XZ, or LZ4 in its legacy frame."""
    start = ((image[0x1F1] or 4) + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    # The last four bytes are the size without compression.
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little") - 4]
    if payload[:4] != bytes.fromhex("02214c18"):
        return lzma.LZMADecompressor().decompress(payload)
    found, at = [], 4
    while at + 4 <= len(payload) and (size := int.from_bytes(payload[at : at + 4], "little")):
        found.append(lz4_block(payload[at + 4 : at + 4 + size]))
        at += 4 + size
    return b"".join(found)


def lz4_block(data: bytes) -> bytes:
    """One block of LZ4 (lz4_Block_format.md): literals, then a match further back, again and again."""
    out, at = bytearray(), 0

    def length(start: int) -> int:
        nonlocal at
        while start >= 15:
            start += data[at]
            at += 1
            if data[at - 1] != 255:
                break
        return start

    while at < len(data):
        token = data[at]
        at += 1
        literals = length(token >> 4)
        out += data[at : at + literals]
        at += literals
        if at >= len(data):
            break
        back = int.from_bytes(data[at : at + 2], "little")
        at += 2
        size = length(token & 15) + 4
        match = bytes(out[-back : len(out) - back + size])
        out += (match * -(-size // len(match)))[:size]
    return bytes(out)


if __name__ == "__main__":
    main()

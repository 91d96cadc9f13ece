"""What `record` says of a recording: a line while it runs, some lines at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unspool.cli.printable import printable
from unspool.model.percent import percent
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.session.recording import Progress

if TYPE_CHECKING:
    from unspool.capture.frames import Tally
    from unspool.session.guest_feed import GuestTotals

MOST_STOPS = 6
MOST_MODULES = 3


def progress_line(stage: str, progress: Progress) -> str:
    """One line on how far the recording is."""
    if stage == "naming":
        return f"{progress.samples:,} samples; naming their functions: {progress.files_named} of {progress.files} files"
    whole, cut = ended(progress.tallies)
    parts = [f"{progress.seconds:.0f} s", f"{progress.samples:,} samples", f"{percent(whole, whole + cut)} whole"]
    if progress.lost:
        parts.append(f"{progress.lost:,} lost")
    return "  ".join(parts)


def summary(progress: Progress) -> Iterator[str]:
    """The recording in some lines: how much, how much of it whole, and why the rest is cut."""
    whole, cut = ended(progress.tallies)
    stacks = whole + cut
    yield f"{printable(str(progress.output))}: {progress.samples:,} samples in {progress.seconds:.1f} s, {progress.lost:,} lost"
    for name, why in progress.refused_guests:
        yield f"  guest {printable(name)} was left out: {printable(why)}"
    names = Counter(guest.name for guest in progress.guests)
    for guest in progress.guests:
        name = guest.name if names[guest.name] == 1 else f"{guest.name}@{guest.pid}"
        yield f"  guest {printable(name)}: {guest_line(guest, progress.seconds)}"
    if not progress.samples:
        yield "  no samples: nothing of what was asked for ran on a CPU"
        return
    reliable = sum(tally.samples for tally in progress.tallies if tally.verdict is Verdict.RELIABLE)
    words = [f"{percent(whole, stacks)} of the stacks are whole"]
    if reliable:
        words.append(f"{percent(reliable, stacks)} reliable")
    kernel_only = sum(tally.samples for tally in progress.tallies) - stacks
    if kernel_only:
        words.append(f"{kernel_only:,} samples without user stack (kernel threads, exiting threads)")
    yield "  " + ", ".join(words)
    if cut:
        yield "  cut:"
        yield from cut_lines(progress.tallies, stacks)


def guest_line(guest: GuestTotals, seconds: float) -> str:
    """What was sampled of a guest, and what it cost it."""
    again = guest.generations - 1
    boots = "" if again < 1 else ", rebooted once" if again == 1 else f", rebooted {again} times"
    kernel = printable(guest.kernel) or "no kernel found (`unspool guest list` says why)"
    parts = [f"{kernel}{boots}", f"{guest.samples:,} samples", f"{guest.idle:,} idle"]
    if guest.in_kernel:
        parts.append(
            f"{guest.in_kernel:,} in its kernel, {percent(guest.kernel_whole, guest.in_kernel)} of them whole to the kernel's entry"
        )
    if guest.lost:
        parts.append(f"{guest.lost:,} lost")
    if guest.held and seconds:
        times = f"median {guest.median * 1000:.2f} ms, longest {guest.longest * 1000:.1f} ms"
        parts.append(f"held {guest.held / seconds:.1%} of the time ({times})")
    parts.append(f"{guest.registers_by}, {guest.rate:.0f} Hz at the end")
    if guest.method is not Trust.ORC:
        parts.append(f"kernel stacks guessed by {guest.method.label}")
    if guest.missing:
        # Kernels without ORC were built with frame pointers (arch/x86/Kconfig.debug), but nothing is guessed unasked.
        guess = "; --guest-method frame-pointer guesses" if "(ORC)" in guest.missing and guest.method is Trust.ORC else ""
        parts.append(printable(guest.missing) + guess)
    if guest.ended:
        parts.append(f"ended: {printable(guest.ended)}")
    return "; ".join(parts)


def ended(tallies: Sequence[Tally]) -> tuple[int, int]:
    """Samples with a whole stack, and with a cut one."""
    counted = Counter[str]()
    for tally in tallies:
        counted[tally.stop.ending] += tally.samples
    return counted["whole"], counted["cut"]


def cut_lines(tallies: Sequence[Tally], stacks: int) -> Iterator[str]:
    """A line for each reason, the most frequent first, with the modules that caused it."""
    reasons: dict[Stop, Counter[str]] = defaultdict(Counter)
    for tally in tallies:
        if tally.stop.ending == "cut" and tally.samples:
            reasons[tally.stop][tally.module] += tally.samples
    ordered = sorted(reasons.items(), key=lambda item: -item[1].total())
    for stop, modules in ordered[:MOST_STOPS]:
        named = [f"{printable(path.rpartition('/')[2])} {count:,}" for path, count in modules.most_common(MOST_MODULES) if path]
        yield f"    {percent(modules.total(), stacks):>8}  {stop.label:<22} {', '.join(named)}".rstrip()
    rest = sum(modules.total() for _, modules in ordered[MOST_STOPS:])
    if rest:
        yield f"    {percent(rest, stacks):>8}  {len(ordered) - MOST_STOPS} other reasons"

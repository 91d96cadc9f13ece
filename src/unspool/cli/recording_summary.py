"""What `record` says of a recording: a line while it runs, some lines at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from unspool.capture.frames import Tally
from unspool.cli.printable import printable
from unspool.model.verdict import Stop, Verdict
from unspool.session.recording import Progress

MOST_STOPS = 6
MOST_MODULES = 3


def progress_line(stage: str, progress: Progress) -> str:
    """One line on how far the recording is."""
    if stage == "naming":
        return f"{progress.samples:,} samples; naming their functions: {progress.files_named} of {progress.files} files"
    whole, cut = ended(progress.tallies)
    parts = [f"{progress.seconds:.0f} s", f"{progress.samples:,} samples", f"{share(whole, whole + cut)} whole"]
    if progress.lost:
        parts.append(f"{progress.lost:,} lost")
    return "  ".join(parts)


def summary(progress: Progress) -> Iterator[str]:
    """The recording in some lines: how much, how much of it whole, and why the rest is cut."""
    whole, cut = ended(progress.tallies)
    stacks = whole + cut
    yield f"{printable(str(progress.output))}: {progress.samples:,} samples in {progress.seconds:.1f} s, {progress.lost:,} lost"
    if not progress.samples:
        yield "  no samples: nothing of what was asked for ran on a CPU"
        return
    reliable = sum(tally.samples for tally in progress.tallies if tally.verdict is Verdict.RELIABLE)
    words = [f"{share(whole, stacks)} of the stacks are whole"]
    if reliable:
        words.append(f"{share(reliable, stacks)} reliable")
    kernel_only = sum(tally.samples for tally in progress.tallies) - stacks
    if kernel_only:
        words.append(f"{kernel_only:,} samples without user stack (kernel threads, exiting threads)")
    yield "  " + ", ".join(words)
    if cut:
        yield "  cut:"
        yield from cut_lines(progress.tallies, stacks)


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
        yield f"    {share(modules.total(), stacks):>7}  {stop.label:<22} {', '.join(named)}".rstrip()
    rest = sum(modules.total() for _, modules in ordered[MOST_STOPS:])
    if rest:
        yield f"    {share(rest, stacks):>7}  {len(ordered) - MOST_STOPS} other reasons"


def share(part: int, whole: int) -> str:
    """A share in per cent, never rounded up to all.

    >>> share(9999, 10000), share(1, 3), share(0, 0)
    ('99.9 %', '33.3 %', '-')
    """
    if not whole:
        return "-"
    tenths = part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10} %" if part < whole else "100 %"

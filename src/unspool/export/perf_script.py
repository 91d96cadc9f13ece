"""The text that `perf script` prints, for inferno, stackcollapse-perf, speedscope, the Firefox Profiler and whatever else reads it.

A mark is the outermost frame of a stack that is not whole, and outside it stands `guest:NAME` for a guest's stack. The CPU of a guest's
sample is its virtual one. Lost: trust, source lines.
"""

from __future__ import annotations

from collections.abc import Iterator

from unspool.export.options import Options, machine_mark, one_line
from unspool.profile.columns import NONE, Profile

MARK = "([unspool])"
"""What stands where a frame has its file, for a mark."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """A block of lines for each sample, in order of time."""
    import numpy as np

    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    lines = _frame_lines(profile)
    starts, frames = profile.stacks.start.tolist(), profile.stacks.frames.tolist()
    texts: dict[int, str] = {}
    tasks = [f"{one_line(task.thread).strip() or ':-1'} {task.pid:>7}/{task.tid:<7}" for task in profile.tasks]
    events = ["cpu-clock" if event.trigger == "cpu" else one_line(str(event)).replace(" ", "_") for event in profile.events]
    period = profile.about.period_ns or 1
    block: list[str] = []
    guests = [f"\t{0:>16x} {one_line(name)} {MARK}\n" if name else "" for name in (machine_mark(profile, task) for task in profile.tasks)]
    cpus = np.maximum(np.where(timed.vcpu == NONE, timed.cpu, timed.vcpu), 0)
    columns = (timed.time_ns, cpus, timed.task, timed.event, timed.stack, timed.weight)
    for time_ns, cpu, task, event, stack, weight in zip(*(column.tolist() for column in columns), strict=True):
        if stack not in texts:
            mark = profile.mark(stack) if options.marks else ""
            outermost = f"\t{0:>16x} {mark} {MARK}\n" if mark else ""
            texts[stack] = "".join(lines[frame] for frame in frames[starts[stack] : starts[stack + 1]]) + outermost
        seconds = f"{time_ns // 10**9}.{time_ns % 10**9 // 1000:06d}"
        block.append(f"{tasks[task]} [{cpu:03d}] {seconds}: {weight * period:>10} {events[event]}: \n{texts[stack]}{guests[task]}\n")
        if len(block) == 5000:
            yield "".join(block).encode()
            block.clear()
    yield "".join(block).encode()


def _frame_lines(profile: Profile) -> list[str]:
    """Each frame's lines, an inlined call before the function it was inlined into."""
    frames, entries = profile.frames, profile.entries
    names = [one_line(function.name) if function.named else "[unknown]" for function in profile.functions]
    modules = [one_line(module.path) or "[unknown]" for module in profile.modules] + ["[unknown]"]
    starts, functions, offsets = frames.entry_start.tolist(), entries.function.tolist(), entries.offset.tolist()
    lines = []
    for frame, (address, module) in enumerate(zip(frames.address.tolist(), frames.module.tolist(), strict=True)):
        last = starts[frame + 1] - 1
        inlined = [f"\t{address:>16x} {names[functions[entry]]} (inlined)\n" for entry in range(starts[frame], last)]
        name = names[functions[last]]
        place = name if name == "[unknown]" else f"{name}+{offsets[last]:#x}"
        lines.append("".join(inlined) + f"\t{address:>16x} {place} ({modules[module]})\n")
    return lines

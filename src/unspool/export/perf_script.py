"""The text that `perf script` prints, for inferno, stackcollapse-perf, speedscope, the Firefox Profiler and whatever else reads it.

A mark is the outermost frame of a stack that is not whole, and outside it stands `guest:NAME` for a guest's stack. The CPU of a guest's
sample is its virtual one. Lost: trust, source lines.
"""

from __future__ import annotations

from collections.abc import Iterator

from unspool.export.options import Options, machine_mark, marks_of, one_line
from unspool.export.pieces import Pieces
from unspool.profile.columns import NONE, Profile, Timed

MARK = "([unspool])"
"""What stands where a frame has its file, for a mark."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """A block of lines for each sample, in order of time."""
    import numpy as np

    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    texts = _Texts(profile, timed, options)
    tasks = [f"{one_line(task.thread).strip() or ':-1'} {task.pid:>7}/{task.tid:<7}" for task in profile.tasks]
    events = ["cpu-clock" if event.trigger == "cpu" else one_line(str(event)).replace(" ", "_") for event in profile.events]
    ends = [_outermost(machine_mark(profile, task)) + b"\n" for task in profile.tasks]
    cpus = np.maximum(np.where(timed.vcpu == NONE, timed.cpu, timed.vcpu), 0)
    seconds, micros = timed.time_ns // 10**9, timed.time_ns % 10**9 // 1000
    columns = (seconds, micros, cpus, timed.task, timed.event, timed.stack, timed.weight * (profile.about.period_ns or 1))
    for start in range(0, len(timed), 5000):
        block: list[bytes] = []
        for second, micro, cpu, task, event, stack, weight in zip(
            *(column[start : start + 5000].tolist() for column in columns), strict=True
        ):
            head = f"{tasks[task]} [{cpu:03d}] {second}.{micro:06d}: {weight:>10} {events[event]}: \n"
            block += (head.encode(), texts.take(stack), ends[task])
        yield b"".join(block)


class _Texts:
    """The lines of stacks; those of a stack are kept from its first sample to its last."""

    def __init__(self, profile: Profile, timed: Timed, options: Options) -> None:
        import numpy as np

        self._pieces = Pieces(profile.stacks.start, profile.stacks.frames, _frame_lines(profile))
        self._ends = [_outermost(mark) for mark in marks_of(profile, options)]
        self._left = np.bincount(timed.stack, minlength=len(profile.stacks)).tolist()
        self._kept: dict[int, bytes] = {}

    def take(self, stack: int) -> bytes:
        """The lines, for one sample."""
        self._left[stack] -= 1
        if stack in self._kept:
            return self._kept[stack] if self._left[stack] else self._kept.pop(stack)
        text = b"".join(self._pieces[stack]) + self._ends[stack]
        if self._left[stack]:
            self._kept[stack] = text
        return text


def _outermost(name: str) -> bytes:
    return f"\t{0:>16x} {one_line(name)} {MARK}\n".encode() if name else b""


def _frame_lines(profile: Profile) -> list[bytes]:
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
        lines.append(("".join(inlined) + f"\t{address:>16x} {place} ({modules[module]})\n").encode())
    return lines

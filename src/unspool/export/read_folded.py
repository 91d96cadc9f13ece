"""Folded stacks read: `root;caller;function 12` a line, as flamegraph.pl takes them."""

from __future__ import annotations

from collections.abc import Iterator

from unspool.errors import BadInput
from unspool.export.reading import ReadCall, ReadEnd, ReadFrame, ReadSample, end_of_mark, guest_of_mark

SUFFIXES = {"_[k]": True, "_[i]": False, "_[j]": False, "_[w]": False}
"""What stackcollapse scripts put behind names, and whether it means the kernel."""


def samples(data: bytes, *, first_is_process: bool = True) -> Iterator[ReadSample]:
    """One sample a line; `first_is_process`: the first frame is a process's name, as our export and stackcollapse-perf.pl write it.

    BadInput names the line that is none.
    """
    known: dict[str, ReadFrame] = {}
    for number, line in enumerate(data.decode("utf-8", "backslashreplace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        path, _, count = line.rpartition(" ")
        if not path or not count.isascii() or not count.isdigit() or len(count) > 18:
            raise BadInput(f"line {number} is not `frame;frame;frame COUNT`", hint="Is this folded text? --format chooses another format.")
        names = path.split(";")
        guest = guest_of_mark(names[0]) if first_is_process and len(names) > 1 else None
        if guest:
            names.pop(0)
        process = names.pop(0) if first_is_process and len(names) > 1 else ""
        end = end_of_mark(names[0])
        if end:
            names.pop(0)
        frames = tuple(known.setdefault(name, _frame(name)) for name in reversed(names))
        yield ReadSample(frames, count=int(count), process=process, thread=process, end=end or ReadEnd(), guest=guest)


def _frame(name: str) -> ReadFrame:
    kernel = False
    for suffix, is_kernel in SUFFIXES.items():
        if name.endswith(suffix):
            name, kernel = name.removesuffix(suffix), is_kernel
    return ReadFrame((ReadCall(name),), kernel=kernel)

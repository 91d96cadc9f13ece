"""A recording made of another program's profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.errors import BadInput, BadRequest
from unspool.export import read_folded, read_perf_script
from unspool.export.reading import ReadAbout, ReadEnd, ReadFrame, ReadModule, ReadSample
from unspool.model.symbol import Symbol
from unspool.model.verdict import Judgement, Stop
from unspool.store.place import MAGIC, MAGIC_OFFSET

if TYPE_CHECKING:
    from unspool.store.writer import Writer

MOST_ROWS = 2_000_000
"""A profile of more samples than that is stored with one row for each stack, and the number of its samples as weight."""
COMMITTED = 50_000


@dataclass(frozen=True, slots=True)
class Source:
    """A format that can be read: the suffixes that choose it, and its reader."""

    suffixes: tuple[str, ...]
    read: Callable[[bytes], tuple[ReadAbout, Iterator[ReadSample]]]


def _pprof(data: bytes) -> tuple[ReadAbout, Iterator[ReadSample]]:
    from unspool.export import read_pprof

    return read_pprof.read(data)


SOURCES = {
    "folded": Source((".folded", ".collapsed", ".collapsedstack.txt"), lambda data: (ReadAbout(), read_folded.samples(data))),
    "pprof": Source((".pb.gz", ".pprof", ".pb"), _pprof),
    "perf-script": Source((".perf", ".linux-perf.txt"), lambda data: (ReadAbout(), read_perf_script.samples(data))),
}


PERF_DATA = b"PERFILE2"
"""How a perf.data begins (tools/perf/Documentation/perf.data-file-format.txt, Linux 6.18)."""


def source_of(path: Path) -> Source:
    """The format that the file's suffix names; BadRequest when none does, with what to do for files that are often tried."""
    for source in SOURCES.values():
        if path.name.lower().endswith(source.suffixes):
            return source
    head = _head(path)
    if head.startswith(PERF_DATA):
        raise BadRequest(
            f"{path} is perf's own format, which perf reads",
            hint=f"perf script -i {path} | unspool import --format perf-script - -o OUT.unspool",
        )
    if head[MAGIC_OFFSET:].startswith(MAGIC):
        raise BadRequest(f"{path} is a recording already", hint="`unspool report`, `serve` and the others read it as it is.")
    raise BadRequest(f"{path} has no suffix that names a format", hint=f"Choose one with --format: {', '.join(SOURCES)}.")


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of a pipe, which can be read only once."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def import_profile(path: Path, source: Source, output: Path, *, replace: bool = False) -> int:
    """Read the profile and write the recording; the number of samples."""
    from unspool.store.header import Header
    from unspool.store.writer import Writer

    try:
        about, samples = source.read(path.read_bytes())
        read = list(samples)
    except BadInput as error:
        raise error.within(str(path)) from None
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
    frequency = 1e9 / about.period_ns if about.period_ns else 0.0
    header = Header(about.started_ns, 0, "", "", "", 0, frequency=frequency, trigger="cpu", command=f"imported from {path.name}")
    with Writer(output, header, replace=replace) as writer:
        written = _Import(writer).add(read)
        writer.machine({f"comment-{number}": comment for number, comment in enumerate(about.comments, 1)})
        latest = max((sample.time_ns or 0 for sample in read), default=0)
        writer.finish(max(about.duration_ns, latest))
    return written


class _Import:
    """Turns what was read into rows."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._frames: dict[ReadFrame, int] = {}
        self._modules: dict[str, int] = {}

    def add(self, samples: list[ReadSample]) -> int:
        """Write all samples; how many rows they became."""
        as_weight = sum(sample.count for sample in samples) > MOST_ROWS
        rows = 0
        for sample in samples:
            repeat, weight = (1, sample.weight * sample.count) if as_weight else (sample.count, sample.weight)
            self._add(sample, repeat, weight)
            rows += repeat
            if rows // COMMITTED != (rows - repeat) // COMMITTED:
                self.writer.commit()
        return rows

    def _add(self, sample: ReadSample, repeat: int, weight: int) -> None:
        writer = self.writer
        guest = writer.guest(sample.guest) if sample.guest else None
        process = writer.process(sample.pid, 0, sample.process, guest=guest)
        thread = writer.thread(process, sample.tid, sample.thread)
        kernel_frames = 0
        while kernel_frames < len(sample.frames) and sample.frames[kernel_frames].kernel:
            kernel_frames += 1
        frames = tuple(self._frame(frame) for frame in sample.frames)
        end = sample.end
        judgement = Judgement(end.verdict, end.reason)
        stack = writer.stack(frames, kernel_frames, end.stop, self._stop_module(end), judgement)
        for _ in range(repeat):
            writer.sample(sample.time_ns or 0, process, thread, sample.cpu, sample.trigger, sample.detail, weight, stack, vcpu=sample.vcpu)

    def _frame(self, frame: ReadFrame) -> int:
        known = self._frames.get(frame)
        if known is not None:
            return known
        # A frame without an address (folded text has none) gets a number of its own in its place.
        address = len(self._frames) + 1 if frame.address is None else frame.address
        module = self._module(frame.module) if frame.module else None
        number = self.writer.frame(module, address, frame.offset, "kernel" if frame.kernel else "user", None)
        if frame.calls:
            last = len(frame.calls) - 1
            self.writer.name(
                number,
                tuple(
                    Symbol(call.function, call.offset, call.file or None, call.line or None, inlined=place < last)
                    for place, call in enumerate(frame.calls)
                ),
            )
        self._frames[frame] = number
        return number

    def _module(self, module: ReadModule) -> int:
        number = self.writer.module(module.path, module.build_id, "kernel" if module.kernel else "file")
        self._modules.setdefault(module.path, number)
        self._modules.setdefault(module.path.rpartition("/")[2], number)
        return number

    def _stop_module(self, end: ReadEnd) -> int | None:
        if not end.module or end.stop is Stop.NONE:
            return None
        return self._modules[end.module] if end.module in self._modules else self._module(ReadModule(end.module))

"""pprof: gzipped protocol buffers as `go tool pprof`, Pyroscope, Parca and speedscope read them (profile.proto of github.com/google/pprof).

Each sample has the labels `verdict`, `ending`, `stop`, `stop_module`, `reason`, `process`, `thread`, `pid`, `tid`,
`event` when it is not the CPU clock, `cgroup`; in guests `guest`, `guest_generation`, `guest_uuid`, `guest_kernel` and `vcpu`.
Lost: time of single samples, trust of frames.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from unspool.export import profile_pb2 as pb
from unspool.export.frames import location_addresses, used_frames
from unspool.export.options import Options, kinds_of_labels, machine_labels
from unspool.export.pieces import Pieces
from unspool.export.strings import Numbered
from unspool.export.wire import field, packed, varint
from unspool.profile.columns import NONE, Module, Profile


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The compressed message."""
    # Level 6 is what Go's pprof writes with; 9 takes four times as long for two percent.
    yield gzip.compress(_Builder(profile, options).build(), 6, mtime=0)


class _Builder:
    """Fills a message; mapping, location and function ids are places in their tables plus one, because 0 stands for none."""

    def __init__(self, profile: Profile, options: Options) -> None:
        self.profile = profile
        self.title = options.title
        self.message = pb.Profile()
        self.strings: Numbered[str] = Numbered("")

    def build(self) -> bytes:
        """The serialised message: its fields stand in the order of their numbers, samples (2) after their types (1)."""
        about, message, string = self.profile.about, self.message, self._string
        message.time_nanos = about.started_ns
        message.duration_nanos = round(about.duration_s * 1e9)
        message.sample_type.add(type=string("samples"), unit=string("count"))
        if about.period_ns:
            message.sample_type.add(type=string("cpu"), unit=string("nanoseconds"))
            message.period_type.type, message.period_type.unit = string("cpu"), string("nanoseconds")
            message.period = about.period_ns
        else:
            message.sample_type.add(type=string("weight"), unit=string("count"))
        types = pb.Profile(sample_type=message.sample_type).SerializeToString()
        self._mappings(self._locations())
        samples = b"".join(self._samples())
        words = (self.title, f"{about.command}", f"{about.hostname}, Linux {about.kernel} {about.arch}", f"{about.lost} samples lost")
        message.comment.extend(string(word) for word in words if word)
        message.string_table.extend(self.strings.things)
        rest = message.SerializeToString().removeprefix(types)
        return types + samples + rest

    def _string(self, text: str) -> int:
        return self.strings.number(text.encode("utf-8", "backslashreplace").decode())

    def _locations(self) -> dict[int, list[int]]:
        """Add the frames that samples use, with their functions; the addresses seen in each module."""
        profile, string = self.profile, self._string
        frames, entries = profile.frames, profile.entries
        starts, modules, addresses = frames.entry_start.tolist(), frames.module.tolist(), location_addresses(profile).tolist()
        function, file, line = entries.function.tolist(), entries.file.tolist(), entries.line.tolist()
        functions: Numbered[tuple[int, int]] = Numbered()
        seen: dict[int, list[int]] = {}
        for frame in used_frames(profile).tolist():
            module, address = modules[frame], addresses[frame]
            if module != NONE:
                seen.setdefault(module, []).append(address)
            location = self.message.location.add(id=frame + 1, mapping_id=module + 1, address=address)
            for entry in range(starts[frame], starts[frame + 1]):
                location.line.add(function_id=functions.number((function[entry], file[entry])) + 1, line=line[entry])
        for number, (index, path) in enumerate(functions.things):
            name = string(profile.functions[index].name)
            self.message.function.add(
                id=number + 1, name=name, system_name=name, filename=string(profile.files[path]) if path != NONE else 0
            )
        return seen

    def _mappings(self, seen: dict[int, list[int]]) -> None:
        # pprof takes the first mapping for the program that was profiled.
        program = self._program()
        for number in sorted(seen, key=lambda number: (self.profile.modules[number].path != program, number)):
            self._mapping(number, self.profile.modules[number], seen[number])

    def _program(self) -> str:
        """The path of the program that has most samples."""
        samples: dict[str, int] = {}
        counted = self.profile.counted
        for task, count in zip(counted.task.tolist(), counted.count.tolist(), strict=True):
            exe = self.profile.tasks[task].exe
            samples[exe] = samples.get(exe, 0) + count
        samples.pop("", None)
        return max(samples, key=lambda exe: samples[exe], default="")

    def _mapping(self, number: int, module: Module, addresses: list[int]) -> None:
        start = 0 if module.kind == "file" else min(addresses)
        mapping = self.message.mapping.add(id=number + 1, memory_start=start, memory_limit=min(max(addresses) + 1, 2**64 - 1))
        mapping.filename, mapping.build_id = self._string(module.path), self._string(module.build_id)
        # Everything that could be named is named: the reader need not look for symbols in files of its own machine.
        mapping.has_functions = mapping.has_filenames = mapping.has_line_numbers = mapping.has_inline_frames = True

    def _samples(self) -> Iterator[bytes]:
        profile, counted = self.profile, self.profile.counted
        kind_of, kinds = kinds_of_labels(profile)
        labels = [b"".join(self._text_label(key, value) for key, value in kind.items()) for kind in kinds]
        tasks = [self._task_labels(task) for task in range(len(profile.tasks))]
        events = [b"" if str(event) == "cpu" else self._text_label("event", str(event)) for event in profile.events]
        period = profile.about.period_ns or 1
        rows = zip(*(getattr(counted, name).tolist() for name in ("task", "event", "stack", "vcpu", "count", "weight")), strict=True)
        # As text: pprof takes the number 0 for no label.
        vcpus = {vcpu: b"" if vcpu == NONE else self._text_label("vcpu", str(vcpu)) for vcpu in set(counted.vcpu.tolist())}
        locations = Pieces(profile.stacks.start, profile.stacks.frames, [varint(frame + 1) for frame in range(len(profile.frames.module))])
        for (task, event, stack, vcpu, count, weight), ids in zip(rows, locations.of(counted.stack), strict=True):
            places = field(1, b"".join(ids)) if ids else b""
            values = packed(2, (count, weight * period))
            yield field(2, b"".join((places, values, labels[kind_of[stack]], tasks[task], events[event], vcpus[vcpu])))

    def _text_label(self, key: str, value: str) -> bytes:
        return field(3, pb.Label(key=self._string(key), str=self._string(value)).SerializeToString())

    def _task_labels(self, number: int) -> bytes:
        task = self.profile.tasks[number]
        texts = [("process", task.process), ("thread", task.thread), *machine_labels(self.profile, task)]
        labels = [self._text_label(key, value) for key, value in texts]
        numbers = [pb.Label(key=self._string(key), num=value) for key, value in (("pid", task.pid), ("tid", task.tid))]
        return b"".join((*labels, *(field(3, label.SerializeToString()) for label in numbers)))

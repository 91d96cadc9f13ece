"""OTLP profiles (`ProfilesData` of profiles.v1development) as OpenTelemetry collectors take them, with the time of every sample.

Each sample has the attributes `unspool.verdict`, `unspool.ending`, `unspool.stop`, `unspool.stop_module` and `unspool.reason` beside
those of its thread and process, in a guest `unspool.guest`, `unspool.guest_generation`, `unspool.guest_kernel` and `unspool.vcpu`;
each location has `profile.frame.type` and `unspool.frame.trust`; the profile has `unspool.lost`, the samples that could not be taken.
Lost: CPU numbers.
The bytes are an `ExportProfilesServiceRequest` as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.profiles.v1development import profiles_pb2 as pb

import unspool
from unspool.export.frames import location_addresses, used_frames
from unspool.export.options import Options, kinds_of_labels, machine_labels
from unspool.export.pieces import Pieces
from unspool.export.strings import Numbered
from unspool.export.wire import field, packed, varint
from unspool.profile.columns import NONE, Profile, Timed, trust_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Attribute = tuple[str, str | int]
STACK_INDEX = varint(1 << 3)
"""Field 1 of a sample, a number."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The serialised message."""
    yield _Builder(profile, options).build()


def message(profile: Profile, options: Options) -> Any:  # noqa: ANN401 - the package has no types
    """The message `ProfilesData`."""
    return pb.ProfilesData.FromString(_Builder(profile, options).build())


class _Builder:
    """Fills a message. Place 0 of every table is its zero value, as the format asks, so a place is an index plus one."""

    def __init__(self, profile: Profile, options: Options) -> None:
        self.profile = profile
        self.options = options
        self.data = pb.ProfilesData()
        self.strings: Numbered[str] = Numbered("")
        self.attributes: Numbered[Attribute] = Numbered(("", ""))
        self.stacks: Numbered[int] = Numbered(NONE)

    def build(self) -> bytes:
        """The serialised message. Samples and stacks, of which there are many, are put between the fields of message objects."""
        dictionary = self.data.dictionary
        for table in (dictionary.mapping_table, dictionary.location_table, dictionary.function_table):
            table.add()
        dictionary.link_table.add()
        resource, scope = pb.ResourceProfiles(), pb.ScopeProfiles()
        self._resource(resource.resource)
        scope.scope.name, scope.scope.version = "unspool", unspool.__version__
        self._mappings()
        places = self._locations()
        profile = self._profile()
        stacks = b"".join(self._stacks(places))
        self._attributes()
        dictionary.string_table.extend(self.strings.things)
        scopes = resource.SerializeToString() + field(2, scope.SerializeToString() + field(2, profile))
        return field(1, scopes) + field(2, dictionary.SerializeToString() + stacks)

    def _string(self, text: str) -> int:
        return self.strings.number(text.encode("utf-8", "backslashreplace").decode())

    def _resource(self, resource: Any) -> None:  # noqa: ANN401
        about = self.profile.about
        service = about.command.split(" ")[0].rpartition("/")[2] or "unspool"
        known = {
            "service.name": service,
            "host.name": about.hostname,
            "host.arch": about.arch,
            "os.type": "linux",
            "os.version": about.kernel,
        }
        for key, value in known.items():
            if value:
                resource.attributes.add(key=key).value.string_value = value

    def _mappings(self) -> None:
        for module in self.profile.modules:
            mapping = self.data.dictionary.mapping_table.add(filename_strindex=self._string(module.path))
            if module.build_id:
                mapping.attribute_indices.append(self.attributes.number(("process.executable.build_id.gnu", module.build_id)))

    def _locations(self) -> dict[int, int]:
        """Add the frames that samples use; for each its place in the table."""
        profile = self.profile
        frames, entries = profile.frames, profile.entries
        starts, modules, trusts = frames.entry_start.tolist(), frames.module.tolist(), frames.trust.tolist()
        addresses = location_addresses(profile).tolist()
        function, file, line = entries.function.tolist(), entries.file.tolist(), entries.line.tolist()
        functions: Numbered[tuple[int, int]] = Numbered((NONE, NONE))
        places: dict[int, int] = {}
        for frame in used_frames(profile).tolist():
            module = modules[frame]
            kind = "kernel" if module != NONE and profile.modules[module].kind == "kernel" else "native"
            marks = (("profile.frame.type", kind), ("unspool.frame.trust", trust_label(trusts[frame])))
            location = self.data.dictionary.location_table.add(mapping_index=module + 1, address=addresses[frame])
            location.attribute_indices.extend(self.attributes.number(mark) for mark in marks)
            for entry in range(starts[frame], starts[frame + 1]):
                location.lines.add(function_index=functions.number((function[entry], file[entry])), line=line[entry])
            places[frame] = len(places) + 1
        for number, path in functions.things[1:]:
            name = self._string(profile.functions[number].name)
            file_name = self._string(profile.files[path]) if path != NONE else 0
            self.data.dictionary.function_table.add(name_strindex=name, system_name_strindex=name, filename_strindex=file_name)
        return places

    def _profile(self) -> bytes:
        about, timed = self.profile.about, self.profile.timed
        assert timed is not None, "this format needs the time of single samples"
        found = pb.Profile()
        moments = timed.time_ns - about.monotonic_ns + about.started_ns
        first = min(about.started_ns, int(moments.min())) if len(moments) else about.started_ns
        last = int(moments.max()) + 1 if len(moments) else first
        found.time_unix_nano = first
        found.duration_nano = max(about.started_ns + round(about.duration_s * 1e9), last) - first
        found.sample_type.type_strindex, found.sample_type.unit_strindex = self._string("samples"), self._string("count")
        # The fields stand in the order of their numbers: the sample type is 1, samples are 2.
        kind = pb.Profile(sample_type=found.sample_type).SerializeToString()
        if about.period_ns:
            # Pyroscope knows a CPU profile by samples/count with a period of cpu/nanoseconds.
            found.period_type.type_strindex, found.period_type.unit_strindex = self._string("cpu"), self._string("nanoseconds")
            found.period = about.period_ns
        if about.lost:
            found.attribute_indices.append(self.attributes.number(("unspool.lost", about.lost)))
        samples = b"".join(self._samples(timed, moments))
        rest = found.SerializeToString().removeprefix(kind)
        return kind + samples + rest

    def _samples(self, timed: Timed, moments: NDArray[np.int64]) -> Iterator[bytes]:
        import numpy as np

        order = np.lexsort((timed.time_ns, timed.vcpu, timed.stack, timed.event, timed.task))
        keys = np.stack([timed.task[order], timed.event[order], timed.stack[order], timed.vcpu[order]])
        changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
        bounds = [0, *changes.tolist(), len(order)] if len(order) else []
        kind_of, kinds = kinds_of_labels(self.profile)
        stack_attributes = [self._numbers([(f"unspool.{key}", value) for key, value in kind.items()]) for kind in kinds]
        task_attributes = [self._task(number) for number in range(len(self.profile.tasks))]
        event_attributes = [self._numbers([("unspool.event", str(event))]) for event in self.profile.events]
        weight, moment = timed.weight[order].tolist(), moments[order].astype("<u8").tobytes()
        for (start, end), (task, event, stack, vcpu) in zip(pairwise(bounds), keys[:, bounds[:-1]].T.tolist(), strict=True):
            number = varint(self.stacks.number(stack))
            attributes = stack_attributes[kind_of[stack]] + task_attributes[task] + event_attributes[event] + self._vcpu(vcpu)
            values, times = packed(4, weight[start:end]), field(5, moment[start * 8 : end * 8])
            yield field(2, b"".join((STACK_INDEX, number, field(2, attributes) if attributes else b"", values, times)))

    def _stacks(self, locations: dict[int, int]) -> Iterator[bytes]:
        """The table of stacks, field 7 of the dictionary."""
        import numpy as np

        frames = self.profile.stacks
        numbers = [varint(locations.get(frame, 0)) for frame in range(len(self.profile.frames.module))]
        yield field(7, b"")
        used = np.array(self.stacks.things[1:], dtype=np.int64)
        for places in Pieces(frames.start, frames.frames, numbers).of(used):
            yield field(7, field(1, b"".join(places)) if places else b"")

    def _task(self, number: int) -> bytes:
        task = self.profile.tasks[number]
        known: list[Attribute] = [("process.pid", task.pid), ("process.executable.name", task.process)]
        known += [("process.executable.path", task.exe)] if task.exe else []
        # Control groups have a name in OpenTelemetry's semantic conventions, guests have none.
        labels = machine_labels(self.profile, task)
        known += [("process.linux.cgroup" if key == "cgroup" else f"unspool.{key}", value) for key, value in labels]
        return self._numbers([*known, ("thread.id", task.tid), ("thread.name", task.thread)])

    def _vcpu(self, vcpu: int) -> bytes:
        return b"" if vcpu == NONE else self._numbers([("unspool.vcpu", vcpu)])

    def _numbers(self, attributes: list[Attribute]) -> bytes:
        """The numbers of those attributes, packed."""
        return b"".join(varint(self.attributes.number(attribute)) for attribute in attributes)

    def _attributes(self) -> None:
        table = self.data.dictionary.attribute_table
        table.add()
        for key, value in self.attributes.things[1:]:
            attribute = table.add(key_strindex=self._string(key))
            if isinstance(value, int):
                attribute.value.int_value = value
            else:
                attribute.value.string_value = value.encode("utf-8", "backslashreplace").decode()

"""pprof read: protocol buffers, gzipped or not, with the labels that our export gives samples."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

from unspool.errors import BadInput
from unspool.export import profile_pb2 as pb
from unspool.export.reading import ReadAbout, ReadCall, ReadEnd, ReadFrame, ReadModule, ReadSample
from unspool.model.guest import Guest
from unspool.model.verdict import Stop, Verdict

LARGEST = 4 << 30
"""How many bytes a compressed profile may become."""


def read(data: bytes) -> tuple[ReadAbout, Iterator[ReadSample]]:
    """What the profile says of itself, and its samples; BadInput when it is not one."""
    from google.protobuf.message import DecodeError

    try:
        message = pb.Profile.FromString(_unpacked(data) if data[:2] == b"\x1f\x8b" else data)
    except (DecodeError, zlib.error) as error:
        raise BadInput(f"not a pprof profile ({error})", hint="--format chooses another format.") from None
    profile = _Profile(message)
    if not message.sample_type or not profile.strings or profile.strings[0]:
        raise BadInput("not a pprof profile (it has no sample type)", hint="--format chooses another format.")
    return profile.about(), profile.samples()


def _unpacked(data: bytes) -> bytes:
    """The bytes of a gzip file, up to a limit: a small file must not fill the memory."""
    engine = zlib.decompressobj(wbits=31)
    out = io.BytesIO()
    out.write(engine.decompress(data, LARGEST))
    if engine.unconsumed_tail:
        raise BadInput(f"the profile is larger than {LARGEST >> 30} GiB")
    return out.getvalue()


class _Profile:
    """A message with its references followed; one that leads nowhere is BadInput."""

    def __init__(self, message: Any) -> None:  # noqa: ANN401 - generated classes have no types at run time
        self.message = message
        self.strings = list(message.string_table)
        self._functions = {function.id: function for function in message.function}
        self._mappings = {mapping.id: mapping for mapping in message.mapping}
        self._modules = {0: None, **{mapping.id: self._module(mapping) for mapping in message.mapping}}
        self._frames = {location.id: self._frame(location) for location in message.location}

    def about(self) -> ReadAbout:
        message = self.message
        units = {self._string(message.period_type.type), self._string(message.period_type.unit)}
        period = message.period if units == {"cpu", "nanoseconds"} else 0
        comments = tuple(self._string(index) for index in message.comment)
        return ReadAbout(message.time_nanos, message.duration_nanos, max(period, 0), comments)

    def samples(self) -> Iterator[ReadSample]:
        value = self._value()
        for sample in self.message.sample:
            if value >= len(sample.value):
                raise BadInput("a sample has fewer values than the profile has sample types")
            amount = sample.value[value]
            if amount <= 0:
                continue
            yield self._sample(sample, amount)

    def _value(self) -> int:
        """Which of a sample's values to take: the number of samples, else the last one, as pprof does."""
        types = [(self._string(kind.type), self._string(kind.unit)) for kind in self.message.sample_type]
        return types.index(("samples", "count")) if ("samples", "count") in types else len(types) - 1

    def _sample(self, sample: Any, amount: int) -> ReadSample:  # noqa: ANN401
        texts = {self._string(label.key): self._string(label.str) for label in sample.label if label.str}
        numbers = {self._string(label.key): label.num for label in sample.label if not label.str}
        kind = self.message.sample_type[self._value()]
        is_count = self._string(kind.unit) == "count"
        trigger, _, detail = texts.get("event", "cpu").partition(":")
        try:
            frames = tuple(self._frames[location] for location in sample.location_id)
        except KeyError as error:
            raise BadInput(f"a sample refers to location {error}, which is not there") from None
        return ReadSample(
            frames=frames,
            count=amount if is_count else 1,
            weight=1 if is_count else amount,
            pid=_number(numbers.get("pid", 0)),
            tid=_number(numbers.get("tid", numbers.get("thread_id", 0))),
            process=texts.get("process", ""),
            thread=texts.get("thread", texts.get("process", "")),
            trigger=trigger,
            detail=detail,
            end=_end(texts),
            guest=_guest(texts),
            vcpu=_digits(texts.get("vcpu", "")) if texts.get("guest") else None,
        )

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self.strings):
            raise BadInput(f"string {index} is not in the profile's table")
        return str(self.strings[index])

    def _module(self, mapping: Any) -> ReadModule:  # noqa: ANN401
        path = self._string(mapping.filename)
        return ReadModule(path, self._string(mapping.build_id), kernel=path.startswith(("[kernel", "[guest.")))

    def _frame(self, location: Any) -> ReadFrame:  # noqa: ANN401
        calls = []
        for line in location.line:
            function = self._functions.get(line.function_id)
            if function is None:
                raise BadInput(f"location {location.id} refers to function {line.function_id}, which is not there")
            if name := self._string(function.name):
                calls.append(ReadCall(name, self._string(function.filename), max(line.line, 0) & 0x7FFF_FFFF))
        if location.mapping_id not in self._modules:
            raise BadInput(f"location {location.id} refers to mapping {location.mapping_id}, which is not there")
        module, mapping = self._modules[location.mapping_id], self._mappings.get(location.mapping_id)
        address = location.address or None
        if module is None or mapping is None or module.kernel or address is None or address < mapping.memory_start:
            return ReadFrame(tuple(calls), module, address, kernel=bool(module and module.kernel))
        return ReadFrame(tuple(calls), module, address, (address - mapping.memory_start + mapping.file_offset) % 2**63)


def _number(value: int) -> int:
    return value if 0 <= value < 2**31 else 0


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _guest(texts: dict[str, str]) -> Guest | None:
    """The guest that our own labels name."""
    name, generation = texts.get("guest"), _digits(texts.get("guest_generation", "1"))
    if not name or generation is None:
        return None
    return Guest(name, 0, generation=generation, uuid=texts.get("guest_uuid", ""), kernel_release=texts.get("guest_kernel", ""))


def _end(texts: dict[str, str]) -> ReadEnd:
    """What our own labels say; nothing for a profile of another program."""
    try:
        stop, reason = (Stop.of(texts.get(key, "none")) for key in ("stop", "reason"))
        verdict = Verdict[texts.get("verdict", "none").upper()]
    except (KeyError, ValueError):
        return ReadEnd()
    return ReadEnd(stop, texts.get("stop_module", ""), verdict, reason)

"""The records, counters and constants of native/ and of Python are the same; a record's bytes become the sample that they state."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.capture import kernel, records
from unspool.capture.counters import Counter
from unspool.capture.records import HEADER, RecordFlag, RecordTrigger, UserFrame, sample, samples, user_frame
from unspool.model.verdict import Judgement, Stop, Trust, Verdict

NATIVE = Path(__file__).parents[2] / "native"
CONSTANTS = {
    "KERNEL_FRAMES_MAX": records.KERNEL_FRAMES_MAX,
    "DEFERRED_FRAMES_MAX": records.DEFERRED_FRAMES_MAX,
    "RECORD_SIZE_MAX": records.RECORD_MAX,
    "NO_BAD_FRAME": records.NO_BAD_FRAME,
    "FRAME_EXACT": 0x10,
    "FRAME_SIGNAL": 0x20,
    "TRIGGER_CPU": RecordTrigger.CPU,
    "TRIGGER_SYSCALL": RecordTrigger.SYSCALL,
    "COUNT_MAX": len(Counter),
    **{f"RECORD_{flag.name}": flag.value for flag in RecordFlag},
    **{f"COUNT_{counter.name}": counter.value for counter in Counter},
    "sizeof(struct record)": HEADER.size,
    "sizeof(struct sampler_config)": kernel.CONFIG.size,
    "sizeof(struct unread_file)": ctypes.sizeof(kernel._UnreadFile),
    "UNREAD_MAX": kernel._UNREAD_MAX,
}


def facts(tmp_path: Path) -> dict[str, int]:
    """What the C compiler says of the constants and of every field of `struct record`."""
    lines = [f'printf("%s %lld\\n", "{name}", (long long)({name}));' for name in CONSTANTS]
    lines += [f'printf("{field} %zu\\n", offsetof(struct record, {field}));' for field in records.FIELDS]
    source = tmp_path / "facts.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <capture.h>\n#include <record.h>\nint main(void) {\n"
        + "\n".join(lines)
        + "\n}\n"
    )
    program = tmp_path / "facts"
    subprocess.run(["gcc", "-I", NATIVE, source, "-o", program], check=True, timeout=120)
    output = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60).stdout
    return {name: int(value) for name, _, value in (line.rpartition(" ") for line in output.splitlines())}


def test_python_and_c_state_the_same_layout(tmp_path: Path) -> None:
    said = facts(tmp_path)
    for name, value in CONSTANTS.items():
        assert int(value) == said[name], name
    offset = 0
    for field, code in zip(records.FIELDS, HEADER.format.removeprefix("<"), strict=True):
        assert said[field] == offset, field
        offset += struct.calcsize(code)


def test_every_counter_of_the_header_has_a_name() -> None:
    names = re.findall(r"^\s+COUNT_(\w+)(?: = \d+)?,", (NATIVE / "record.h").read_text(encoding="utf-8"), re.MULTILINE)
    assert [*Counter.__members__, "MAX"] == names


def record(*, kernel_frames: tuple[int, ...] = (), user: tuple[int, ...] = (), **values: int) -> bytes:
    """One record, field by field."""
    number = len(kernel_frames) + len(user)
    fields = dict.fromkeys(records.FIELDS, 0) | {
        "size": HEADER.size + 8 * number,
        "first_bad_frame": records.NO_BAD_FRAME,
        "n_kernel": len(kernel_frames),
        "n_user": len(user),
    }
    fields |= values
    return HEADER.pack(*fields.values()) + struct.pack(f"<{number}Q", *kernel_frames, *user)


def test_a_record_becomes_a_sample() -> None:
    marked = (0x10 | Trust.REGISTERS) << 56 | 0x401000, Trust.CFI << 56 | 0x402000
    found = sample(
        record(
            kernel_frames=(0xFFFFFFFF81000000,), user=marked, time_ns=5, start_ns=3, pid=7, tid=8, cpu=1, trigger=2, flags=5, detail=257,
            stop=Stop.NO_MAPPING, stop_address=0x500000, verdict=Verdict.UNRELIABLE, reason=Stop.NO_MAPPING, first_bad_frame=1,
        )
    )  # fmt: skip
    assert (5, 3, 7, 8, 1) == (found.time_ns, found.start_ns, found.pid, found.tid, found.cpu)
    assert (RecordTrigger.SYSCALL, 257) == (found.trigger, found.detail)
    assert RecordFlag.DEFERRED | RecordFlag.IN_KERNEL == found.flags
    assert (0xFFFFFFFF81000000,) == found.kernel
    inner = UserFrame(0x401000, Trust.REGISTERS, exact=True, signal=False)
    assert (inner, UserFrame(0x402000, Trust.CFI, exact=False, signal=False)) == found.user
    assert (Stop.NO_MAPPING, 0x500000) == (found.stop, found.stop_address)
    assert Judgement(Verdict.UNRELIABLE, Stop.NO_MAPPING, 1) == found.judgement


def test_the_vsyscall_page_keeps_its_address() -> None:
    assert 0xFFFFFFFFFF600400 == user_frame(0x10 << 56 | 0xFFFFFFFFFF600400 & (1 << 56) - 1).address


def test_records_follow_one_another() -> None:
    data = record(pid=1) + record(pid=2, user=(1, 2, 3)) + record(pid=3)
    assert [1, 2, 3] == [found.pid for found in samples(data)]


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1, HEADER.size + 8])
def test_a_record_of_a_wrong_size_ends_the_batch(size: int) -> None:
    assert [1] == [found.pid for found in samples(record(pid=1) + record(pid=2, size=size))]


@given(st.binary(max_size=400))
def test_any_bytes_are_split_into_records_or_nothing(data: bytes) -> None:
    assert all(HEADER.size <= len(part) for part in records.split(data))

"""What the writers of large recordings stand on: stacks as lists in blocks, and numbers as protocol buffers write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.profiles.v1development import profiles_pb2
from store.recordings import big

from unspool.cli.main import main
from unspool.export.pieces import BLOCK, Pieces, in_common
from unspool.export.wire import field, packed, varint


def test_stacks_in_blocks_are_the_stacks_one_by_one() -> None:
    """The empty ones at both ends, and more of them than one block holds."""
    lengths = np.arange(2 * BLOCK + 7) % 4
    start = np.concatenate(([0], np.cumsum(lengths)))
    pieces = Pieces(start, np.arange(start[-1]) % 5, "abcde")
    everyone = np.arange(len(pieces))
    assert [pieces[stack] for stack in everyone.tolist()] == list(pieces.of(everyone))
    assert [list("bc"), [], list("bc")] == list(pieces.of(np.array([2, 0, 2])))
    assert [] == list(pieces.of(everyone[:0]))


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_what_is_in_common_is_equal_and_what_follows_is_not(left: list[int], right: list[int]) -> None:
    common = in_common(left, right)
    assert left[:common] == right[:common]
    assert left[common : common + 1] != right[common : common + 1] or common == len(left) == len(right)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_packed_numbers_are_those_of_protocol_buffers(values: list[int]) -> None:
    assert profiles_pb2.Sample(values=values).SerializeToString() == packed(4, values)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_fields_are_those_of_protocol_buffers(size: int) -> None:
    dictionary = profiles_pb2.ProfilesDictionary(string_table=["x" * size])
    assert dictionary.SerializeToString() == field(5, b"x" * size)
    assert size == int.from_bytes(varint(size)[:1], "little") or size > 127


def test_a_trace_of_many_samples_opens_and_closes_every_call(tmp_path: Path) -> None:
    """More samples than one batch; equal numbers of begins and ends, and each end closes the call that was opened last."""
    recording = big(tmp_path / "a.unspool", samples=3_000, stacks=40, depth=6, functions=20)
    assert 0 == main(["export", str(recording), "-o", str(tmp_path / "a.trace.json")])
    opened: list[str] = []
    for event in json.loads((tmp_path / "a.trace.json").read_text())["traceEvents"]:
        if event["ph"] == "B":
            opened.append(event["name"])
        elif event["ph"] == "E":
            assert opened.pop() == event["name"]
    assert [] == opened

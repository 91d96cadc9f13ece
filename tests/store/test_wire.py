"""Rows on the wire: what comes out is what went in, and bytes that are no message are named."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.store import wire
from unspool.store.batch import MISSING
from unspool.store.schema import TABLES, Column

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BIGINT": st.integers(-(2**63) + 1, 2**63 - 1),
    "UBIGINT": st.integers(0, 2**64 - 2),
    "INTEGER": st.integers(-(2**31) + 1, 2**31 - 1),
    "DOUBLE": st.floats(allow_nan=False),
    "BOOLEAN": st.booleans(),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "BIGINT[]": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
}


def cells(column: Column) -> st.SearchStrategy[Any]:
    return st.none() | VALUES[column.type] if column.nullable else VALUES[column.type]


rows = st.fixed_dictionaries(
    {}, optional={table: st.lists(st.tuples(*map(cells, columns)), max_size=4) for table, columns in TABLES.items()}
)


def shown(column: Column, found: Any, row: int) -> Any:
    """A cell as it went in."""
    if column.type == "BIGINT[]":
        lengths, values = found
        start = int(lengths[:row].sum())
        return values[start : start + int(lengths[row])].tolist()
    value = found[row] if isinstance(found, list) else found[row].item()
    return None if column.nullable and value == MISSING[column.type] and column.type != "VARCHAR" else value


@given(given=rows)
def test_rows_come_out_as_they_went_in(given: dict[str, list[tuple[Any, ...]]]) -> None:
    found = wire.decoded(wire.encoded(given))
    assert {table for table, values in given.items() if values} == set(found)
    for table, values in given.items():
        for row, expected in enumerate(values):
            assert expected == tuple(shown(column, found[table][column.name], row) for column in TABLES[table])


@given(data=st.binary(max_size=200))
def test_any_bytes_are_rows_or_named(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        wire.decoded(data)


@given(given=rows, place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_rows_or_named(given: dict[str, list[tuple[Any, ...]]], place: int, byte: int) -> None:
    body = bytearray(wire.encoded(given))
    body[place % len(body)] = byte
    with contextlib.suppress(BadInput):
        wire.decoded(bytes(body))


def head(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        head(b"{}"),
        head(b"[[]]"),
        head(b'[["samples", 99999999999]]'),
        head(b'[["samples", 1]]'),
        head(b'[["nothing", 1]]'),
        head(b"[]") + b"x",
    ],
)
def test_a_wrong_head_is_named(body: bytes) -> None:
    with pytest.raises(BadInput):
        wire.decoded(body)


def test_a_message_says_what_follows() -> None:
    sent = wire.message(wire.Kind.STATE, b"{}")
    assert (wire.Kind.STATE, 2) == wire.opened(sent[: wire.MESSAGE.size])
    for wrong in (b"xxxx" + sent[4:12], sent[:4] + b"\x09" + sent[5:12], sent[:8] + b"\xff" * 4):
        with pytest.raises(BadInput):
            wire.opened(wrong)

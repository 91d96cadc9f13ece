"""Rows of a recording on their way to another process: plain columns as bytes, checked on arrival.

A message is `MESSAGE` (magic, kind, length) and a body. A body of rows is a JSON head, which names tables and counts rows, followed by the
columns in the order of `store.schema.TABLES`: numbers as little-endian arrays, texts as lengths (-1: NULL) and UTF-8, lists as lengths and
numbers. The columns' types are the schema's and are never taken from the message.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unspool.errors import BadInput
from unspool.store.batch import DTYPES, array_of
from unspool.store.schema import TABLES, Column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MESSAGE = struct.Struct("<4sII")
"""Magic, kind, bytes of the body."""
MAGIC = b"uspl"
MOST_BYTES = 256 << 20
"""Of one body."""
MOST_ROWS = 1 << 24
START, STOP = b"+", b"-"
"""All that is said in the other direction."""
_HEAD = struct.Struct("<I")
_NULL = -1

Rows = Mapping[str, Sequence[tuple[Any, ...]]]
Columns = dict[str, dict[str, Any]]
"""By table and column: an array; of texts a list with None for NULL; of lists (lengths, values)."""


class Kind(enum.IntEnum):
    """What a body holds."""

    ROWS = 1
    STATE = 2


def message(kind: Kind, body: bytes) -> bytes:
    """The message as it is sent."""
    return MESSAGE.pack(MAGIC, kind, len(body)) + body


def opened(head: bytes) -> tuple[Kind, int]:
    """Kind and length of the body that follows; BadInput for anything else."""
    magic, kind, size = MESSAGE.unpack(head)
    if magic != MAGIC or kind not in set(Kind) or size > MOST_BYTES:
        raise BadInput("no message of a recorder")
    return Kind(kind), size


def encoded(rows: Rows) -> bytes:
    """The body for rows by table; tables without rows are left out."""
    filled = {table: values for table, values in rows.items() if values}
    head = json.dumps([[table, len(values)] for table, values in filled.items()]).encode()
    parts = [_HEAD.pack(len(head)), head]
    for table, values in filled.items():
        for column, cells in zip(TABLES[table], zip(*values, strict=True), strict=True):
            parts += _encoded(column, cells)
    return b"".join(parts)


def decoded(body: bytes) -> Columns:
    """The columns of a body; BadInput when it is anything else than what `encoded` makes."""
    reader = _Reader(body)
    found: Columns = {}
    for table, rows in _tables(reader):
        found[table] = {column.name: _decoded(column, rows, reader) for column in TABLES[table]}
    if reader.left:
        raise BadInput("bytes after the last column")
    return found


def _tables(reader: _Reader) -> Iterable[tuple[str, int]]:
    (size,) = _HEAD.unpack(reader.take(_HEAD.size))
    try:
        head = json.loads(reader.take(size))
    except (ValueError, RecursionError):
        raise BadInput("a head that is no JSON") from None
    if not isinstance(head, list):
        raise BadInput("a head that is no list")
    seen: set[str] = set()
    for entry in head:
        match entry:
            case [str() as table, int() as rows] if table in TABLES and table not in seen and 0 < rows <= MOST_ROWS:
                seen.add(table)
                yield table, rows
            case _:
                raise BadInput("a table that is none")


def _encoded(column: Column, cells: Sequence[Any]) -> list[bytes]:
    import numpy as np

    if column.type == "VARCHAR":
        texts = [None if cell is None else str(cell).encode("utf-8", "backslashreplace") for cell in cells]
        lengths = np.array([_NULL if text is None else len(text) for text in texts], dtype="<i4")
        return [lengths.tobytes(), b"".join(text for text in texts if text)]
    if column.type == "BIGINT[]":
        lengths = np.array([len(cell) for cell in cells], dtype="<i4")
        values = np.array([value for cell in cells for value in cell], dtype="<i8")
        return [lengths.tobytes(), values.tobytes()]
    return [array_of(column, cells).tobytes()]


def _decoded(column: Column, rows: int, reader: _Reader) -> Any:  # noqa: ANN401 - a column of the type that the schema says
    import numpy as np

    if column.type == "VARCHAR":
        return _texts(reader.array("<i4", rows), reader)
    if column.type == "BIGINT[]":
        lengths = reader.array("<i4", rows).astype(np.int64)
        if (lengths < 0).any():
            raise BadInput("a list of negative length")
        return lengths, reader.array("<i8", int(lengths.sum()))
    return reader.array(np.dtype(DTYPES[column.type]).newbyteorder("<").str, rows)


def _texts(lengths: NDArray[np.int32], reader: _Reader) -> list[str | None]:
    import numpy as np

    if (lengths < _NULL).any():
        raise BadInput("a text of negative length")
    sizes = np.maximum(lengths, 0).astype(np.int64)
    ends = np.cumsum(sizes).tolist()
    data = reader.take(ends[-1] if ends else 0)
    starts = [0, *ends[:-1]]
    try:
        return [
            None if length == _NULL else data[start:end].decode() for length, start, end in zip(lengths.tolist(), starts, ends, strict=True)
        ]
    except UnicodeDecodeError:
        raise BadInput("a text that is no UTF-8") from None


class _Reader:
    """Bytes that are taken from the front, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise BadInput("a message that ends too early")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def array(self, dtype: str, count: int) -> Any:  # noqa: ANN401 - of that type
        import numpy as np

        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype=dtype)

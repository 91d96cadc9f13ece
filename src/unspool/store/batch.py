"""Rows on their way into a table: buffered as tuples, inserted as NumPy columns in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unspool.store.schema import TABLES, Column

if TYPE_CHECKING:
    import duckdb
    import numpy as np

# NULL travels as a value that cannot occur, because a NumPy integer has no NULL and DuckDB reads object columns row by row.
MISSING: dict[str, Any] = {"BIGINT": -(2**63), "UBIGINT": 2**64 - 1, "INTEGER": -(2**31), "VARCHAR": ""}
DTYPES = {
    "BIGINT": "int64",
    "UBIGINT": "uint64",
    "INTEGER": "int32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
    "VARCHAR": "object",
    "BIGINT[]": "object",
}


class Batch:
    """The rows of one table since the last commit."""

    def __init__(self, table: str) -> None:
        """Prepare the statement of that table."""
        self.table = table
        self.rows: list[tuple[Any, ...]] = []
        self.columns = TABLES[table]
        self._insert = f"INSERT INTO {table} SELECT {', '.join(map(_selected, self.columns))} FROM batch"  # noqa: S608 - names of the schema

    def insert(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Copy the rows into the table; they stay here until the transaction is through."""
        if not self.rows:
            return
        values = zip(*self.rows, strict=True)
        arrays = {column.name: array_of(column, value) for column, value in zip(self.columns, values, strict=True)}
        connection.register("batch", arrays)
        try:
            connection.execute(self._insert)
        finally:
            connection.unregister("batch")


def update(connection: duckdb.DuckDBPyConnection, table: str, column: str, values: Mapping[int, int] | Mapping[int, str]) -> None:
    """Set a column of rows that are on disk: `values` maps the table's first column to the new value."""
    if not values:
        return
    kinds = {known.name: known for known in TABLES[table]}
    key, changed = TABLES[table][0], kinds[column]
    connection.register("batch", {"key": array_of(key, list(values)), "value": array_of(changed, list(values.values()))})
    try:
        connection.execute(f'UPDATE {table} SET "{column}" = batch.value::{changed.type} FROM batch WHERE {table}."{key.name}" = batch.key')  # noqa: S608 - names of the schema
    finally:
        connection.unregister("batch")


def text(value: str) -> str:
    r"""The text as DuckDB takes it: bytes that were no UTF-8 become visible escapes.

    >>> text(b"na\xffme".decode(errors="surrogateescape"))
    'na\\udcffme'
    """
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _selected(column: Column) -> str:
    name = f'"{column.name}"'
    if column.type == "BIGINT[]":
        return f"{name}::BIGINT[]"
    if column.type == "VARCHAR":
        name += "::VARCHAR"
    if not column.nullable:
        return name
    missing = "''" if column.type == "VARCHAR" else f"({MISSING[column.type]})::{column.type}"
    return f"nullif({name}, {missing})"


def array_of(column: Column, values: Sequence[Any]) -> np.ndarray:
    """A column's values as an array, None as the value of `MISSING`."""
    import numpy as np

    if column.type == "BIGINT[]":
        # np.array() would make a matrix of lists that happen to have one length.
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if column.nullable:
        missing = MISSING[column.type]
        values = [missing if value is None else value for value in values]
    return np.array(values, dtype=DTYPES[column.type])

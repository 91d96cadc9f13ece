from __future__ import annotations

import re
from pathlib import Path

import pytest
from store.recordings import guests, small

from unspool.store.reader import open_recording
from unspool.store.schema import SCHEMA, TABLES, Column

PAGE = Path(__file__).parents[2] / "docs" / "recording.md"


def described(table: str, columns: tuple[Column, ...]) -> str:
    """The part of the page on one table."""
    rows = [f"| `{column.name}` | {column.type}{' or NULL' if column.nullable else ''} | {column.says} |" for column in columns]
    return "\n".join([f"### {table}", "", "| column | type | what it says |", "|---|---|---|", *rows])


@pytest.mark.parametrize("table", TABLES)
def test_the_page_describes_each_table_column_by_column(table: str) -> None:
    assert described(table, TABLES[table]) in PAGE.read_text()


def test_the_page_names_the_version_and_no_other_table() -> None:
    text = PAGE.read_text()
    assert f"version {SCHEMA}." in text
    assert list(TABLES) == re.findall(r"^### (\w+)$", text, re.MULTILINE)


def test_every_query_of_the_page_runs(tmp_path: Path) -> None:
    queries = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert queries
    with open_recording(small(tmp_path / "a.unspool")) as host, open_recording(guests(tmp_path / "b.unspool")) as virtual:
        for query in queries:
            assert (virtual if "guest" in query else host).rows(query), query

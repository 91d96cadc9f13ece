from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store.recordings import HEADER, small

from unspool.cli.main import main
from unspool.export.formats import FORMATS
from unspool.export.parquet import COLUMNS
from unspool.store.writer import Writer


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql.replace("FILE", f"'{path}'")).fetchall()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    assert 0 == main(["export", str(small(tmp_path / "a.unspool")), "-o", str(tmp_path / "a.parquet")])
    return tmp_path / "a.parquet"


def test_each_sample_is_a_row(file: Path) -> None:
    assert [(10, 10)] == rows(file, "SELECT count(*), sum(weight)::INT FROM FILE")
    assert [("leaf", 7)] == rows(file, "SELECT functions[1] AS f, count(*) FROM FILE GROUP BY f ORDER BY 2 DESC LIMIT 1")
    assert [("2023-11-14 22:13:20", "2023-11-14 22:13:20.9")] == rows(file, "SELECT min(time)::VARCHAR, max(time)::VARCHAR FROM FILE")
    sql = "SELECT pid, thread, verdict, stop, stop_module, reason, functions, modules FROM FILE WHERE ending = 'cut'"
    expected = (
        10,
        "demo",
        "unreliable",
        "no-unwind-info",
        "/usr/lib/libfoo.so",
        "no-unwind-info",
        ["libfoo.so+0x9000"],
        ["/usr/lib/libfoo.so"],
    )
    assert [expected] == rows(file, sql)


def test_the_page_on_formats_names_every_column(file: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    assert list(COLUMNS) == [row[0] for row in rows(file, "DESCRIBE SELECT * FROM FILE")]
    assert list(COLUMNS) == re.findall(r"^\| `(\w+)` \|", page.partition("## Parquet")[2].partition("\n## ")[0], re.MULTILINE)


def test_no_samples_have_the_same_columns(tmp_path: Path) -> None:
    Writer(tmp_path / "a.unspool", HEADER).finish(5)
    assert 0 == main(["export", str(tmp_path / "a.unspool"), "-o", str(tmp_path / "a.parquet")])
    assert list(COLUMNS) == [row[0] for row in rows(tmp_path / "a.parquet", "DESCRIBE SELECT * FROM FILE")]
    assert [(0,)] == rows(tmp_path / "a.parquet", "SELECT count(*) FROM FILE")


def test_the_page_on_formats_names_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for name, entry in FORMATS.items():
        assert f"| `{name}` | {' '.join(f'`{suffix}`' for suffix in entry.suffixes)} |" in page

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import create_autospec

import duckdb
import pytest
from store.recordings import HEADER, small

from unspool.cli import query
from unspool.cli.main import main
from unspool.store.writer import Writer


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return str(small(tmp_path / "a.unspool"))


def test_a_table_is_aligned(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["query", recording, "SELECT comm, pid, exe FROM processes ORDER BY pid"])
    expected = ["comm         pid  exe", "-----------  ---  -------------", "demo          10  /usr/bin/demo", "kworker/0:1   20"]
    assert expected == capsys.readouterr().out.splitlines()


def test_a_query_that_is_not_utf_8_is_refused(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["query", recording, "SELECT '\udcff'"])
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("sql", ["", " ", ";", "-- nothing"])
def test_an_empty_query_is_refused(sql: str, recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["query", recording, "--", sql])
    assert "the SQL is empty" in capsys.readouterr().err


def test_a_query_that_runs_is_told_of_ctrl_c() -> None:
    """DuckDB itself looks for signals now and then only. Here it goes on until it is told."""
    told = threading.Event()
    connection = create_autospec(duckdb.DuckDBPyConnection, instance=True)
    connection.execute.side_effect = lambda _: (signal.raise_signal(signal.SIGINT), told.wait(60))
    connection.interrupt.side_effect = told.set
    with pytest.raises(KeyboardInterrupt):
        query._executed(connection, "SELECT 1")
    assert told.is_set()


def test_json_holds_every_kind_of_value(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 1.5::DOUBLE AS b, 'nan'::DOUBLE AS c, [1, 2] AS d, {'x': 1.25} AS e, NULL AS f, DATE '2026-01-02' AS g"
    sql += ", '\u20ac' AS h"
    assert 0 == main(["query", recording, sql, "--json"])
    expected = {"a": 1, "a_1": 2, "b": 1.5, "c": None, "d": [1, 2], "e": {"x": 1.25}, "f": None, "g": "2026-01-02", "h": "€"}
    assert [expected] == json.loads(capsys.readouterr().out)


def test_json_of_no_rows_is_an_empty_array(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["query", recording, "SELECT 1 WHERE false", "--json"])
    assert [] == json.loads(capsys.readouterr().out)


def test_csv_is_read_back(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["query", recording, "SELECT 'a,\"b\"' AS x, NULL AS y, 3 AS z", "--csv"])
    assert [["x", "y", "z"], ['a,"b"', "", "3"]] == list(csv.reader(io.StringIO(capsys.readouterr().out)))


def test_wrong_sql_is_a_sentence_with_a_hint(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["query", recording, "SELECT nothing FROM nowhere"])
    printed = capsys.readouterr()
    assert "" == printed.out
    assert "nowhere" in printed.err
    assert "hint: " in printed.err


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        out.process(1, 1, "\x1b]0;owned\x07")
    main(["query", str(tmp_path / "a.unspool"), "SELECT comm FROM processes"])
    assert "\\x1b]0;owned\\x07" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_traceback(recording: str) -> None:
    script = "import sys; from unspool.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "query", recording, "SELECT * FROM range(1000000)", "--csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stderr
        program.stdout.readline()
        program.stdout.close()
        assert b"" == program.stderr.read()

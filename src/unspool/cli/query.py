"""Run SQL on a recording and print the result as a table, JSON or CSV.

The recording is opened read-only, and SQL on it can reach no other file. docs/recording.md describes the tables.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.errors import BadRequest
from unspool.store.interrupts import interrupts
from unspool.store.reader import DAMAGED, is_damage, open_recording

if TYPE_CHECKING:
    import duckdb

EXAMPLES = """examples:
  unspool query host.unspool "SELECT comm, count(*) AS n FROM samples JOIN processes USING (process) GROUP BY ALL ORDER BY n DESC"
  unspool query host.unspool "DESCRIBE samples"                 a table's columns; SHOW TABLES names the tables
  unspool query host.unspool "SELECT * FROM counters" --json
  unspool query guests.unspool "SELECT name, generation, kernel_release, vcpu, count(*) AS n
      FROM samples JOIN processes USING (process) JOIN guests USING (guest) GROUP BY ALL ORDER BY n DESC"
"""
FETCHED = 10_000
LOOK = 0.1
"""How often it is asked whether Ctrl-C was pressed, in seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("sql", metavar="SQL", help="what to ask")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print a JSON array with an object for each row")
    shape.add_argument("--csv", action="store_true", help="print CSV with a line of column names")


def run(arguments: argparse.Namespace) -> int:
    """Print the rows."""
    import duckdb

    with open_recording(arguments.file) as recording:
        try:
            with interrupts():
                names, rows = _ask(recording.connection, arguments.sql)
                write_lines(_json(names, rows) if arguments.json else _csv(names, rows) if arguments.csv else _table(names, rows))
        except duckdb.Error as error:
            hint = '"SHOW TABLES" names the tables, "DESCRIBE samples" the columns of one; docs/recording.md explains them.'
            if is_damage(error):
                hint = DAMAGED
            raise BadRequest("\n".join(printable(line) for line in str(error).strip().splitlines()), hint=hint) from None
    return 0


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The names of the columns, made different from each other, and the rows."""
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise BadRequest("the SQL is not UTF-8", hint="Is the terminal's encoding UTF-8, and the locale's?") from None
    result = _executed(connection, sql)
    # DuckDB's answer to an empty text, for all that its types say.
    if result is None:
        raise BadRequest("the SQL is empty", hint='For example: "SELECT * FROM recording"')
    names: list[str] = []
    for name, *_ in result.description or ():
        names.append(name if name not in names else f"{name}_{len(names)}")

    def rows() -> Iterator[tuple[Any, ...]]:
        while names and (fetched := result.fetchmany(FETCHED)):
            yield from fetched

    return names, rows()


def _executed(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection | None:
    """The connection with its answer. DuckDB 2.0 often hears of Ctrl-C when the query is done only: another thread runs it here."""
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(connection.execute, sql)
            while wait([answer], LOOK).not_done:
                if pressed.is_set():
                    # Again and again: the query may not have begun.
                    connection.interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt
    return answer.result()


def _json(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """An array, one row a line."""
    lead = "["
    for row in rows:
        yield lead + json.dumps({name: _plain(value) for name, value in zip(names, row, strict=True)})
        lead = ","
    yield "]" if lead == "," else "[]"


def _plain(value: object) -> object:
    """The value as JSON has it; numbers that JSON lacks are null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _plain(float(value))
        case list() | tuple():
            return [_plain(part) for part in value]
        case dict():
            return {str(key): _plain(part) for key, part in value.items()}
        case bytes():
            return value.hex()
        case _:
            return str(value)


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    if not names:
        return
    for row in chain([names], rows):
        writer.writerow([value.hex() if isinstance(value, bytes) else value for value in row])
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Aligned columns; numbers to the right."""
    values = list(rows)
    cells = [[_cell(value) for value in row] for row in values]
    right = [all(isinstance(row[column], (int, float, Decimal, type(None))) for row in values) for column in range(len(names))]
    heads = [printable(name) for name in names]
    widths = [max([len(head), *(len(row[column]) for row in cells)]) for column, head in enumerate(heads)]

    def line(parts: Sequence[str]) -> str:
        padded = (part.rjust(width) if to_right else part.ljust(width) for part, width, to_right in zip(parts, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    if not names:
        return
    yield line(heads)
    yield line(["-" * width for width in widths])
    for row in cells:
        yield line(row)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value))

"""The rows of CFI as readelf prints them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

Cells = dict[str, str]
Table = dict[tuple[int, int], list[tuple[int, str, Cells]]]

HEADER = re.compile(r"FDE.* pc=([0-9a-f]+)\.\.([0-9a-f]+)$")
IN_REGISTER = re.compile(r"r\d+ \((\w+)\)")


def readelf_rows(path: Path) -> Table:
    """Per function (start, end): (start of the row, CFA, register -> rule) as readelf prints them."""
    command = ["readelf", "--debug-dump=frames-interp", str(path)]
    # readelf exits with 1 when it warns, of a separate debug file that is not installed for instance.
    text = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300).stdout
    table: Table = {}
    current: list[tuple[int, str, Cells]] = []
    columns: list[str] = []
    for line in text.splitlines():
        if header := HEADER.search(line):
            current = table.setdefault((int(header[1], 16), int(header[2], 16)), [])
        elif " CIE " in line:
            current = []
        elif line.lstrip().startswith("LOC"):
            columns = line.split()[2:]
        elif line.strip() and re.match(r"^[0-9a-f]{16} ", line):
            location, cfa, *cells = IN_REGISTER.sub(r"in:\1", line).split()
            current.append((int(location, 16), cfa, dict(zip(columns, cells, strict=True))))
    return table

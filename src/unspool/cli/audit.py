"""Tell what a program or library gives a reliable unwinder: code without unwind data, rules that cost a stack its verdict, and its ends.

Exit status 0: the unwind data can be read and found, and no more code than allowed is without.
Exit status 1: not so; the last lines say why. For a build: `unspool audit --max-missing 1 FILE`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.errors import NoSuchTarget
from unspool.formats.elf import Elf
from unspool.unwind.audit import Audit, Finding, Gap, Kind, audit

EXAMPLES = """examples:
  unspool audit /usr/bin/bash                        what stacks through bash can be believed
  unspool audit --max-missing 1 build/libparser.so   fail a build that loses unwind data
  unspool audit --json FILE | jq .gaps               every range of code without
"""

MAX_MISSING = 5.0
"""Percent of the code that may be without unwind data, where nothing else is asked for."""
START_UP = 512
"""Bytes that may be without in any file, where nothing else is asked for: crt1.o, crti.o and crtbegin.o have some 220."""
SHOWN = 20
"""Lines of each list in text, without --all."""

_TITLES = {
    Kind.BROKEN: "unwind data that cannot be read",
    Kind.UNSUPPORTED: "rules that cannot be followed",
    Kind.NONSTANDARD_RA: "return address in another place than the ABI's (stacks through it are unreliable)",
    Kind.EXCEPTION_COMMIT: "exception machinery (stacks are unreliable while an exception is committed)",
    Kind.OTHER_REGISTER: "frames by a register that only the innermost frame knows",
    Kind.EXPRESSION: "frames by a DWARF expression",
    Kind.SIGNAL_FRAME: "signal trampolines",
    Kind.PROCESS_ENTRY: "entry point (stacks end here)",
    Kind.OUTERMOST: "no caller (the base of a thread)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", type=Path, help="an ELF program or library")
    parser.add_argument(
        "--max-missing",
        metavar="PERCENT",
        type=float,
        help=f"code that may be without unwind data (default: {MAX_MISSING:g}, or {START_UP} bytes)",
    )
    parser.add_argument("--all", action="store_true", help=f"list everything, not the first {SHOWN} of a kind")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the audit; 1 when it found too much."""
    try:
        data = arguments.file.read_bytes()
    except OSError as error:
        raise NoSuchTarget(f"{arguments.file}: {error.strerror}") from None
    found = audit(Elf(data, file=str(arguments.file)))
    complaints = list(complaints_about(found, arguments.max_missing))
    if arguments.json:
        write_lines([json.dumps(as_json(found, complaints), indent=1)])
    else:
        write_lines(printable(line) for line in lines(found, complaints, len(found.gaps) + len(found.findings) if arguments.all else SHOWN))
    return 1 if complaints else 0


def complaints_about(found: Audit, max_missing: float | None) -> Iterator[str]:
    """Why the file fails, a sentence each."""
    share = 100 * found.missing_share
    allowed = MAX_MISSING if max_missing is None else max_missing
    if share > allowed and (max_missing is not None or found.missing > START_UP):
        yield f"{share:.2f} % of the code has no unwind data; {allowed:g} % may have none"
    if found.table == "absent" and found.functions:
        yield "there is no .eh_frame_hdr with a search table, so the unwind data cannot be found in memory (link with --eh-frame-hdr)"
    elif found.table != "complete":
        yield f".eh_frame_hdr: {found.table}"
    counts = Counter(finding.kind for finding in found.findings)
    for kind in (Kind.BROKEN, Kind.UNSUPPORTED):
        if counts[kind]:
            yield f"{_TITLES[kind]}: {counts[kind]}"


def lines(found: Audit, complaints: list[str], shown: int) -> Iterator[str]:
    """The audit as text."""
    yield f"{found.file}: {found.arch.name}, {found.functions:,} functions, {found.rows:,} rows, search table {found.table}"
    code = found.code - found.padding
    yield f"  code          {code:>12,} bytes, and {found.padding:,} of padding"
    yield f"  unwind data   {code - found.missing:>12,} bytes of it  {100 * (1 - found.missing_share):6.2f} %"
    yield f"  without       {found.missing:>12,} bytes of it  {100 * found.missing_share:6.2f} %"
    if found.gaps:
        yield ""
        yield f"code without unwind data: {len(found.gaps)} ranges, the largest first"
        by_size = sorted(found.gaps, key=lambda gap: -gap.size)
        yield from _listed([gap_line(gap) for gap in by_size], shown)
    for kind, title in _TITLES.items():
        of_kind = [finding for finding in found.findings if finding.kind is kind]
        if of_kind:
            yield ""
            yield f"{title}: {len(of_kind)}"
            yield from _listed([finding_line(finding) for finding in of_kind], shown)
    if complaints:
        yield ""
    yield from (f"failed: {complaint}" for complaint in complaints)


def _listed(entries: list[str], shown: int) -> Iterator[str]:
    yield from entries[:shown]
    if len(entries) > shown:
        yield f"  ... and {len(entries) - shown} more (--all)"


def gap_line(gap: Gap) -> str:
    """A range of code, its size, and whose it is."""
    names = ", ".join(gap.symbols[:3]) + (f" and {len(gap.symbols) - 3} more" if len(gap.symbols) > 3 else "")
    return f"  {gap.start:#x}-{gap.end:#x} {gap.size:>9,}  {gap.section:<8} {names}".rstrip()


def finding_line(finding: Finding) -> str:
    """Where a function shows something, and what."""
    rows = f"{finding.count} row" + "s" * (finding.count != 1)
    return f"  {finding.start:#x}-{finding.end:#x} {rows:>9}  {finding.function:<24} {finding.detail}".rstrip()


def as_json(found: Audit, complaints: list[str]) -> dict[str, Any]:
    """What --json prints; docs/audit.md says what each field means."""
    return {
        "file": found.file,
        "machine": found.arch.name,
        "code_bytes": found.code,
        "padding_bytes": found.padding,
        "covered_bytes": found.covered,
        "missing_bytes": found.missing,
        "missing_percent": round(100 * found.missing_share, 4),
        "functions": found.functions,
        "rows": found.rows,
        "search_table": found.table,
        "gaps": [{"start": gap.start, "end": gap.end, "section": gap.section, "symbols": list(gap.symbols)} for gap in found.gaps],
        "findings": [
            {
                "kind": finding.kind.value,
                "start": finding.start,
                "end": finding.end,
                "function": finding.function,
                "rows": finding.count,
                "detail": finding.detail,
            }
            for finding in found.findings
        ],
        "failed": complaints,
    }

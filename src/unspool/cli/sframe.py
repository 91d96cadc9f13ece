"""Show, check, make, compare and count the SFrame stack trace data of ELF files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.errors import BadInput, BadRequest, NoSuchTarget
from unspool.formats.elf import Elf

if TYPE_CHECKING:
    from unspool.toolkit.embed import Part

EXAMPLES = """examples:
  unspool sframe show ./prog                 every row, as readelf --sframe prints it
  unspool sframe check ./prog libfoo.so      exit 0 valid, 1 invalid, 2 unreadable
  unspool sframe stats ./prog                sizes and coverage
  unspool sframe make /bin/ls -o ls.sframe   a copy of a program with SFrame V3
  unspool sframe compare ls.sframe           exit 0 when nothing contradicts .eh_frame, 1 when something does
"""

VALID, INVALID, UNREADABLE = 0, 1, 2
MOST_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with its files."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="every function and row", description="Print every function and row, in readelf's notation.")
    check = actions.add_parser("check", help="strict validation", description="Validate strictly: exit 0 valid, 1 invalid, 2 unreadable.")
    stats = actions.add_parser("stats", help="sizes and coverage", description="Print sizes against .eh_frame, rows, and coverage of text.")
    compare = actions.add_parser("compare", help="prove it against .eh_frame", description="Compare with .eh_frame at every address.")
    compare.add_argument("--most", type=int, default=MOST_SHOWN, metavar="N", help="cases to print for each outcome (default %(default)s)")
    for action in (show, stats, compare):
        action.add_argument("file", type=Path, help="an ELF file")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE", help="ELF files")
    check.add_argument("--all", action="store_true", help=f"print all findings of a kind, not the first {MOST_SHOWN}")
    make = actions.add_parser("make", help="make it from .eh_frame", description="Write a copy of a program or library with SFrame V3.")
    make.add_argument("file", type=Path, metavar="IN", help="a linked ELF file with .eh_frame")
    make.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="where to write; must not be IN")
    make.add_argument("--detached", action="store_true", help="write a side file with the section alone")
    make.add_argument("--all", action="store_true", help=f"list all that could not be expressed, not the largest {MOST_SHOWN}")
    for action in (show, check, stats, make, compare):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    actions = {"show": _show, "check": _check, "stats": _stats, "make": _make, "compare": _compare}
    return actions[arguments.action](arguments)


def open_elf(path: Path) -> Elf:
    """The file, read whole. Raises NoSuchTarget when it cannot be opened, BadInput when it is no ELF file."""
    return Elf(_read(path), file=str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise NoSuchTarget(message) from None


def emit(lines: Iterable[str]) -> None:
    """Print lines, with the control characters of names made harmless."""
    for line in lines:
        sys.stdout.write("".join(c if c.isprintable() else "?" for c in line) + "\n")


def _show(arguments: argparse.Namespace) -> int:
    from unspool.toolkit import check, sections, show

    elf = open_elf(arguments.file)
    found = sections.read(elf)
    names = {address: name for address, _, name in check.functions(elf)}
    if arguments.json:
        sys.stdout.write(json.dumps([show.values(section, names) for section in found], indent=1) + "\n")
        return VALID
    for section in found:
        emit(show.lines(section, names))
    return VALID


def _stats(arguments: argparse.Namespace) -> int:
    from unspool.toolkit import stats

    found = stats.stats(open_elf(arguments.file))
    if arguments.json:
        sys.stdout.write(json.dumps(found.values(), indent=1) + "\n")
    else:
        emit(stats.lines(found))
    return VALID


def _compare(arguments: argparse.Namespace) -> int:
    from unspool.toolkit import compare

    found = compare.compare(open_elf(arguments.file))
    if arguments.json:
        counts = {str(outcome): {"ranges": found.ranges[outcome], "bytes": found.bytes[outcome]} for outcome in compare.Outcome}
        cases = [{**asdict(case), "start": hex(case.start), "end": hex(case.end)} for case in found.cases]
        sys.stdout.write(
            json.dumps({"file": str(arguments.file), "proved": found.proved, "outcomes": counts, "cases": cases}, indent=1) + "\n"
        )
    else:
        emit(compare.lines(found, most=arguments.most))
    return VALID if found.proved else INVALID


def _make(arguments: argparse.Namespace) -> int:
    from unspool.toolkit import check, make

    data = _read(arguments.file)
    elf = Elf(data, file=str(arguments.file))
    made = make.make(elf, data, apart=arguments.detached)
    _write(arguments.output, arguments.file, made.parts, executable=not arguments.detached)
    names = sorted(check.functions(elf)) if made.skipped else []
    skipped = sorted(made.skipped, key=lambda skipped: skipped.start - skipped.end)
    shown = skipped if arguments.all else skipped[:MOST_SHOWN]
    if arguments.json:
        values = {"file": str(arguments.output), "functions": made.functions, "rows": made.rows, "sframe_size": made.sframe_size}
        values |= {"eh_frame_size": made.eh_frame_size, "text": made.text, "covered": made.covered}
        left = [{"start": hex(s.start), "end": hex(s.end), "function": _name(names, s.function), "reason": s.reason} for s in skipped]
        sys.stdout.write(json.dumps({**values, "skipped": left}, indent=1) + "\n")
        return VALID
    emit(make.lines(made))
    emit(f"  {s.start:#x} {s.end - s.start:>6} bytes {_name(names, s.function) or f'{s.function:#x}'}: {s.reason}" for s in shown)
    if len(skipped) > len(shown):
        emit([f"  {len(skipped) - len(shown)} more (--all shows them)"])
    return VALID


def _name(names: list[tuple[int, int, str]], address: int) -> str | None:
    """The symbol that covers the address; `names` are (address, size, name), sorted."""
    index = bisect_right(names, (address, 1 << 64, "")) - 1
    if index < 0 or address >= names[index][0] + names[index][1]:
        return None
    return names[index][2]


def _write(output: Path, source: Path, parts: Iterable[Part], *, executable: bool) -> None:
    """Write the file whole or not at all: a temporary file in its folder, then one rename. An existing file is replaced."""
    if output.exists() and output.samefile(source):
        message = f"{output} is the input: it is mapped by what runs it"
        raise BadRequest(message)
    try:
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, no path
            file.writelines(parts)
            os.fchmod(file.fileno(), source.stat().st_mode & 0o777 if executable else 0o644)
        Path(name).rename(output)
    except OSError as error:
        message = f"{output}: {error.strerror}"
        raise NoSuchTarget(message) from None


def _check(arguments: argparse.Namespace) -> int:
    results = [(path, *_check_one(path)) for path in arguments.files]
    if arguments.json:
        sys.stdout.write(json.dumps([result for _, _, result in results], indent=1) + "\n")
    else:
        for _, _, result in results:
            emit(_check_lines(result, everything=arguments.all))
    return max(status for _, status, _ in results)


def _check_one(path: Path) -> tuple[int, dict[str, object]]:
    from unspool.toolkit import check, sections

    try:
        elf = open_elf(path)
        findings = check.check_file(elf)
    except (BadInput, NoSuchTarget) as error:
        return UNREADABLE, {"file": str(path), "status": "unreadable", "error": str(error), "findings": [], "uncovered": []}
    invalid = any(finding.kind != "warning" for finding in findings)
    found = sections.find(elf)
    readable = check.check_data(found.data, found.address)[0] if found else []
    missing = [] if sections.is_relocatable(elf) else check.uncovered(elf, readable)
    return INVALID if invalid else VALID, {
        "file": str(path),
        "status": "invalid" if invalid else "valid",
        "functions": sum(len(section.fdes) for section in readable),
        "findings": [
            {"kind": f.kind, "rule": f.rule, "fde": f.fde, "offset": f.offset, "message": f.message} for f in findings
        ],
        "uncovered": [{"address": hex(address), "size": size, "name": name} for address, size, name in missing],
    }  # fmt: skip


def _check_lines(result: dict[str, object], *, everything: bool) -> Iterable[str]:
    findings, missing = result["findings"], result["uncovered"]
    assert isinstance(findings, list)
    assert isinstance(missing, list)
    yield f"{result['file']}: {result['status']}" + (
        f", {result['functions']} functions" if "functions" in result else f": {result['error']}"
    )
    shown: dict[str, int] = {}
    for finding in findings:
        shown[finding["rule"]] = shown.get(finding["rule"], 0) + 1
        if everything or shown[finding["rule"]] <= MOST_SHOWN:
            place = "" if finding["fde"] is None else f" FDE {finding['fde']}"
            place += "" if finding["offset"] is None else f" at {finding['offset']:#x}"
            yield f"  {finding['kind']} {finding['rule']}{place}: {finding['message']}"
    for rule, count in shown.items():
        if not everything and count > MOST_SHOWN:
            yield f"  {rule}: {count - MOST_SHOWN} more (--all shows them)"
    if missing:
        yield f"  warning uncovered: {len(missing)} functions of the symbol table have no FDE"
        for entry in missing if everything else missing[:MOST_SHOWN]:
            yield f"    {entry['address']} {entry['size']:>6} bytes {entry['name']}"

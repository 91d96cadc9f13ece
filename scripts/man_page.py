"""Write the man page of unspool, made from the commands' parsers: `man_page.py OUT`; `-` is stdout."""

# ruff: noqa: SLF001 - argparse has no other way to ask for a parser's options
from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import unspool
from unspool.cli.main import COMMANDS, load, parser_for

INTRODUCTION = """\
Unspool takes whole call stacks of running Linux programs, core dumps and recordings, without frame pointers and without preparation.
Every stack has a verdict: it reaches an accepted end, or it is cut and the reason is named; it is reliable, or the reason why not is named.
"""

EXIT = (
    ("0", "Done."),
    ("1", "An error; the message has a hint that says what mends it."),
    ("2", "Wrong usage."),
    ("130", "Ended by Ctrl-C."),
)
"""What holds for all commands; `record` ends with its command's status, and some say more in their description."""

ENVIRONMENT = (
    ("DEBUGINFOD_URLS", "Servers of debug files that names are looked up at. Nothing is asked when it is not set."),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Headers of unspool push, as name=value,name=value."),
)


def page() -> str:
    """The whole page in the man macros."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield f'.TH UNSPOOL 1 "" "unspool {unspool.__version__}" "User Commands"'
    # No hyphenation and no stretched lines: options and names must stay whole.
    yield from (".nh", ".ad l")
    yield from (
        ".SH NAME",
        r"unspool \- " + prose("whole call stacks of running programs, each with a verdict on whether it can be trusted"),
    )
    yield from (".SH SYNOPSIS", r"\fBunspool\fR \fICOMMAND\fR [\fIOPTIONS\fR]", ".br", r"\fBunspool\fR \fICOMMAND\fR \fB\-\-help\fR")
    yield from (".SH DESCRIPTION", *paragraphs(INTRODUCTION))
    for name, help_line in COMMANDS.items():
        yield from (".TP", rf"\fB{literal(name)}\fR", prose(help_line))
    yield ".SH COMMANDS"
    for name in COMMANDS:
        yield from command(name)
    yield ".SH EXIT STATUS"
    yield from table(EXIT)
    yield ".SH ENVIRONMENT"
    yield from table(ENVIRONMENT)
    yield from (".SH SEE ALSO", r"\fBperf\fR(1), \fBeu\-stack\fR(1), \fBgdb\fR(1)")


def command(name: str) -> Iterator[str]:
    """One command's part."""
    parser = parser_for(name)
    yield f".SS unspool {literal(name)}"
    yield from usage(parser)
    yield from paragraphs(load(name).__doc__ or "")
    yield from options(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from (".PP", rf"\fB{literal(sub.prog)}\fR")
                yield from usage(sub)
                yield from options(sub)
    if parser.epilog:
        yield from (".PP", ".EX", *(literal(line) for line in parser.epilog.rstrip().splitlines()), ".EE")


def usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What follows the command's name."""
    words = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    yield from (".PP", literal(words))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every option and argument with its help."""
    for action in parser._actions:
        shown = action.help
        if shown == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        values = action.metavar if isinstance(action.metavar, str) else (action.dest.upper() if action.nargs != 0 else "")
        if action.choices and not action.metavar:
            values = "|".join(map(str, action.choices))
        names = ", ".join(rf"\fB{literal(name)}\fR" for name in action.option_strings)
        yield from (".TP", f"{names} {italic(values)}".strip() if names else italic(values))
        yield prose(parser._get_formatter()._expand_help(action) if shown else "")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of prose."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", *(prose(line.strip()) for line in paragraph.splitlines()))


def table(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """A list of words and what they mean."""
    for word, meaning in rows:
        yield from (".TP", rf"\fB{literal(word)}\fR", prose(meaning))


def italic(text: str) -> str:
    """A value's name."""
    return rf"\fI{literal(text)}\fR" if text else ""


def literal(text: str) -> str:
    """Text that must come out as it is, dashes too."""
    return guarded(text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti"))


def prose(text: str) -> str:
    """A line of text."""
    return literal(text)


def guarded(line: str) -> str:
    """A line that no macro processor takes for a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


if __name__ == "__main__":
    output = sys.argv[1] if len(sys.argv) == 2 else "-"
    if output == "-":
        sys.stdout.write(page())
    else:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(page(), encoding="utf-8")

"""The documentation is whole: links lead to files, and every command, option and page is where a reader looks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unspool.cli.main import COMMANDS, parser_for

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert [] == missing


def test_every_page_is_reached_from_the_readme() -> None:
    """Directly, or through a page that is."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file() or page.suffix != ".md":
            if page.is_dir():
                waiting += page.glob("*.md")
            continue
        seen.add(page)
        waiting += [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))]
    assert [] == [str(page.relative_to(ROOT)) for page in PAGES if page not in seen]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_and_shows_an_example(command: str) -> None:
    pages = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert f"unspool {command}" in pages
    assert f"unspool {command}" in (parser_for(command).epilog or ""), "its help shows no example"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented(command: str) -> None:
    """The page on commands, or the command's own, names each option."""
    pages = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    parsers = [parser_for(command)]
    for action in parsers[0]._actions:
        choices = getattr(action, "choices", None)
        if isinstance(choices, dict):
            parsers += choices.values()
    options = {
        max(action.option_strings, key=len) for parser in parsers for action in parser._actions if action.option_strings and action.help
    }
    hidden = {"--help", "==SUPPRESS=="}
    suppressed = {max(a.option_strings, key=len) for p in parsers for a in p._actions if a.option_strings and a.help == "==SUPPRESS=="}
    assert set() == {option for option in options - hidden - suppressed if option not in pages}

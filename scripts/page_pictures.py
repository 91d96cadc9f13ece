"""The pictures of docs/page.md, made from a real recording of Perl, busybox and xz; it needs root and Chromium.

    .venv/bin/python scripts/page_pictures.py [FOLDER]

FOLDER holds the recording `words.unspool`; it is made when it is not there, and a temporary folder is used when it is not given.
Debian ships busybox without unwind data and liblzma without names, so that the pictures show what the page says about both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from export.browser import chromium
from guest_machines import STABLE, fetched
from selenium import webdriver
from tour import ROOT, UNSPOOL, hottest, save, show
from web.serving import Server, serving

WORDS = r"""
my (%seen, @lines);
for my $file (glob("$ARGV[0]/docs/*.md")) { open(my $text, "<", $file); push @lines, <$text> }
for my $round (1 .. 150) {
  for my $line (@lines) { while ($line =~ /([A-Za-z_]+)/g) { $seen{lc $1}{$round % 7}++; print "$1\n" if $round % 10 == 0 } }
}
"""
"""Counts words, and prints some of them."""


def recorded(folder: Path) -> Path:
    """The recording of both programs."""
    file = folder / "words.unspool"
    if not file.exists():
        busybox = fetched(STABLE) / "busybox"
        (folder / "words.pl").write_text(WORDS, encoding="utf-8")
        work = f"perl words.pl {ROOT} | {busybox} sort | xz -9e >/dev/null"
        (folder / "words.sh").write_text(work, encoding="utf-8")
        command = [UNSPOOL, "record", "-F", "499", "-o", str(file), "--", "sh", "words.sh"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return file


def pictures(driver: webdriver.Chrome, server: Server) -> None:
    """Every picture."""
    driver.get(server.link)
    show(driver, server, "series=process")
    save(driver, "page-flame")
    show(driver, server, "view=quality", "#unnamed")
    save(driver, "page-quality")
    name, module = hottest(server, "perl")
    chosen = urlencode({"view": "sandwich", "comm": "perl", "function": name, "in": module})
    show(driver, server, chosen, ".layers h3:nth-of-type(2) + .flame canvas[data-drawn]")
    save(driver, "page-sandwich")


def main() -> None:
    """Make them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        with chromium(width=1300, height=800) as driver, serving(recorded(folder)) as server:
            pictures(driver, server)


if __name__ == "__main__":
    main()

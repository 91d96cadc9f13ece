"""Write the completions of each shell and the man page where they belong below a prefix's share: `shell_files.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The build of a wheel runs this before anything of ours is installed.
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

import man_page  # noqa: E402 (the path comes first)

from unspool.cli.completions import completions  # noqa: E402

PLACES = {
    "bash": "bash-completion/completions/unspool",
    "zsh": "zsh/site-functions/_unspool",
    "fish": "fish/vendor_completions.d/unspool.fish",
}


def write(folder: Path) -> None:
    """Write them all."""
    texts = {place: completions(shell) for shell, place in PLACES.items()} | {"man/man1/unspool.1": man_page.page()}
    for place, text in texts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

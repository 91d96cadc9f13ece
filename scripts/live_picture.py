"""The picture of docs/live-page.md: a build while it is recorded; it needs root and Chromium.

.venv/bin/python scripts/live_picture.py [FILE.png]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from export.browser import chromium, wait_for  # noqa: E402 - the tests' own helpers
from selenium.webdriver.common.by import By  # noqa: E402
from web.serving import running  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "page-live.png"
SECONDS = 10
COMPILER = "toplev::main"
"""A function of gcc's compiler, whose file is the largest: all names are there when its are."""

BUILD = f"cd {ROOT}; while :; do sh scripts/tour_build.sh -O2 -6; done"


def main() -> None:
    """Make it."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else PICTURE).absolute()
    with tempfile.TemporaryDirectory() as folder, chromium(width=1300, height=720) as driver, contextlib.chdir(folder):
        Path("build.sh").write_text(BUILD, encoding="utf-8")
        with running("record", "--live", "--no-open", "-F", "499", "-o", "build.unspool", "--", "sh", "build.sh") as (server, _):
            driver.get(server.link)
            driver.get(f"http://{server.host}/#series=process")
            while server.view("live")["recorded_s"] < SECONDS or not any(COMPILER in name for name in server.view("functions")["name"]):
                time.sleep(0.5)
            driver.refresh()
            wait_for(driver, lambda found: found.find_elements(By.CSS_SELECTOR, ".flame canvas[data-drawn]"))
            wait_for(driver, lambda found: found.execute_script("return document.querySelector('.wait') === null"))
            driver.save_screenshot(str(target))


if __name__ == "__main__":
    main()

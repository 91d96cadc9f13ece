"""First picture and frames a second of the page of `unspool serve`, and of speedscope on the same recording, in the same Chromium.

    .venv/bin/python bench/page.py [ROUNDS]

`make bench` runs it too (`--only page`).
First picture: from the visit until the flame graph is drawn (server, network, parsing and drawing; our server has read the recording
before). speedscope gets counted stacks, the smallest file it reads. Frames a second: the wheel zooms in and out at every frame for three
seconds. Both programs take turns, so that a busy machine hits both.
"""

from __future__ import annotations

import functools
import http.server
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from export.browser import chromium, wait_for  # noqa: E402 - the tests' own helpers
from measure import Figure  # noqa: E402
from selenium import webdriver  # noqa: E402
from store.recordings import big  # noqa: E402
from web.serving import Server, serving  # noqa: E402

from unspool.cli.main import main as unspool  # noqa: E402

SPEEDSCOPE = ROOT / "build" / "peers" / "node_modules" / "speedscope" / "dist" / "release"
FRAMES = """
const [selector, done] = arguments, view = document.querySelector(selector), area = view.getBoundingClientRect();
let frames = 0; const start = performance.now();
function frame() {
  const middle = { clientX: area.left + area.width / 2, clientY: area.top + area.height / 2 }, deltaY = frames % 40 < 20 ? -30 : 30;
  view.dispatchEvent(new WheelEvent("wheel", { ...middle, deltaY, ctrlKey: true, bubbles: true, cancelable: true }));
  frames++;
  if (performance.now() - start < 3000) requestAnimationFrame(frame); else done(1000 * frames / (performance.now() - start));
}
requestAnimationFrame(frame);
"""
OURS = "const c = document.querySelector('.flame canvas[data-painted]'); return c && Number(c.dataset.painted)"
THEIRS = "return document.body.innerText.includes('Sandwich') && document.querySelector('canvas') ? performance.now() : null"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server without a log."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """Serves a folder on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def first(driver: webdriver.Chrome, address: str, drawn: str) -> float:
    """Milliseconds from the visit to the first picture."""
    driver.get("about:blank")
    driver.get(address)
    return float(wait_for(driver, lambda found: found.execute_script(drawn)))  # type: ignore[arg-type]


def figures(folder: Path, count: int) -> Iterator[Figure]:
    """First picture and frames a second of both, from one recording in that folder."""
    recording = big(folder / "big.unspool", samples=100_000, stacks=8_000, depth=40)
    unspool(["export", str(recording), "-o", str(folder / "big.collapsedstack.txt")])
    (folder / "speedscope").symlink_to(SPEEDSCOPE)
    with serving(recording) as server, files(folder) as base, chromium(width=1400, height=800) as driver:
        tree = server.view("tree")
        boxes = f"{len(tree['parent']):,} boxes"
        found = rounds(driver, server, f"{base}/speedscope/index.html#profileURL={base}/big.collapsedstack.txt", count)
    pictures, frames = (("unspool first picture, ms", "speedscope first picture, ms"), ("unspool frames/s", "speedscope frames/s"))
    yield Figure(f"page, first picture of {boxes}", "ms", *(found[name] for name in pictures), "speedscope, folded text", "<= 500 ms")
    yield Figure("page, frames while zooming", "frames/s", *(found[name] for name in frames), "speedscope", ">= 30")


def rounds(driver: webdriver.Chrome, server: Server, other: str, count: int) -> dict[str, list[float]]:
    """The figures of every round, by name."""
    driver.get(server.link)
    figures: dict[str, list[float]] = {}
    for _ in range(count):
        figures.setdefault("unspool first picture, ms", []).append(first(driver, f"http://{server.host}/", OURS))
        figures.setdefault("unspool frames/s", []).append(driver.execute_async_script(FRAMES, ".flame .view"))
        figures.setdefault("speedscope first picture, ms", []).append(first(driver, other, THEIRS))
        figures.setdefault("speedscope frames/s", []).append(driver.execute_async_script(FRAMES, "canvas"))
    return figures


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        for figure in figures(Path(name), count):
            print("  ".join(cell for cell in figure.cells() if cell))


if __name__ == "__main__":
    main()

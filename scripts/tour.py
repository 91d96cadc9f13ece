"""The pictures of docs/tour.md, made from real recordings of a small build; it needs root and Chromium.

    .venv/bin/python scripts/tour.py [FOLDER]

FOLDER holds the recordings `before.unspool`, `after.unspool` and `guest.unspool`; they are made when they are not there, and a temporary
folder is used when it is not given. The guest is a Debian kernel under QEMU, as the tests boot it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from export.browser import chromium, wait_for  # noqa: E402 - the tests' own helpers
from guest_machines import STABLE, boot, fetched, initramfs_of  # noqa: E402
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from target_programs import Programs  # noqa: E402
from web.serving import Server, serving  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
UNSPOOL = str(ROOT / ".venv" / "bin" / "unspool")
BUILDS = {"before": ("-O2", "-6"), "after": ("-O0", "-0")}
PATIENT = "return document.querySelector('.wait') === null"


def recorded(folder: Path) -> list[Path]:
    """The recordings of both builds."""
    files = []
    for name, choices in BUILDS.items():
        file = folder / f"{name}.unspool"
        if not file.exists():
            build = ["sh", "scripts/tour_build.sh", *choices]
            subprocess.run([UNSPOOL, "record", "-F", "499", "-o", str(file), "--", *build], check=True, cwd=ROOT)
        files.append(file)
    return files


def recorded_guest(folder: Path) -> Path:
    """A recording of a virtual machine that works in its kernel and in a program of its own."""
    file = folder / "guest.unspool"
    if not file.exists():
        kernel = fetched(STABLE)
        initramfs = initramfs_of(kernel, Programs(folder), folder / "initramfs")
        machine = boot(initramfs)
        try:
            with machine.workload("user"), machine.workload("kernel"):
                command = [UNSPOOL, "record", "--guest", str(machine.pid), "-F", "99", "-d", "10", "--guest-budget", "50", "-o", str(file)]
                subprocess.run(command, check=True)
        finally:
            machine.kill()
    return file


def hottest(server: Server, process: str) -> tuple[str, str]:
    """Name and file of a function of that program that much ran below, but that is not its beginning."""
    table = server.view("functions", comm=process)
    rows = zip(table["name"], table["module"], table["own"], table["total"], strict=True)
    own = [row for row in rows if row[1].endswith(process)]
    name, module, *_ = max(own, key=lambda row: row[3] if row[3] < 0.6 * table["weight"] else row[2])
    return name, module


def show(driver: webdriver.Chrome, server: Server, state: str, drawn: str = ".flame canvas[data-drawn]") -> None:
    """The page in that state, drawn."""
    driver.get(f"http://{server.host}/#{state}")
    driver.refresh()
    wait_for(driver, lambda found: found.find_elements(By.CSS_SELECTOR, drawn) and found.execute_script(PATIENT))


def save(driver: webdriver.Chrome, name: str) -> None:
    """The picture of what the browser shows."""
    driver.save_screenshot(str(PICTURES / f"{name}.png"))


def pictures(driver: webdriver.Chrome, server: Server) -> None:
    """Every picture."""
    driver.get(server.link)
    show(driver, server, "series=process")
    picture = driver.find_element(By.CSS_SELECTOR, ".flame canvas")
    ActionChains(driver).move_to_element_with_offset(
        picture, int(-picture.size["width"] * 0.35), int(-picture.size["height"] * 0.2)
    ).perform()
    wait_for(driver, lambda found: found.find_element(By.CSS_SELECTOR, ".tip").text)
    save(driver, "tour-flame")
    driver.set_window_size(1200, 1060)
    show(driver, server, "view=quality", "#unnamed")
    save(driver, "tour-quality")
    name, module = hottest(server, "cc1")
    chosen = urlencode({"view": "sandwich", "comm": "cc1", "function": name, "in": module})
    show(driver, server, chosen, ".layers h3:nth-of-type(2) + .flame canvas[data-drawn]")
    save(driver, "tour-sandwich")
    driver.set_window_size(1200, 760)
    show(driver, server, "view=chart&comm=python3")
    save(driver, "tour-chart")
    show(driver, server, "view=diff")
    save(driver, "tour-diff")


def picture_of_guest(driver: webdriver.Chrome, server: Server) -> None:
    """The guest's flame graph, its timeline by virtual CPU."""
    driver.get(server.link)
    driver.set_window_size(1200, 760)
    show(driver, server, "series=vcpu")
    save(driver, "tour-guest")


def main() -> None:
    """Make them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        with chromium(width=1200, height=720) as driver:
            with serving(*recorded(folder)) as server:
                pictures(driver, server)
            with serving(recorded_guest(folder)) as server:
                picture_of_guest(driver, server)


if __name__ == "__main__":
    main()

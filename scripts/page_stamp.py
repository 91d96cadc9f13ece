"""Whether src/unspool/web/static was built from ui/ as it is: digests of both, compared with the ones the build wrote down.

page_stamp.py --write   after a build
page_stamp.py           exit status 1 when sources or built files changed since
"""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES, BUILT = ROOT / "ui", ROOT / "src" / "unspool" / "web" / "static"
STAMP = BUILT / ".stamp"


def digest(folder: Path) -> str:
    """One digest of all files below a folder, names included; installed packages and the stamp are left out."""
    total = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.is_file() and "node_modules" not in path.parts and path != STAMP]
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def main() -> int:
    """Write the stamp, or compare with it."""
    state = f"sources {digest(SOURCES)}\nbuilt {digest(BUILT)}\n"
    if "--write" in sys.argv[1:]:
        STAMP.write_text(state, encoding="utf-8")
        return 0
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != state:
        print("the built page is not the one of ui/: run `make ui` and commit src/unspool/web/static", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The compiler, assembler and linker that emit SFrame V3: unpacked once into a cache folder, a fixture for the tests that need them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "sframe-toolchain"
SCRIPT = ROOT / "scripts" / "sframe-toolchain.sh"
ARCHES = ("x86_64", "aarch64", "s390x")


class Toolchain:
    """The wrappers of scripts/sframe-toolchain.sh, and a cache of what they built."""

    def __init__(self, folder: Path, cache: Path) -> None:
        """Take the toolchain's folder and where to put what it builds."""
        self.bin = folder / "bin"
        self.cache = cache

    def tool(self, name: str, arch: str = "x86_64") -> str:
        """The path of `as`, `ld`, `readelf`, `objdump`, `objcopy`, `strip`, `nm` for an architecture."""
        return str(self.bin / f"sid-{arch}-{name}")

    def compiler(self, arch: str) -> str:
        """The C compiler; on x86-64 it builds programs that run here."""
        return str(self.bin / ("sid-gcc-hostlibc" if arch == "x86_64" else f"sid-{arch}-gcc"))

    def build(self, source: str, arch: str = "x86_64", flags: Sequence[str] = ("-O2",), *, suffix: str = ".c") -> Path:
        """Compile source text into a file, once for each combination."""
        key = hashlib.sha256("\0".join([source, arch, suffix, *flags]).encode()).hexdigest()[:20]
        output = self.cache / key
        if not output.exists():
            text = self.cache / f"{key}{suffix}"
            text.write_text(source, encoding="utf-8")
            partial = self.cache / f"{key}.partial"
            command = [self.compiler(arch), "-Wa,--gsframe-3", *flags, "-o", str(partial), str(text)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            partial.rename(output)
        return output

    def readelf(self, file: Path) -> str:
        """What `readelf --sframe` of these binutils prints."""
        return subprocess.run([self.bin / "readelf", "--sframe", file], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="session")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """The toolchain, set up at its first use (about 150 MB from the machine's Debian source); CI must have it, elsewhere absence skips."""
    stamp = FOLDER / ".complete"
    FOLDER.parent.mkdir(exist_ok=True)
    with (FOLDER.parent / "sframe-toolchain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            done = subprocess.run(["bash", SCRIPT, FOLDER], capture_output=True, text=True, check=False, timeout=900)
            if done.returncode:
                reason = f"the SFrame toolchain could not be unpacked: {done.stderr[-500:]}"
                if os.environ.get("CI"):
                    pytest.fail(reason)
                pytest.skip(reason)
            stamp.write_text(wanted)
    return Toolchain(FOLDER, tmp_path_factory.mktemp("sframe-programs"))

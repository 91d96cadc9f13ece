"""The programs whose formats are written: found where scripts/export-peers.sh put them; without its peer a test skips, or fails in CI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PEERS = Path(__file__).parents[2] / "build" / "peers" / "node_modules"
PATIENCE = 60


def absent(what: str) -> None:
    """Skip the test, or fail it in CI, where every peer must be there."""
    message = f"needs {what}: scripts/export-peers.sh installs it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def pprof(*arguments: str | Path) -> str:
    """What `go tool pprof` prints."""
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if not go:
        absent("go")
    command = [go or "", "tool", "pprof", *map(str, arguments)]
    # Go may have to build the tool first; this takes a minute on a machine with nothing else to do.
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout


def speedscope(name: str) -> Path:
    """A file of the speedscope release."""
    path = PEERS / "speedscope" / "dist" / "release" / name
    if not path.exists():
        absent("npm's speedscope")
    return path


class FirefoxProfiler:
    """The Firefox Profiler's command line with one profile loaded."""

    def __init__(self, home: Path) -> None:
        """Keep its session in that folder."""
        if not (PEERS / ".bin" / "profiler-cli").exists() or not shutil.which("node"):
            absent("npm's @firefox-devtools/profiler-cli")
        self._environment = os.environ | {"HOME": str(home)}

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["node", str(PEERS / ".bin" / "profiler-cli"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=PATIENCE, check=False)

    def load(self, file: Path) -> None:
        """Load a profile.

        The command gives its daemon half a second, which a busy machine may not have: the session is asked until it answers.
        """
        loaded = self._call("load", str(file))
        if loaded.returncode == 0:
            return
        assert "did not become ready" in loaded.stderr, loaded.stderr
        deadline = time.monotonic() + PATIENCE
        while self._call("profile", "info", "--json").returncode:
            assert time.monotonic() < deadline, "the daemon never answered"

    def json(self, *arguments: str) -> dict[str, Any]:
        """The answer to a question about the profile."""
        answer = self._call(*arguments, "--json")
        assert answer.returncode == 0, answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def stop(self) -> None:
        """End the daemon."""
        self._call("stop", "--all")


@contextmanager
def firefox_profiler(home: Path, file: Path) -> Iterator[FirefoxProfiler]:
    """The Firefox Profiler with that profile."""
    profiler = FirefoxProfiler(home)
    try:
        profiler.load(file)
        yield profiler
    finally:
        profiler.stop()

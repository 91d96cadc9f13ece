from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from store.recordings import small

from unspool.cli.main import main
from unspool.export.formats import FORMATS, format_of


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return str(small(tmp_path / "a.unspool"))


def test_every_suffix_chooses_its_format() -> None:
    for name, entry in FORMATS.items():
        for suffix in entry.suffixes:
            assert entry is format_of(f"dir/some.name{suffix}"), name
            assert entry is format_of(f"X{suffix.upper()}")


def test_a_name_without_a_known_suffix_needs_a_format(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["export", recording, "-o", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert "--format" in error
    assert not (tmp_path / "out").exists()
    assert 0 == main(["export", recording, "-o", str(tmp_path / "out"), "--format", "folded"])


def test_a_file_is_replaced_whole(recording: str, tmp_path: Path) -> None:
    """A link in the way is replaced, not followed; nothing else is left in the folder."""
    target, link = tmp_path / "target", tmp_path / "out.folded"
    target.write_text("precious")
    link.symlink_to(target)
    assert 0 == main(["export", recording, "-o", str(link)])
    assert "precious" == target.read_text()
    assert not link.is_symlink()
    assert {"a.unspool", "target", "out.folded"} == {file.name for file in tmp_path.iterdir()}


def test_a_place_that_cannot_be_written_is_an_error_with_a_hint(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path / "none" / "a.svg", tmp_path):
        assert 1 == main(["export", recording, "--format", "svg", "-o", str(place)])
        assert "hint: " in capsys.readouterr().err


def test_the_recording_is_not_overwritten(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(recording).read_bytes()
    assert 1 == main(["export", recording, "--format", "svg", "-o", recording])
    assert "the recording itself" in capsys.readouterr().err
    assert before == Path(recording).read_bytes()


def test_a_pipe_is_written_to(recording: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    assert 0 == main(["export", recording, "--format", "folded", "-o", str(pipe)])
    reader.join(30)
    assert b"demo;main;work;leaf 5" in received[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_filters_choose_what_is_exported(recording: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert 0 == main(["export", recording, "--format", "folded", "-o", "-", "--ending", "cut"])
    assert b"demo;[cut: no-unwind-info in libfoo.so];libfoo.so+0x9000 1\n" == capsysbinary.readouterr().out

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from store.recordings import HEADER, UNJUDGED, small

from unspool.errors import RecordingError
from unspool.model.symbol import Symbol, Unnamed
from unspool.model.verdict import Stop, Trust
from unspool.store import reader, writer
from unspool.store.writer import Writer

CUT = """
    SELECT stop, ending, m.path FROM stacks LEFT JOIN modules m ON m.module = stop_module WHERE ending <> 'whole' ORDER BY stop
"""
EXITED = "SELECT pid, parent, exit_ns FROM processes WHERE exit_ns IS NOT NULL"
PLACES = "SELECT function, address, f.offset FROM symbols JOIN frames f USING (frame)"


def test_a_finished_recording_is_one_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    assert [path] == list(tmp_path.iterdir())
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_the_log_of_a_running_recording_is_private_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Writer(tmp_path / "a.unspool", HEADER) as out:
            out.counter("x", 1)
            out.commit()
            assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with reader.open_recording(small(tmp_path / "a.unspool")) as recording:
        overview = recording.overview()
        assert (True, 1.0, "testhost", "./demo --fast") == (overview.finished, overview.duration_s, overview.hostname, overview.command)
        assert {"cpu-model": "Test CPU"} == recording.machine()
        assert {"lost-ring": 3, "deferred": 1} == recording.counters()
        assert 3 == recording.lost()
        assert [(10,)] == recording.rows("SELECT count(*) FROM samples")
        assert [(5,)] == recording.rows("SELECT max(n) FROM (SELECT count(*) AS n FROM samples GROUP BY stack)")
        stops = recording.rows(
            "SELECT stop, ending, m.path FROM stacks LEFT JOIN modules m ON m.module = stop_module WHERE ending <> 'whole' ORDER BY stop"
        )
        assert [("no-unwind-info", "cut", "/usr/lib/libfoo.so"), ("no-user-stack", "none", None)] == stops
        assert [("no symbol table",)] == recording.rows("SELECT symbol_state FROM frames WHERE symbol_state <> 'named'")
        assert [(10, 1, HEADER.monotonic_ns + 10**9)] == recording.rows(
            "SELECT pid, parent, exit_ns FROM processes WHERE exit_ns IS NOT NULL"
        )


def test_the_same_thing_has_one_identity(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        module = out.module("/lib/a.so", "aa")
        assert module == out.module("/lib/a.so", "aa")
        assert module != out.module("/lib/a.so", "bb")
        assert module == out.module("/lib/a.so", "aa", guest=1), "one build, wherever it runs"
        assert len({out.module("/lib/b.so"), out.module("/lib/b.so", guest=1), out.module("/lib/b.so", guest=2)}) == 3
        frame = out.frame(module, 0x7000, 0x10, "user", Trust.CFI)
        assert frame == out.frame(module, 0x9000, 0x10, "user", Trust.CFI), "mapped elsewhere, the same code"
        assert frame != out.frame(None, 0x7000, None, "user", Trust.CFI)
        process = out.process(1, 2, "a", "/bin/a")
        assert process == out.process(1, 2, "a", "/bin/a")
        assert process != out.process(1, 2, "b", "/bin/b"), "exec"
        stack = out.stack((frame,), 0, Stop.END_PROCESS_ENTRY, None, UNJUDGED)
        assert stack == out.stack((frame,), 0, Stop.END_PROCESS_ENTRY, None, UNJUDGED)
        assert stack != out.stack((frame,), 0, Stop.NO_UNWIND_INFO, module, UNJUDGED)


def test_names_may_come_after_the_frame_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    with Writer(path, HEADER) as out:
        frames = [out.frame(None, address, None, "user", Trust.CFI) for address in range(3)]
        out.name(frames[0], (Symbol("early"),))
        out.commit()
        out.name(frames[1], (Symbol("inlined", 1, "a.c", 2, inlined=True), Symbol("outer")))
        out.name(frames[1], Unnamed("a second answer changes nothing"))
    with reader.open_recording(path) as recording:
        assert [("named",), ("named",), (None,)] == recording.rows("SELECT symbol_state FROM frames ORDER BY frame")
        expected = [("early", 0, None, False), ("inlined", 0, 2, True), ("outer", 1, None, False)]
        assert expected == recording.rows("SELECT function, depth, line, inlined FROM symbols ORDER BY frame, depth")


def test_any_text_and_any_address_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    odd = b"\xff\x1b[31m\x00'\"\xe2\x82\xac".decode(errors="surrogateescape")
    with Writer(path, HEADER) as out:
        process = out.process(1, 2, odd, odd)
        frame = out.frame(out.module(odd), 2**64 - 1, 2**63, "kernel", Trust.KERNEL)
        out.name(frame, (Symbol(odd, 0, odd, 1),))
        out.sample(0, process, out.thread(process, 1, odd), 0, "cpu", odd, 1, out.stack((), 0, Stop.NO_USER_STACK, None, UNJUDGED))
    with reader.open_recording(path) as recording:
        assert [("\\udcff\x1b[31m\x00'\"€", 2**64 - 1, 2**63)] == recording.rows(
            "SELECT function, address, f.offset FROM symbols JOIN frames f USING (frame)"
        )
        assert [([],)] == recording.rows("SELECT frames FROM stacks")


def test_a_stack_that_was_forgotten_gets_a_second_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "REMEMBERED_STACKS", 2)
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        numbers = [out.stack((index,), 0, Stop.CYCLE, None, UNJUDGED) for index in (0, 1, 2, 2, 0)]
    assert [1, 2, 3, 3, 4] == numbers


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    path.write_text("precious")
    link = tmp_path / "link.unspool"
    link.symlink_to(path)
    folder = tmp_path / "folder.unspool"
    folder.mkdir()
    for taken in (path, link, folder):
        for replace in (False, True):
            with pytest.raises(RecordingError) as caught:
                Writer(taken, HEADER, replace=replace)
            assert caught.value.hint
    assert "precious" == path.read_text()


def test_a_name_that_is_not_utf_8_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.unspool"))
    with pytest.raises(RecordingError, match="not UTF-8") as caught:
        Writer(path, HEADER)
    assert caught.value.hint
    small(tmp_path / "a.unspool").rename(path)
    with pytest.raises(RecordingError, match="not UTF-8"):
        reader.open_recording(path)


def test_a_recording_is_replaced_on_request_only(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    with pytest.raises(RecordingError, match="exists"):
        Writer(path, HEADER)
    with Writer(path, HEADER, replace=True) as out:
        out.counter("new", 1)
    with reader.open_recording(path) as recording:
        assert {"new": 1} == recording.counters()


def test_a_recording_that_begins_later_is_an_empty_file_until_its_first_commit(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    out = Writer(path, HEADER, later=True)
    out.counter("samples", 7)
    assert (0, 0o600) == (path.stat().st_size, path.stat().st_mode & 0o777)
    with pytest.raises(RecordingError, match="exists"):
        Writer(path, HEADER)
    out.starts_now()
    out.commit()
    out.counter("samples", 8)
    out.finish(5)
    with reader.open_recording(path) as recording:
        assert {"samples": 8} == recording.counters()
        assert [(out.header.started_ns, 5)] == recording.rows("SELECT started_ns, duration_ns FROM recording")


def test_a_recording_without_any_commit_leaves_no_file_but_does_not_take_another_away(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    Writer(path, HEADER, later=True).abandon()
    assert not path.exists()
    out = Writer(path, HEADER, later=True)
    path.rename(tmp_path / "moved")
    path.write_text("precious")
    out.abandon()
    assert "precious" == path.read_text()


def test_a_recording_that_ends_before_its_first_commit_is_whole(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.unspool", HEADER, later=True) as out:
        out.counter("samples", 7)
    with reader.open_recording(out.path) as recording:
        assert {"samples": 7} == recording.counters()
    with pytest.raises(RecordingError, match="finished"):
        out.commit()


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.unspool").touch()
    with Writer(tmp_path / "a.unspool", HEADER, replace=True) as out:
        out.counter("new", 1)
    with reader.open_recording(out.path) as recording:
        assert {"new": 1} == recording.counters()


def test_what_a_commit_needs_is_loaded_in_steps() -> None:
    assert 2 == len(list(writer.prepare()))


def test_a_full_disk_is_an_error_of_the_recording_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Writer(tmp_path / "a.unspool", HEADER, later=True)
    monkeypatch.setattr("unspool.store.place.os.pwrite", lambda *_: 100)
    with pytest.raises(RecordingError, match="No space left"):
        out.commit()
    out.abandon()
    assert not (tmp_path / "a.unspool").exists()


def test_a_log_in_the_way_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a.unspool.wal").write_bytes(b"somebody else's")
    with pytest.raises(RecordingError, match=r"a\.unspool\.wal is in the way"):
        Writer(tmp_path / "a.unspool", HEADER)


def test_a_directory_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file") as caught:
        Writer(tmp_path / "none" / "a.unspool", HEADER)
    assert "-o" in caught.value.hint


def test_finish_is_final(tmp_path: Path) -> None:
    out = Writer(tmp_path / "a.unspool", HEADER)
    out.finish(5)
    out.finish(6)
    with pytest.raises(RecordingError, match="finished"):
        out.commit()


KILLED = """
import os, sys
from store.recordings import HEADER, Scene
from unspool.store.writer import Writer
out = Writer(sys.argv[1], HEADER)
scene = Scene(out)
process = out.process(1, 2, "demo")
thread = out.thread(process, 1, "demo")
for number in range(int(sys.argv[2])):
    stack = scene.stack(*(scene.frame(f"f{number}_{depth}") for depth in range(50)))
    for index in range(200):
        out.sample(HEADER.monotonic_ns + number * 10**9 + index, process, thread, 0, "cpu", "", 1, stack)
    out.commit()
    print(number, flush=True)
out.sample(0, process, thread, 0, "cpu", "", 1, stack)
print("lost", flush=True)
sys.stdin.read()
"""


def killed_recording(path: Path, *, commits: int, until: str) -> None:
    """Run a recorder and kill it once it has said that line."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(path), str(commits)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as recorder:
        assert recorder.stdout
        try:
            assert until in (line.strip() for line in recorder.stdout)
        finally:
            recorder.send_signal(signal.SIGKILL)


def test_a_killed_recording_opens_and_holds_all_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    killed_recording(path, commits=3, until="lost")
    assert (tmp_path / "a.unspool.wal").exists()
    for _ in range(2):
        with reader.open_recording(path) as recording:
            overview = recording.overview()
            assert (False, [(600,)]) == (overview.finished, recording.rows("SELECT count(*) FROM samples"))
            assert pytest.approx(2.0, abs=0.01) == overview.duration_s
            assert [(150,)] == recording.rows("SELECT count(*) FROM symbols")


def test_a_recording_killed_in_the_middle_of_its_work_opens_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    killed_recording(path, commits=1000, until="5")
    with reader.open_recording(path) as recording:
        samples, stacks = recording.rows("SELECT count(*), count(DISTINCT stack) FROM samples")[0]
        assert samples == stacks * 200 >= 6 * 200, "transactions are there entirely or not at all"
        assert [(0,)] == recording.rows("SELECT count(*) FROM samples WHERE stack NOT IN (SELECT stack FROM stacks)")


def test_a_log_torn_at_any_byte_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    killed_recording(path, commits=2, until="lost")
    log = tmp_path / "a.unspool.wal"
    content = log.read_bytes()
    counts = []
    for length in range(0, len(content), len(content) // 20):
        log.write_bytes(content[:length])
        with duckdb.connect(str(path), read_only=True) as connection:
            counts.append(connection.execute("SELECT count(*) FROM samples").fetchone()[0])
    assert counts == sorted(counts)
    assert {0, 200} == set(counts) - {400}


FULL = """
import resource, sys
from store.recordings import HEADER, Scene
from unspool.errors import RecordingError
from unspool.store.writer import Writer
out = Writer(sys.argv[1], HEADER)
scene = Scene(out)
process = out.process(1, 2, "demo")
thread = out.thread(process, 1, "demo")
out.sample(0, process, thread, 0, "cpu", "", 1, scene.stack(scene.frame("kept")))
out.commit()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    for number in range(1000):
        for index in range(2000):
            out.sample(number, process, thread, index, f"t{index}", f"d{number * index}", 1, scene.stack(scene.frame(f"f{number}_{index}")))
        out.commit()
except RecordingError as error:
    print(error, "|", error.hint)
    out.abandon()
    sys.exit(3)
"""


def test_a_disk_that_is_full_is_an_error_with_a_hint_and_loses_nothing_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, env=environment, check=False)
    assert (3, "") == (done.returncode, done.stderr)
    assert "cannot be written" in done.stdout
    assert "Is the disk full?" in done.stdout
    with reader.open_recording(path) as recording:
        assert [(1,)] == recording.rows("SELECT count(*) FROM samples WHERE detail = ''")


def test_an_interrupted_commit_is_done_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.unspool"
    with Writer(path, HEADER) as out:
        frame = out.frame(None, 1, None, "user", Trust.CFI)
        out.name(frame, (Symbol("named"),))
        process = out.process(1, 2, "demo")
        out.sample(0, process, out.thread(process, 1, "demo"), 0, "cpu", "", 1, out.stack((frame,), 0, Stop.CYCLE, None, UNJUDGED))
        with monkeypatch.context() as patched:
            patched.setattr(writer, "update", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                out.commit()
        out.commit()
    with reader.open_recording(path) as recording:
        assert [("named", 1)] == recording.rows("SELECT symbol_state, (SELECT count(*) FROM samples) FROM frames")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


READS = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
print("reading", flush=True)
sys.stdin.read()
"""


def test_who_reads_the_file_when_it_is_just_made_does_not_end_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`unspool report` in a loop beside a recorder that starts: the reader has DuckDB's lock when the writer wants it."""
    path = tmp_path / "a.unspool"
    readers: list[subprocess.Popen[str]] = []
    really = os.close

    def close(descriptor: int) -> None:
        is_file = os.path.exists(path) and os.path.samestat(os.fstat(descriptor), path.stat())  # noqa: PTH110 (as the code under test)
        really(descriptor)
        if is_file and not readers:
            reading = [sys.executable, "-c", READS, str(path)]
            readers.append(subprocess.Popen(reading, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert readers[0].stdout is not None
            assert "reading\n" == readers[0].stdout.readline()

    def wait(_: float) -> None:
        # Its wait() with a limit would sleep too.
        for stream in (readers[0].stdin, readers[0].stdout):
            assert stream is not None
            stream.close()
        readers[0].wait()

    with monkeypatch.context() as patched:
        patched.setattr(writer.os, "close", close)
        patched.setattr(writer.time, "sleep", wait)
        out = Writer(path, HEADER)
    out.finish()
    assert [0] == [process.returncode for process in readers]
    with reader.open_recording(path) as recording:
        assert recording.overview().finished


def test_who_never_lets_go_of_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise duckdb.IOException("Could not set lock on file: Conflicting lock is held")

    writer.place.empty_recording()
    monkeypatch.setattr(writer, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(duckdb, "connect", locked)
    with pytest.raises(RecordingError, match="Could not set lock"):
        Writer(tmp_path / "a.unspool", HEADER)

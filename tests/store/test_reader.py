from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from store.recordings import AGAIN, DATABASE, HEADER, WEB, guests, of_schema_1, small

from unspool.errors import RecordingError
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.store.schema import SCHEMA, TABLES
from unspool.store.writer import Writer


def test_a_file_that_is_none_is_refused_with_a_hint(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("main 1\n")
    empty = tmp_path / "empty"
    empty.touch()
    for path, message in (
        (text, "not a recording"),
        (empty, "not a recording"),
        (tmp_path, "directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    duckdb.connect(str(path)).close()
    with pytest.raises(RecordingError, match="DuckDB database but not a recording"):
        open_recording(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE recording SET schema = {SCHEMA + 1}")
    with pytest.raises(RecordingError, match=f"schema {SCHEMA + 1}") as caught:
        open_recording(path)
    assert "newer" in caught.value.hint


def test_a_damaged_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    content[0:8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(RecordingError):
        open_recording(path)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damage_anywhere_is_an_error_not_a_traceback(damage: str, tmp_path: Path) -> None:
    """DuckDB reads a block when a query needs it: the damage may show long after the file was opened."""
    whole = small(tmp_path / "a.unspool").read_bytes()
    path = tmp_path / "b.unspool"
    errors = []
    # Three headers of 4 KB, then blocks of 256 KB (DuckDB's storage format).
    for block in range(3 * 4096, len(whole), 256 * 1024):
        at = block + 1000
        path.write_bytes(whole[:at] if damage == "cut" else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            with open_recording(path) as recording:
                load(recording)
        except RecordingError as error:
            errors.append(str(error))
    assert len(errors) > 1
    assert all("cannot be read" in error or "is damaged" in error for error in errors), errors


def test_a_recording_that_is_being_written_is_read_as_a_copy(tmp_path: Path) -> None:
    """The writer goes on undisturbed, and the copy holds what was committed."""
    with Writer(tmp_path / "a.unspool", HEADER) as writer:
        for value in (1, 2):
            writer.counter("seen", value)
            writer.commit()
            with open_recording(tmp_path / "a.unspool") as recording:
                assert recording.is_copy
                assert {"seen": value} == recording.counters()
    with open_recording(tmp_path / "a.unspool") as recording:
        assert not recording.is_copy


def test_the_tables_are_those_of_the_schema(tmp_path: Path) -> None:
    with open_recording(small(tmp_path / "a.unspool")) as recording:
        for table, columns in TABLES.items():
            found = [row[:2] for row in recording.rows(f"DESCRIBE {table}")]
            assert [(column.name, column.type) for column in columns] == found


def test_sql_on_a_recording_reaches_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with open_recording(small(tmp_path / "a.unspool")) as recording:
        for sql in (
            f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
            f"COPY samples TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/other.db'",
            "SET enable_external_access = true",
            "DELETE FROM samples",
        ):
            with pytest.raises(duckdb.Error):
                recording.rows(sql)
    assert {"a.unspool", "secret.csv"} == {file.name for file in tmp_path.iterdir()}


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE samples ALTER weight TYPE VARCHAR")
    with pytest.raises(RecordingError, match=r"samples\.weight"):
        open_recording(path)


def test_numbers_that_cannot_be_added_up_are_an_error_not_a_traceback(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE samples SET weight = {2**63 - 1}")
    with open_recording(path) as recording, pytest.raises(RecordingError, match="cannot be read"):
        load(recording)


def test_a_file_of_schema_1_reads_as_one_without_guests(tmp_path: Path) -> None:
    old, new = tmp_path / 'an "old" one.unspool', small(tmp_path / "a.unspool")
    with open_recording(of_schema_1(old)) as recording, open_recording(new) as same:
        assert 1 == recording.overview().schema
        for table, columns in TABLES.items():
            assert [(column.name, column.type) for column in columns] == [row[:2] for row in recording.rows(f"DESCRIBE {table}")]
            if table != "recording":
                assert same.rows(f"SELECT * FROM {table}") == recording.rows(f"SELECT * FROM {table}")
        assert load(same).samples == load(recording).samples
        assert load(same).functions == load(recording).functions


def test_a_file_that_lacks_what_its_schema_has_is_refused(tmp_path: Path) -> None:
    path = of_schema_1(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE recording SET schema = 2")
    with pytest.raises(RecordingError, match="damaged"):
        open_recording(path)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE recording SET schema = 0")
    with pytest.raises(RecordingError, match="not a recording"):
        open_recording(path)


def test_guests_are_kept_with_the_last_that_was_said_of_them(tmp_path: Path) -> None:
    with open_recording(guests(tmp_path / "a.unspool")) as recording:
        rows = recording.rows("SELECT guest, name, generation, uuid, kernel_release, registers_by FROM guests ORDER BY guest")
        expected = [
            (number, guest.name, guest.generation, guest.uuid or None, guest.kernel_release or None, guest.registers_by or None)
            for number, guest in enumerate((WEB, AGAIN, DATABASE), 1)
        ]
        assert expected == rows
        found = recording.rows("SELECT guest, vcpu, cpu, count(*) FROM samples JOIN processes USING (process) GROUP BY ALL ORDER BY ALL")
        assert [(1, 0, -1, 3), (1, 1, -1, 2), (2, 0, -1, 2), (3, 0, -1, 3), (None, None, 1, 2)] == found
        assert [("/user.slice", 1), (None, 3)] == recording.rows("SELECT cgroup, count(*) FROM processes GROUP BY ALL ORDER BY ALL")


def test_numbers_of_virtual_cpus_that_cannot_be_make_no_large_arrays(tmp_path: Path) -> None:
    path = guests(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE samples SET vcpu = {2**31 - 1} WHERE vcpu = 1")
        connection.execute(f"UPDATE samples SET vcpu = {-(2**31)}, cpu = {2**31 - 1} WHERE vcpu = 0")
    with open_recording(path) as recording:
        profile = load(recording, timed=True)
    assert {-1} == set(profile.counted.vcpu.tolist())

"""Stacks of virtual machines in every format: which guest, which vCPU, and never mixed up with the host's processes of the same id."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import duckdb
import pytest
from export.peers import pprof
from opentelemetry.proto.profiles.v1development import profiles_pb2
from store.recordings import guests, twins

from unspool.cli.main import main
from unspool.export.formats import FORMATS
from unspool.export.options import Options
from unspool.profile.columns import Profile
from unspool.store.load import load
from unspool.store.reader import open_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guests(tmp_path_factory.mktemp("guests") / "a.unspool")


@pytest.fixture(scope="module")
def profile(recording: Path) -> Profile:
    with open_recording(recording) as opened:
        return load(opened, timed=True)


def written(profile: Profile, name: str, options: Options | None = None) -> bytes:
    return b"".join(FORMATS[name].chunks(profile, options or Options()))


def test_folded_stacks_begin_with_their_guest(profile: Profile) -> None:
    expected = [
        "demo;main;leaf 2",
        "guest:db;postgres;[cut: guest-pt];gsys 3",
        "guest:web#2;swapper/0;gentry;gsys 2",
        "guest:web;nginx;main;leaf 2",
        "guest:web;nginx;main;leaf;gentry;gsys 3",
    ]
    assert expected == written(profile, "folded").decode().splitlines()
    by_guest = written(profile, "folded", Options(by="guest", marks=False)).decode()
    assert "guest:db;gsys 3\n" in by_guest
    assert "[host];main;leaf 2\n" in by_guest
    assert "main;leaf 4\n" in written(profile, "folded", Options(by="none")).decode()


def test_the_root_branches_into_virtual_cpus(profile: Profile) -> None:
    folded = written(profile, "folded", Options(by="vcpu", marks=False)).decode().splitlines()
    expected = {
        "guest:web;vCPU 0;main;leaf;gentry;gsys 3",
        "guest:web;vCPU 1;main;leaf 2",
        "guest:web#2;vCPU 0;gentry;gsys 2",
        "[host];main;leaf 2",
    }
    assert expected == set(folded) - {"guest:db;vCPU 0;gsys 3"}
    names = {one["name"] for one in json.loads(written(profile, "speedscope", Options(by="vcpu")))["profiles"]}
    assert {"guest:web vCPU 0", "guest:web vCPU 1", "guest:web#2 vCPU 0", "guest:db vCPU 0", "[host]"} == names


def test_guests_of_one_name_stay_two(tmp_path: Path) -> None:
    with open_recording(twins(tmp_path / "a.unspool")) as opened:
        folded = written(load(opened, timed=True), "folded").decode().splitlines()
    assert ["guest:web@1;sh;main 1", "guest:web@2;sh;main 2", "sh;main 1"] == folded


def test_pictures_have_a_box_for_each_guest(profile: Profile) -> None:
    assert "<title>guest:web: 5 samples, 41.67 %; self 0</title>" in written(profile, "svg").decode()
    assert b"guest:web#2" in written(profile, "html")


def test_pprof_chooses_by_guest_and_vcpu(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "a.pb.gz"
    file.write_bytes(written(profile, "pprof"))
    tags = re.sub(r"[ \t]+", " ", pprof("-tags", "-sample_index=samples", file))
    lines = (
        "7 (58.33%): web",
        "3 (25.00%): db",
        "8 (66.67%): 0",
        "2 (16.67%): 1",
        "7 (58.33%): 6.1.0-50-cloud-amd64",
        "2 (16.67%): /user.slice",
    )
    for line in lines:
        assert line in tags
    for focus, expected in (("guest=web", "7, 58.33%"), ("vcpu=^1$", "2, 16.67%")):
        assert f"Showing nodes accounting for {expected} of 12 total" in pprof("-top", "-sample_index=samples", f"-tagfocus={focus}", file)


def test_otlp_has_attributes_for_guest_vcpu_and_control_group(profile: Profile) -> None:
    data = profiles_pb2.ProfilesData.FromString(written(profile, "otlp"))
    strings, table = data.dictionary.string_table, data.dictionary.attribute_table
    found = profile_samples = 0
    for sample in data.resource_profiles[0].scope_profiles[0].profiles[0].samples:
        attributes = {strings[table[index].key_strindex]: table[index].value for index in sample.attribute_indices}
        profile_samples += len(sample.timestamps_unix_nano)
        if "unspool.guest" in attributes and attributes["unspool.guest"].string_value == "web":
            found += len(sample.timestamps_unix_nano)
            assert "6.1.0-50-cloud-amd64" == attributes["unspool.guest_kernel"].string_value
            assert attributes["unspool.vcpu"].int_value in {0, 1}
        if "unspool.guest" not in attributes:
            assert "/user.slice" == attributes["process.linux.cgroup"].string_value
            assert "unspool.vcpu" not in attributes
    assert (7, 12) == (found, profile_samples)


def test_two_machines_processes_of_one_id_stay_two(profile: Profile) -> None:
    threads = json.loads(gzip.decompress(written(profile, "firefox")))["threads"]
    names = {(thread["pid"], thread["processName"]) for thread in threads}
    assert {
        ("10", "demo"),
        ("10000010", "guest:web nginx"),
        ("20000000", "guest:web#2 swapper/0"),
        ("30000077", "guest:db postgres"),
    } == names
    events = json.loads(written(profile, "chrome-trace"))["traceEvents"]
    named = {(event["pid"], event["args"]["name"]) for event in events if event["name"] == "process_name"}
    assert {(10, "demo"), (10000010, "guest:web nginx"), (20000000, "guest:web#2 swapper/0"), (30000077, "guest:db postgres")} == named
    assert {pid for pid, _ in named} == {event["pid"] for event in events if event["ph"] == "B"}
    profiles = json.loads(written(profile, "speedscope"))["profiles"]
    assert {"demo", "guest:web nginx", "guest:web#2 swapper/0", "guest:db postgres"} == {one["name"] for one in profiles}


def test_parquet_has_a_column_for_each(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(written(profile, "parquet"))
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT guest, generation, guest_kernel, vcpu, cpu, cgroup, mode, count(*) FROM '{file}' GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    kernel = "6.1.0-50-cloud-amd64"
    assert [
        ("db", 1, None, 0, None, None, "kernel", 3),
        ("web", 1, kernel, 0, None, None, "kernel", 3),
        ("web", 1, kernel, 1, None, None, "user", 2),
        ("web", 2, kernel, 0, None, None, "kernel", 2),
        (None, None, None, None, 1, "/user.slice", "user", 2),
    ] == rows


@pytest.mark.parametrize(("suffix", "vcpus"), [(".folded", False), (".pb.gz", True), (".perf", True)])
def test_what_can_be_read_again_keeps_its_guests(recording: Path, tmp_path: Path, suffix: str, *, vcpus: bool) -> None:
    file, again = tmp_path / f"a{suffix}", tmp_path / "again.unspool"
    assert 0 == main(["export", str(recording), "-o", str(file)])
    assert 0 == main(["import", str(file), "-o", str(again)])
    question = """
        SELECT name, generation, vcpu, count(*) FROM samples JOIN processes USING (process) LEFT JOIN guests USING (guest)
        GROUP BY ALL ORDER BY ALL
    """
    with open_recording(recording) as first, open_recording(again) as second:
        expected = first.rows(question if vcpus else question.replace("vcpu,", "NULL,"))
        assert expected == second.rows(question)

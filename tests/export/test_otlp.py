"""The rules of profiles.proto's comments (opentelemetry-proto 1.10), checked on what is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.profiles.v1development import profiles_pb2 as pb
from store.recordings import HEADER, STARTED, big, small

from unspool.cli.main import main
from unspool.store.writer import Writer


def exported(folder: Path, recording: Path) -> Any:
    assert 0 == main(["export", str(recording), "-o", str(folder / "a.otlp")])
    return pb.ProfilesData.FromString((folder / "a.otlp").read_bytes())


@pytest.fixture
def data(tmp_path: Path) -> Any:
    return exported(tmp_path, small(tmp_path / "a.unspool"))


def check_rules(data: Any) -> None:
    """What the comments of the format demand."""
    dictionary = data.dictionary
    assert "" == dictionary.string_table[0]
    zeros = {
        "mapping_table": pb.Mapping(),
        "location_table": pb.Location(),
        "function_table": pb.Function(),
        "link_table": pb.Link(),
        "attribute_table": pb.KeyValueAndUnit(),
        "stack_table": pb.Stack(),
    }
    for table, zero in zeros.items():
        assert zero == getattr(dictionary, table)[0], f"{table}[0] is the zero value"
    for stack in dictionary.stack_table:
        assert all(0 < index < len(dictionary.location_table) for index in stack.location_indices)
    for location in dictionary.location_table:
        assert location.mapping_index < len(dictionary.mapping_table)
        assert all(0 < line.function_index < len(dictionary.function_table) for line in location.lines)
    for mapping in dictionary.mapping_table:
        assert mapping.memory_start < mapping.memory_limit or not (mapping.memory_start or mapping.memory_limit)
    for table in zeros:
        things = [thing.SerializeToString() for thing in getattr(dictionary, table)]
        assert table == "stack_table" or len(things) == len(set(things)), f"{table} holds each thing once"
    assert len(dictionary.string_table) == len(set(dictionary.string_table))
    for resource in data.resource_profiles:
        for scope in resource.scope_profiles:
            for profile in scope.profiles:
                check_profile(profile, dictionary)


def check_profile(profile: Any, dictionary: Any) -> None:
    end = profile.time_unix_nano + profile.duration_nano
    identities = Counter((sample.stack_index, tuple(sample.attribute_indices), sample.link_index) for sample in profile.samples)
    assert not identities or {1} == set(identities.values()), "samples of one identity are one sample"
    for sample in profile.samples:
        assert 0 < len(sample.values) == len(sample.timestamps_unix_nano)
        assert all(profile.time_unix_nano <= moment < end for moment in sample.timestamps_unix_nano)
        keys = [dictionary.attribute_table[index].key_strindex for index in sample.attribute_indices]
        assert len(keys) == len(set(keys)), "a key stands once"
        assert 0 not in keys


def attributes(dictionary: Any, indices: Any) -> dict[str, object]:
    found = {}
    for index in indices:
        attribute = dictionary.attribute_table[index]
        value = attribute.value
        found[dictionary.string_table[attribute.key_strindex]] = value.int_value if value.HasField("int_value") else value.string_value
    return found


def test_the_rules_of_the_format_hold(data: Any) -> None:
    check_rules(data)


def test_every_sample_arrives_with_its_time_and_verdict(data: Any) -> None:
    profile = data.resource_profiles[0].scope_profiles[0].profiles[0]
    dictionary = data.dictionary
    strings = dictionary.string_table
    assert ("samples", "count") == (strings[profile.sample_type.type_strindex], strings[profile.sample_type.unit_strindex])
    assert ("cpu", "nanoseconds", 10_000_000) == (
        strings[profile.period_type.type_strindex],
        strings[profile.period_type.unit_strindex],
        profile.period,
    )
    assert (STARTED, 10**9) == (profile.time_unix_nano, profile.duration_nano)
    assert 10 == sum(sum(sample.values) for sample in profile.samples)
    moments = {moment for sample in profile.samples for moment in sample.timestamps_unix_nano}
    assert {STARTED + index * 10**8 for index in range(10)} == moments
    cut = [sample for sample in profile.samples if attributes(dictionary, sample.attribute_indices)["unspool.ending"] == "cut"]
    expected = {
        "unspool.verdict": "unreliable",
        "unspool.stop": "no-unwind-info",
        "unspool.stop_module": "/usr/lib/libfoo.so",
        "thread.id": 10,
    }
    assert expected.items() <= attributes(dictionary, cut[0].attribute_indices).items()
    assert 10 == attributes(dictionary, cut[0].attribute_indices)["thread.id"]


def test_stacks_are_leaf_first_with_names_and_build_ids(data: Any) -> None:
    dictionary = data.dictionary
    stack = dictionary.stack_table[1]
    names = []
    for index in stack.location_indices:
        location = dictionary.location_table[index]
        names += [dictionary.string_table[dictionary.function_table[line.function_index].name_strindex] for line in location.lines]
    assert ["leaf", "work", "main"] == names
    location = dictionary.location_table[stack.location_indices[0]]
    assert {"profile.frame.type": "native", "unspool.frame.trust": "registers"} == attributes(dictionary, location.attribute_indices)
    mapping = dictionary.mapping_table[location.mapping_index]
    assert {"process.executable.build_id.gnu": "aa" * 20} == attributes(dictionary, mapping.attribute_indices)


def test_the_file_is_a_request_to_a_collector_as_well(data: Any) -> None:
    request = service.ExportProfilesServiceRequest.FromString(data.SerializeToString())
    assert 10 == sum(len(sample.values) for sample in request.resource_profiles[0].scope_profiles[0].profiles[0].samples)


def test_the_rules_hold_for_many_samples_and_for_none(tmp_path: Path) -> None:
    check_rules(exported(tmp_path, big(tmp_path / "big.unspool", samples=5000, stacks=700)))
    Writer(tmp_path / "empty.unspool", HEADER).finish(5)
    check_rules(exported(tmp_path, tmp_path / "empty.unspool"))

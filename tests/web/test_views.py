"""What the page is told, in numbers that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest
from store.recordings import HEADER, MONOTONIC, SECOND, Scene, guests, twins
from web.serving import Server, serving

from unspool.export.formats import FORMATS
from unspool.store.writer import Writer
from unspool.web.app import Views
from unspool.web.opened import Opened
from unspool.web.query import Query


def boxes(tree: dict[str, Any]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Each box's path of names, with its self and total."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    paths: list[tuple[str, ...]] = []
    for box, back in enumerate(tree["parent"]):
        name = tree["name"][tree["function"][box]]
        path = (*paths[box - back], name) if box else ()
        paths.append(path)
        found[path] = (tree["own"][box], tree["total"][box])
    return found


def test_the_tree_has_every_sample_once(server: Server) -> None:
    tree = server.view("tree")
    found = boxes(tree)
    assert (0, 10) == found[()]
    assert (0, 9) == found["demo",]
    assert (5, 5) == found["demo", "main", "work", "leaf"]
    assert (2, 2) == found["demo", "main", "leaf", "leaf"]
    assert (1, 1) == found["demo", "[cut: no-unwind-info in libfoo.so]", "libfoo.so+0x9000"]
    assert 10 == sum(own for own, _ in found.values())
    assert 0 == tree["left_out"]
    assert "/src/demo.c:30" in tree["place"]


def test_the_tree_can_begin_with_what_ran(server: Server) -> None:
    found = boxes(server.view("tree", by="none", inverted=1, marks=0))
    assert (0, 7) == found["leaf",]
    assert (0, 5) == found["leaf", "work"]
    assert (5, 5) == found["leaf", "work", "main"]
    assert (2, 2) == found["leaf", "leaf", "main"]


@pytest.mark.parametrize(
    ("filters", "samples"),
    [
        ({"pid": 20}, 1),
        ({"tid": "11"}, 4),
        ({"cpu": 1}, 5),
        ({"comm": "kworker*"}, 1),
        ({"on": "cpu"}, 10),
        ({"module": "libfoo.so"}, 2),
        ({"verdict": "unreliable"}, 1),
        ({"stop": "no-unwind-info"}, 1),
        ({"ending": "none"}, 1),
        ({"from": 0.2, "to": 0.5}, 3),
        ({"pid": [10, 20], "cpu": "0,1"}, 10),
    ],
)
def test_every_filter_reaches_every_view(server: Server, filters: dict[str, object], samples: int) -> None:
    assert samples == server.view("summary", **filters)["samples"]
    assert samples == boxes(server.view("tree", **filters))[()][1]
    assert samples == sum(server.view("functions", **filters)["own"])
    assert samples == server.view("quality", **filters)["samples"]


def test_a_filter_that_nothing_passes_leaves_nothing(server: Server) -> None:
    assert 0 == server.view("tree", pid=4711)["total"][0]
    assert [] == server.view("functions", pid=4711)["own"]
    assert 0 == server.view("quality", pid=4711)["samples"]
    assert [] == server.view("timeline", pid=4711)["series"]


def test_the_table_counts_a_recursive_function_once(server: Server) -> None:
    table = server.view("functions")
    rows = {name: (own, total) for name, own, total in zip(table["name"], table["own"], table["total"], strict=True)}
    assert (7, 7) == rows["leaf"]
    assert (0, 8) == rows["main"]
    assert (2, 2) == rows["ksys"]
    assert 10 == table["weight"]


def test_the_sandwich_has_callers_above_and_callees_below(server: Server) -> None:
    found = server.view("sandwich", function="work", **{"in": "/usr/bin/demo"})
    assert {(): (0, 5), ("work",): (0, 5), ("work", "main"): (5, 5)} == boxes(found["callers"])
    assert {(): (0, 5), ("work",): (0, 5), ("work", "leaf"): (5, 5)} == boxes(found["callees"])


def test_a_recursive_functions_sandwich_begins_with_its_outermost_call(server: Server) -> None:
    found = server.view("sandwich", function="leaf", **{"in": "/usr/bin/demo"})
    assert {(): (0, 7), ("leaf",): (0, 7), ("leaf", "work"): (0, 5), ("leaf", "work", "main"): (5, 5), ("leaf", "main"): (2, 2)} == boxes(
        found["callers"]
    )
    assert {(): (0, 7), ("leaf",): (5, 7), ("leaf", "leaf"): (2, 2)} == boxes(found["callees"])


def test_a_function_that_is_not_there_is_named(server: Server) -> None:
    answer = server.ask("/api/sandwich?function=nothing&in=x")
    assert (400, "no function 'nothing' in 'x'") == (answer.status, answer.json()["error"])


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("verdict", {"reliable": 8, "unreliable": 1, "none": 1}),
        ("ending", {"whole": 8, "cut": 1, "none": 1}),
        ("process", {"demo": 9, "kworker/0:1": 1}),
        ("cpu", {"CPU 0": 5, "CPU 1": 5}),
        ("trigger", {"cpu": 10}),
    ],
)
def test_the_timeline_has_every_sample_in_one_series(server: Server, series: str, expected: dict[str, int]) -> None:
    found = server.view("timeline", series=series, bins=10)
    assert expected == {one["name"]: sum(one["counts"]) for one in found["series"]}
    assert [1] * 10 == [sum(counts) for counts in zip(*(one["counts"] for one in found["series"]), strict=True)]


def test_the_timeline_keeps_what_lies_outside_the_chosen_time(server: Server) -> None:
    assert 10 == sum(sum(one["counts"]) for one in server.view("timeline", **{"from": 0.2, "to": 0.3})["series"])


def test_the_chart_keeps_the_order_of_time(server: Server) -> None:
    """Thread 10 has a sample every 0.2 s, at 100 a second a box each: leaf under work twice, then leaf under leaf, then what was cut."""
    found = server.view("chart")
    assert [[0, "demo (10)", 5], [1, "demo (10) helper (11)", 4], [2, "kworker/0:1 (20)", 1]] == found["threads"]
    names = [found["name"][function] for function in found["function"]]
    parents = [box - back for box, back in enumerate(found["parent"])]
    chart = [(names[box], names[parents[box]], found["left"][box], found["total"][box]) for box in range(1, len(names))]
    assert [0, 200_000, 400_000, 600_000] == [left for name, _, left, _ in chart if name == "main"]
    assert ("[cut: no-unwind-info in libfoo.so]", "demo (10)", 800_000, 10_000) in chart
    assert ("work", "main", 400_000, 25_000) in chart
    assert [600_000, 600_000] == [left for name, above, left, _ in chart if name == "leaf" and above in {"main", "leaf"}]
    assert {"mark", "program", "unknown", "group", "library"} >= set(found["kind"])


def test_calls_that_go_on_are_one_box(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as writer:
        scene = Scene(writer)
        process = writer.process(1, 1, "demo")
        thread = writer.thread(process, 1, "demo")
        main, one, two = (scene.frame(name) for name in ("main", "one", "two"))
        for index, stack in enumerate([scene.stack(one, main), scene.stack(one, main), scene.stack(two, main), scene.stack(one, main)]):
            writer.sample(MONOTONIC + index * SECOND // 100, process, thread, 0, "cpu", "", 1, stack)
        writer.finish(SECOND)
    found = Views([Opened.of(tmp_path / "a.unspool")]).chart(Query(()))
    columns = cast("dict[str, list[Any]]", found)
    names = [columns["name"][function] for function in columns["function"]]
    assert ["demo (1)", "main", "one", "two", "one"] == names
    assert [0, 0, 0, 20_000, 30_000] == columns["left"]
    assert [40_000, 40_000, 20_000, 10_000, 10_000] == columns["total"]
    assert [0, 0, 20_000, 10_000, 10_000] == columns["own"]
    assert [0, 1, 1, 2, 3] == columns["parent"]


def test_a_thread_that_is_not_there_is_named(server: Server) -> None:
    assert 400 == server.ask("/api/chart?thread=4711").status
    assert [] == server.view("chart", pid=4711)["threads"]
    assert 0 == server.view("chart", pid=20, thread=0)["samples"]


def test_quality_says_what_is_proved_and_what_mends_the_rest(server: Server) -> None:
    found = server.view("quality")
    assert (8, 0, 1, 1, 3) == (found["proved"], found["assumed"], found["cut"], found["none"], found["lost"])
    cut = [cause for cause in found["causes"] if cause["ending"] == "cut"]
    assert [("no-unwind-info", 1, [{"path": "/usr/lib/libfoo.so", "samples": 1}])] == [
        (cause["stop"], cause["samples"], cause["modules"]) for cause in cut
    ]
    assert cut[0]["advice"]
    assert [("no-unwind-info", 1, cut[0]["advice"])] == [
        (reason["stop"], reason["samples"], reason["advice"]) for reason in found["reasons"]
    ]
    assert [("/usr/lib/libfoo.so", 1)] == [(row["path"], row["own"]) for row in found["unnamed"]]
    assert "debug symbols" in found["unnamed"][0]["advice"]


def test_choices_hold_every_value_with_its_samples(server: Server) -> None:
    found = server.view("choices")
    assert [["demo", 9], ["kworker/0:1", 1]] == found["comm"]
    assert [["10 demo", 9], ["20 kworker/0:1", 1]] == found["pid"]
    assert {"/usr/bin/demo": 8, "/usr/lib/libfoo.so": 2, "[kernel]": 2} == dict(found["module"])
    assert [["0", 5], ["1", 5]] == found["cpu"]
    assert {"end-process-entry": 8, "no-unwind-info": 1, "no-user-stack": 1} == dict(found["stop"])


def test_the_difference_compares_shares(server: Server) -> None:
    found = server.view("diff", by="comm", marks=0)
    rows = dict(
        zip(found["functions"]["name"], zip(found["functions"]["own_before"], found["functions"]["own_after"], strict=True), strict=True)
    )
    assert (0, 0.6) == rows["wait"]
    assert (0.7, 0.4) == rows["leaf"]
    tree = found["tree"]
    shares = {path: (tree["before"][box], tree["after"][box]) for box, path in enumerate(boxes(tree))}
    assert (1.0, 1.0) == shares[()]
    assert (0.5, 0.0) == shares["demo", "main", "work"]
    assert (0.2, 0.4) == shares["demo", "main", "leaf"]
    assert (0.0, 0.6) == shares["demo", "main", "wait"]
    assert (0.1, 0.0) == shares["kworker/0:1",]


def test_a_recording_does_not_differ_from_itself(server: Server) -> None:
    found = server.view("diff", before=1, after=1)
    assert [] == found["functions"]["name"]
    assert found["tree"]["before"] == found["tree"]["after"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_chosen_samples_can_be_saved_in_every_format(server: Server, name: str) -> None:
    answer = server.ask(f"/api/export?format={name}&pid=10")
    assert 200 == answer.status
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.body


def test_an_empty_recording_has_views_too(tmp_path: Path) -> None:
    with Writer(tmp_path / "empty.unspool", HEADER) as writer:
        writer.finish(0)
    with serving(tmp_path / "empty.unspool") as running:
        for view in ("recordings", "summary", "choices", "tree", "functions", "timeline", "chart", "quality", "diff"):
            assert running.view(view)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return Views([Opened.of(guests(tmp_path_factory.mktemp("guests") / "a.unspool"))])


def asked(view: Callable[[Query], object], **parameters: object) -> dict[str, Any]:
    return cast("dict[str, Any]", view(Query(tuple((name, str(value)) for name, value in parameters.items()))))


def test_guests_vcpus_and_control_groups_can_be_chosen(machines: Views) -> None:
    choices = asked(machines.choices)
    assert [["web#1", 5], ["db", 3], ["[host]", 2], ["web#2", 2]] == choices["guest"]
    assert [["0", 8], ["1", 2]] == choices["vcpu"]
    assert [["6.1.0-50-cloud-amd64", 7], ["6.18.0", 2]] == choices["kernel"]
    assert [["kernel", 8], ["user", 4]] == choices["mode"]
    assert [["/user.slice", 2]] == choices["cgroup"]
    assert [["1", 2]] == choices["cpu"], "the host's CPU of a guest's sample is not known"
    for name, values in choices.items():
        for value, samples in values:
            if name not in {"comm", "pid", "tid", "module"}:
                assert samples == asked(machines.summary, **{name: value})["samples"], (name, value)


def test_a_recording_of_the_host_alone_offers_no_guests(server: Server) -> None:
    assert not {"guest", "vcpu", "kernel"} & set(server.view("choices"))


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("guest", {"web": 5, "db": 3, "[host]": 2, "web#2": 2}),
        ("vcpu", {"web vCPU 0": 3, "web vCPU 1": 2, "web#2 vCPU 0": 2, "db vCPU 0": 3, "[host]": 2}),
        ("mode", {"kernel": 8, "user": 4}),
        ("cgroup", {"not known": 10, "/user.slice": 2}),
        ("process", {"guest:web nginx": 5, "guest:db postgres": 3, "demo": 2, "guest:web#2 swapper/0": 2}),
        ("cpu", {"CPU not known": 10, "CPU 1": 2}),
    ],
)
def test_the_timeline_tells_machines_apart(machines: Views, series: str, expected: dict[str, int]) -> None:
    found = asked(machines.timeline, series=series, bins=12)["series"]
    assert expected == {one["name"]: sum(one["counts"]) for one in found}


def test_the_tree_has_a_level_for_guests(machines: Views) -> None:
    found = boxes(asked(machines.tree))
    assert (0, 5) == found["guest:web",]
    assert (3, 3) == found["guest:web", "nginx", "main", "leaf", "gentry", "gsys"]
    assert (0, 2) == found["demo",]
    assert (0, 2) == boxes(asked(machines.tree, by="guest"))["[host]",]
    vcpus = boxes(asked(machines.tree, by="vcpu"))
    assert [(0, 3), (0, 2)] == [vcpus["guest:web", f"vCPU {number}"] for number in (0, 1)]
    assert (0, 2) == vcpus["[host]",]
    chart = asked(machines.chart)
    assert "guest:web nginx (10) thread (10)" == chart["threads"][0][1]


def test_guests_are_judged_by_the_same_words(machines: Views) -> None:
    found = asked(machines.quality, guest="*")
    assert (12, 9, 3) == (found["samples"], found["proved"], found["cut"])
    assert ["guest-pt"] == [cause["stop"] for cause in found["causes"] if cause["ending"] == "cut"]


def test_two_recordings_of_guests_are_compared(tmp_path: Path) -> None:
    both = Views([Opened.of(guests(tmp_path / f"{name}.unspool")) for name in "ab"])
    tree = asked(both.diff)["tree"]
    assert ("guest:web#2", "swapper/0", "gentry", "gsys") in boxes(tree | {"own": [0] * len(tree["parent"])})
    assert {"/src/demo.c:10", "/src/demo.c:30", ""} == set(tree["place"])


def test_the_table_says_where_a_function_ran(machines: Views) -> None:
    table = asked(machines.functions)
    assert {"gsys": "web, web#2, db", "leaf": "[host], web", "main": "[host], web", "gentry": "web, web#2"} == dict(
        zip(table["name"], table["machine"], strict=True)
    )
    alone = asked(machines.functions, guest="web#2")
    assert {"gsys": "web#2", "gentry": "web#2"} == dict(zip(alone["name"], alone["machine"], strict=True))


def test_the_quality_of_each_machine_stands_beside_the_others(machines: Views) -> None:
    rows = asked(machines.quality)["machines"]
    assert [("web", 5, 5, 3, 3, 3), ("db", 3, 0, 3, 3, 0), ("[host]", 2, 2, 0, 0, 0), ("web#2", 2, 2, 2, 2, 2)] == [
        tuple(row[name] for name in ("name", "samples", "whole", "in_kernel", "kernel_known", "kernel_whole")) for row in rows
    ]
    assert [(0, 3), (1, 2)] == rows[0]["vcpus"]


def test_a_click_on_one_of_two_guests_of_a_name_chooses_it_alone(tmp_path: Path) -> None:
    views = Views([Opened.of(twins(tmp_path / "a.unspool"))])
    rows = asked(views.quality)["machines"]
    assert {"web@2": 2, "web@1": 1, "[host]": 1} == {row["name"]: asked(views.summary, guest=row["choose"])["samples"] for row in rows}
    assert [["web@2", 2], ["[host]", 1], ["web@1", 1]] == asked(views.choices)["guest"]


def test_without_guests_no_view_speaks_of_them(server: Server) -> None:
    assert [] == server.view("summary")["guests"] == server.view("functions")["machine"] == server.view("quality")["machines"]


def test_a_cpu_of_a_damaged_file_makes_no_large_array(tmp_path: Path) -> None:
    path = guests(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE samples SET cpu = {2**31 - 1}, vcpu = {2**31 - 1}")
    damaged = Views([Opened.of(path)])
    assert [[str(2**31 - 1), 12]] == asked(damaged.choices)["cpu"]
    assert [{}] * 4 == [dict(row["vcpus"]) for row in asked(damaged.quality)["machines"]]

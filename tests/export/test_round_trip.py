"""Profiles of any shape through the formats that can be read again."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from store.recordings import HEADER, Scene

from unspool.export import folded, perf_script, pprof, read_folded, read_perf_script, read_pprof
from unspool.export.options import Options, one_line
from unspool.export.reading import ReadSample
from unspool.model.verdict import Stop
from unspool.profile.columns import Profile
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.store.writer import Writer

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ["main", "a b", "x;y", "[cut: nothing", "f 1", "_[k]", "(inlined)"]
)
STACKS = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=6), st.sampled_from([Stop.END_PROCESS_ENTRY, Stop.NO_UNWIND_INFO, Stop.PAGE_ABSENT])),
    min_size=1,
    max_size=20,
)
Stacks = list[tuple[list[str], Stop]]


def profile_of(stacks: Stacks) -> Profile:
    """One sample for each stack, outermost function first in the list."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.unspool")
        with Writer(path, HEADER) as out:
            scene = Scene(out)
            process = out.process(1, 1, "prog")
            thread = out.thread(process, 1, "prog")
            for index, (names, stop) in enumerate(stacks):
                stack = scene.stack(*(scene.frame(name) for name in reversed(names)), stop=stop)
                out.sample(HEADER.monotonic_ns + index, process, thread, 0, "cpu", "", 1, stack)
        with open_recording(path) as recording:
            return load(recording, timed=True)


def counted(samples: list[ReadSample]) -> Counter[tuple[tuple[str, ...], Stop]]:
    found = Counter[tuple[tuple[str, ...], Stop]]()
    for sample in samples:
        names = tuple(call.function for frame in reversed(sample.frames) for call in reversed(frame.calls))
        found[names, sample.end.stop] += sample.count
    return found


@settings(max_examples=8, deadline=None)
@given(STACKS)
def test_pprof_keeps_names_counts_and_stops(stacks: Stacks) -> None:
    data = b"".join(pprof.chunks(profile_of(stacks), Options()))
    expected = Counter((tuple(names), stop) for names, stop in stacks)
    assert expected == counted(list(read_pprof.read(data)[1]))


@settings(max_examples=8, deadline=None)
@given(STACKS)
def test_folded_text_keeps_counts_and_why_stacks_are_cut(stacks: Stacks) -> None:
    """A whole stack says nothing of its end in this format; a semicolon becomes a colon; what stackcollapse adds to names is taken off."""
    data = b"".join(folded.chunks(profile_of(stacks), Options()))
    found = counted(list(read_folded.samples(data)))
    assert len(stacks) == sum(found.values())
    shapes = Counter[tuple[int, Stop]]()
    for (names, stop), count in found.items():
        shapes[len(names), stop] += count
    assert Counter((len(names), Stop.NONE if stop.is_end else stop) for names, stop in stacks) == shapes


@settings(max_examples=8, deadline=None)
@given(STACKS)
def test_perf_script_text_keeps_every_sample_and_frame(stacks: Stacks) -> None:
    data = b"".join(perf_script.chunks(profile_of(stacks), Options()))
    found = list(read_perf_script.samples(data))
    assert [len(names) for names, _ in stacks] == [len(sample.frames) for sample in found]
    assert [stop if not stop.is_end else Stop.NONE for _, stop in stacks] == [sample.end.stop for sample in found]
    names = [[one_line(name) for name in reversed(stack)] for stack, _ in stacks]
    assert names == [[call.function for frame in sample.frames for call in frame.calls] for sample in found]

"""Names of a recording that goes on come from a thread, later; what a runtime has not written yet is asked for again at the end."""

from __future__ import annotations

import pytest
from target_programs import wait_until

from unspool.capture.frames import Place
from unspool.capture.perf_maps import PerfMaps
from unspool.model.symbol import Named, Unnamed
from unspool.session import live_names
from unspool.session.live_names import LiveNames
from unspool.session.recording_names import JitNames, KernelNames
from unspool.symbols.symbolizer import Symbolizer

KERNEL = b"ffffffff81000000 T first\nffffffff81000100 t second\n"


class Maps(PerfMaps):
    """A perf map that grows."""

    text = b"1000 10 early\n"

    def read(self, pid: int) -> bytes | None:
        """What it says now."""
        assert pid == 7
        return self.text


class Names(dict[int, Named]):
    """Keeps what it is given."""

    def name(self, frame: int, named: Named) -> None:
        """Note it."""
        assert frame not in self, "the first answer would stay"
        self[frame] = named


def kernel(frame: int, address: int) -> Place:
    return Place(frame, "kernel", "[kernel]", None, 0, address, 0)


def jit(frame: int, address: int) -> Place:
    return Place(frame, "jit", "/tmp/perf-7.map", None, 0, address, 7)


def function(named: Named) -> str:
    return "" if isinstance(named, Unnamed) else named[0].function


@pytest.fixture(autouse=True)
def _kernels_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_names, "kernel", lambda: KernelNames(KERNEL))


def test_names_come_while_frames_still_come() -> None:
    found = Names()
    with Symbolizer() as symbolizer:
        names = LiveNames(Maps(), symbolizer)
        names.take([kernel(1, 0xFFFFFFFF81000008), jit(2, 0x1004)])

        def came(count: int) -> bool:
            names.give(found)
            return len(found) == count

        wait_until(lambda: came(2), "the first names")
        names.take([kernel(3, 0xFFFFFFFF81000108), kernel(4, 0x10)])
        wait_until(lambda: came(4), "the next ones")
        assert [] == names.stop(found)
    assert {1: "first", 2: "early", 3: "second", 4: ""} == {frame: function(named) for frame, named in found.items()}


def test_code_that_its_map_does_not_know_yet_is_left_for_the_end() -> None:
    found, maps = Names(), Maps()
    with Symbolizer() as symbolizer:
        names = LiveNames(maps, symbolizer)
        names.take([jit(1, 0x1004), jit(2, 0x2004)])

        def first() -> bool:
            names.give(found)
            return 1 in found

        wait_until(first, "the name that is there")
        # A map that is read again knows more.
        maps.text += b"2000 10 late\n3000 10 later\n"
        names.take([jit(3, 0x3004)])

        def third() -> bool:
            names.give(found)
            return 3 in found

        wait_until(third, "the name out of the map as it is now")
        assert [2] == [place.frame for place in names.stop(found)]
    assert {1: "early", 3: "later"} == {frame: function(named) for frame, named in found.items()}


def test_what_was_not_looked_up_in_time_is_left() -> None:
    found = Names()
    with Symbolizer() as symbolizer:
        names = LiveNames(Maps(), symbolizer)
        names.close()
        names._thread.join()
        names.take([kernel(1, 0xFFFFFFFF81000008)])
        assert [1] == [place.frame for place in names.stop(found)]
    assert {} == found


def test_who_is_patient_gets_back_what_has_no_name_yet() -> None:
    """Two guests may ask for one frame: whoever knows its name gives it."""
    found = Names()
    with Symbolizer() as symbolizer:
        names = LiveNames(Maps(), symbolizer)

        def asked(path: str, frame: int, address: int) -> Place:
            return Place(frame, "file", path, None, address, 0, 0)

        symbolizer.add(("gone", "/empty"), JitNames(b""))
        symbolizer.add(("gone", "/full"), JitNames(b"1000 10 there\n"))
        names.take([asked("/empty", 1, 0x1004), asked("/empty", 2, 0x1004)], patient=True)
        names.take([asked("/full", 1, 0x1004)], patient=True)

        def came() -> bool:
            names.give(found)
            return 1 in found and not names._waiting

        wait_until(came, "the name that one of them knows")
        assert [1, 2] == [place.frame for place in names.stop(found)]
    assert {1: "there"} == {frame: function(named) for frame, named in found.items()}

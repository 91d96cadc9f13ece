"""What `unspool stack` prints of stacks that are made up here."""

from __future__ import annotations

import json

from unspool.cli.printable import printable
from unspool.cli.stack import as_json, lines
from unspool.model.module import AddressSpace
from unspool.model.stack import Frame, Stack
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.session.naming import Place
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack

RELIABLE = Judgement(Verdict.RELIABLE)


def frame(named: Named, *, ip: int = 0x401235, exact: bool = False, trust: Trust = Trust.CFI, module: str = "/usr/bin/app") -> NamedFrame:
    """A frame of a program that is mapped at 0x400000, its file's first byte there."""
    found = Frame(ip, 0x7FFC0000, trust, exact=exact)
    return NamedFrame(found, Place(module, found.lookup_pc - 0x400000), named)


def stacks(*frames: NamedFrame, stop: Stop = Stop.END_PROCESS_ENTRY, judgement: Judgement = RELIABLE, detail: str = "") -> ProcessStacks:
    stack = Stack(tuple(one.frame for one in frames), stop, judgement, detail)
    return ProcessStacks(12, "app", (ThreadStack(13, "worker", stack, frames),), AddressSpace.of(()))


def test_a_return_address_is_printed_itself_though_its_call_was_looked_up() -> None:
    shown = stacks(frame((Symbol("f", 0x34, "f.c", 7),)))
    assert "#0   0x0000000000401235  f+0x35  (app)  f.c:7" in list(lines(shown))
    [printed] = as_json(shown)["threads"][0]["frames"]
    assert ("0x401235", 0x35, "0x1235") == (printed["ip"], printed["offset"], printed["module_offset"])


def test_an_exact_address_is_not_moved() -> None:
    [printed] = as_json(stacks(frame((Symbol("f", 0x34),), exact=True)))["threads"][0]["frames"]
    assert (0x34, "0x1235") == (printed["offset"], printed["module_offset"])


def test_inlined_calls_stand_above_the_function_that_holds_them() -> None:
    shown = stacks(frame((Symbol("inner", 0, "i.h", 3, inlined=True), Symbol("outer", 8, "o.c", 9))))
    printed = [line for line in lines(shown) if "(app)" in line]
    assert printed[0].endswith("inner  (app)  i.h:3  [inlined]")
    assert printed[1].endswith("outer+0x9  (app)  o.c:9")
    assert [("inner", True), ("outer", False)] == [(one["function"], one["inlined"]) for one in as_json(shown)["threads"][0]["frames"]]


def test_the_first_bad_frame_is_counted_in_the_frames_as_json_has_them() -> None:
    inlined = frame((Symbol("inner", inlined=True), Symbol("outer")))
    judgement = Judgement(Verdict.UNRELIABLE, Stop.NO_UNWIND_INFO, 1)
    [thread] = as_json(stacks(inlined, frame((Symbol("last"),)), stop=Stop.NO_UNWIND_INFO, judgement=judgement))["threads"]
    assert "last" == thread["frames"][thread["first_bad_frame"]]["function"]


def test_an_address_without_a_name_shows_module_offset_and_reason() -> None:
    shown = stacks(frame(Unnamed("the file has no symbols")))
    assert any("app+0x1235  (the file has no symbols)" in line for line in lines(shown))
    [printed] = as_json(shown)["threads"][0]["frames"]
    assert (None, "the file has no symbols") == (printed["function"], printed["unnamed"])


def test_an_unreliable_stack_says_from_which_frame_on_and_why() -> None:
    judgement = Judgement(Verdict.UNRELIABLE, Stop.EH_COMMIT, 1)
    text = "\n".join(lines(stacks(frame((Symbol("f"),)), frame((Symbol("g"),)), judgement=judgement)))
    assert "thread 13 worker: unreliable, whole (end-process-entry)" in text
    assert "unreliable from frame #1 on: The thread is in the middle of throwing an exception" in text
    assert "hint: It passes" in text


def test_guessed_frames_are_marked() -> None:
    assert any("[frame-pointer]" in line for line in lines(stacks(frame((Symbol("f"),), trust=Trust.FRAME_POINTER))))


def test_no_name_can_drive_the_terminal_or_break_the_json() -> None:
    hostile = "\x1b]0;owned\a\n\u202egpj.exe\udcff"
    shown = stacks(frame((Symbol(hostile, 0, hostile, 1),), module=f"/{hostile}"), detail=hostile)
    for line in lines(shown):
        assert line.isprintable()
        line.encode("utf-8")
    assert hostile == json.loads(json.dumps(as_json(shown)))["threads"][0]["frames"][0]["function"]


def test_a_name_of_a_megabyte_is_cut() -> None:
    assert len(printable("x" * 1_000_000)) < 10_000

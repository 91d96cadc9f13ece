"""What `unspool live` concludes from stacks: made up here, so that each case is there alone."""

from __future__ import annotations

from dataclasses import replace

from unspool.model.module import AddressSpace
from unspool.model.stack import Frame, Stack
from unspool.model.symbol import Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.session.finding import Definition, Unsearched
from unspool.session.live import Answer, Outcome, Question, judge
from unspool.session.naming import Place
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack

APP, LIBRARY = ("/app", (8, 1), 1), ("/lib.so", (8, 1), 2)
TARGET = Definition("/app", APP, ((0x100, 0x200),), shows_inlined=True)
RELIABLE = Judgement(Verdict.RELIABLE)


START = ("/ld.so", (8, 1), 3)


def frame(
    function: str | None, offset: int = 0x900, *, key: tuple[str, tuple[int, int], int] = APP, inlined: str = "", lines: bool = True
) -> NamedFrame:
    """A frame at that byte of a file; with `inlined` that function was inlined there; without `lines` its source is not known."""
    around = (Symbol(function, file="a.c" if lines else None),) if function else ()
    names = (Symbol(inlined, file="a.h", inlined=True), *around) if inlined else around
    place = Place(key[0], offset, key)
    return NamedFrame(Frame(0x7F0000 + offset, 0x7FFC00, Trust.CFI), place, names or Unnamed("the file has no symbols"))


def thread(*frames: NamedFrame, judgement: Judgement = RELIABLE, stop: Stop = Stop.END_PROCESS_ENTRY, tid: int = 7) -> ThreadStack:
    """A stack of these frames, and of one more where it began."""
    every = (*frames, frame("_start", key=START, lines=False)) if frames else ()
    return ThreadStack(tid, "t", Stack(tuple(one.frame for one in every), stop, judgement), every)


def asked(*threads: ThreadStack, found: tuple[Definition | Unsearched, ...] = (TARGET,), question: Question | None = None) -> Answer:
    return judge(ProcessStacks(1, "app", threads, AddressSpace.of(())), question or Question("target"), found)


def bad_from(index: int) -> Judgement:
    return Judgement(Verdict.UNRELIABLE, Stop.NOT_A_CALL_SITE, index)


def test_reliable_stacks_without_the_function_are_safe() -> None:
    assert Outcome.SAFE is asked(thread(frame("other"), frame("main"))).outcome


def test_a_frame_of_that_name_is_live() -> None:
    answer = asked(thread(frame("other"), frame("target"), tid=9))
    assert (Outcome.LIVE, [(9, 1)]) == (answer.outcome, [(one.tid, one.index) for one in answer.sightings])


def test_an_address_in_its_range_is_live_whatever_its_name() -> None:
    assert Outcome.LIVE is asked(thread(frame("another_name", 0x1FF))).outcome
    assert Outcome.LIVE is asked(thread(frame(None, 0x100))).outcome
    assert Outcome.SAFE is asked(thread(frame("behind", 0x200))).outcome
    assert Outcome.SAFE is asked(thread(frame("elsewhere", 0x100, key=LIBRARY))).outcome


def test_an_inlined_copy_is_live_in_any_module() -> None:
    answer = asked(thread(frame("caller", key=LIBRARY, inlined="target")))
    assert (Outcome.LIVE, [True]) == (answer.outcome, [one.inlined for one in answer.sightings])


def test_with_a_module_the_function_of_another_one_does_not_count() -> None:
    assert Outcome.SAFE is asked(thread(frame("target", key=LIBRARY)), question=Question("target", "app")).outcome


def test_an_unreliable_stack_is_a_doubt_with_its_reason_and_thread() -> None:
    answer = asked(thread(frame("other")), thread(frame("other"), judgement=bad_from(0), tid=8))
    assert (Outcome.UNKNOWN, [("not-a-call-site", 8)]) == (answer.outcome, [(doubt.reason, doubt.tid) for doubt in answer.doubts])


def test_a_sighting_before_the_first_bad_frame_is_believed_and_one_behind_it_is_not() -> None:
    frames = frame("other"), frame("target"), frame("main")
    assert Outcome.LIVE is asked(thread(*frames, judgement=bad_from(2))).outcome
    answer = asked(thread(*frames, judgement=bad_from(1)))
    assert Outcome.UNKNOWN is answer.outcome
    assert "cannot be believed" in answer.doubts[0].sentence


def test_a_thread_that_is_gone_and_one_of_the_kernel_leave_no_doubt() -> None:
    gone = thread(judgement=Judgement(Verdict.NONE), stop=Stop.EXITED)
    kernel = thread(judgement=Judgement(Verdict.NONE), stop=Stop.NO_USER_STACK)
    assert Outcome.SAFE is asked(thread(frame("main")), gone, kernel).outcome


def test_coroutines_are_a_doubt_because_suspended_ones_are_on_no_stack() -> None:
    answer = asked(thread(frame("main"), judgement=replace(RELIABLE, scope="coroutine"), stop=Stop.END_COROUTINE))
    assert (Outcome.UNKNOWN, ["end-coroutine"]) == (answer.outcome, [doubt.reason for doubt in answer.doubts])


def test_code_without_source_lines_is_a_doubt_in_a_file_that_has_the_function() -> None:
    blind = replace(TARGET, shows_inlined=False)
    assert Outcome.SAFE is asked(thread(frame("f", key=LIBRARY, lines=False)), found=(blind,)).outcome
    for found in (blind, TARGET):
        answer = asked(thread(frame("f", lines=False)), found=(found,))
        assert (Outcome.UNKNOWN, ["inlining-unknown"]) == (answer.outcome, [doubt.reason for doubt in answer.doubts])
    assert Outcome.SAFE is asked(thread(frame("f", lines=False)), found=(blind,), question=Question("target", inlined=False)).outcome


def test_where_a_thread_begins_nothing_was_inlined() -> None:
    start = replace(TARGET, key=START, module="/ld.so")
    assert Outcome.SAFE is asked(thread(frame("f")), found=(start,)).outcome
    assert Outcome.UNKNOWN is asked(thread(frame("f"), judgement=bad_from(1), stop=Stop.NO_UNWIND_INFO), found=(start,)).outcome


def test_a_module_that_could_not_be_searched_matters_only_where_its_code_is_on_a_stack() -> None:
    closed = Unsearched("/lib.so", "the file may not be opened")
    assert Outcome.SAFE is asked(thread(frame("f")), found=(TARGET, closed)).outcome
    assert ["file-unreachable"] == [doubt.reason for doubt in asked(thread(frame("f", key=LIBRARY)), found=(TARGET, closed)).doubts]


def test_a_function_that_is_nowhere_is_unknown_not_safe() -> None:
    assert ["no-such-function"] == [doubt.reason for doubt in asked(thread(frame("f")), found=()).doubts]

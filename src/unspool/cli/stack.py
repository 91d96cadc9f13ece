"""Print the stack of every thread of a live process, now, of a core dump, or of the tasks of a virtual machine.

Each thread is stopped while it is walked, for as short as possible, and runs on afterwards; also when this command is killed.
Every stack says where it ends and why, and whether it can be trusted (docs/stack.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unspool.cli.guest_options import add_guest_arguments, guest_plan
from unspool.cli.printable import printable
from unspool.errors import BadRequest
from unspool.model.explain import explain
from unspool.model.symbol import Symbol, Unnamed
from unspool.model.verdict import Stop, Verdict
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack, stacks_of
from unspool.session.walking import MAX_FRAMES, Walking

if TYPE_CHECKING:
    from unspool.session.guests import GuestPlan

EXAMPLES = """examples:
  unspool stack 1234              every thread of process 1234
  unspool stack 1234 -t 1240      one thread
  unspool stack 1234 --json       the same for programs
  unspool stack 1234 --guess frame-pointer    through compiled JavaScript, Java and the like
  unspool stack ./core            every thread in a core dump (./12 for a file whose name is a number)
  unspool stack --guest web       every task of a virtual machine, kernel and user stack
  unspool stack --guest web 1234  one process in it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("target", metavar="PID|CORE", nargs="?", help="the process, or a core dump")
    parser.add_argument("-t", "--tid", metavar="TID", type=int, action="append", help="only this thread (may be given again)")
    parser.add_argument("--no-lines", action="store_true", help="no source lines, no inlined calls: quick where debug information is large")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--method", choices=["native", "python"], default="native", help="the C library's walk, or the Python reference's (default: native)"
    )
    parser.add_argument(
        "--guess",
        choices=["none", "frame-pointer", "scan"],
        default="none",
        help="go on through code without unwind data; such frames are marked, and the stack is never reliable (default: none)",
    )
    parser.add_argument(
        "--max-frames", metavar="N", type=positive, default=MAX_FRAMES, help=f"frames of a thread at most (default: {MAX_FRAMES:,})"
    )

    add_guest_arguments(parser, several=False)


def positive(text: str) -> int:
    """A number from 1 on; ValueError for any other."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(arguments: argparse.Namespace) -> int:
    """Print the stacks; 1 when the kernel allowed no look at any of them."""
    plan = guest_plan(arguments)
    if plan is not None:
        return _run_guest(arguments, plan)
    if arguments.target is None:
        raise BadRequest("nothing to look at", hint="Give a process's number, a core dump, or a virtual machine with --guest.")
    stacks = _stacks(arguments)
    if arguments.json:
        json.dump(as_json(stacks), sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(stacks))
    return int(bool(stacks.threads) and all(thread.stack.stop is Stop.PERMISSION for thread in stacks.threads))


def _run_guest(arguments: argparse.Namespace, plan: GuestPlan) -> int:
    from unspool.session.guest_stacks import stacks_of_guest

    target = arguments.target
    if target is not None and not target.isdecimal():
        raise BadRequest(f"{target!r} is no number of a process in the guest")
    if arguments.tid:
        raise BadRequest("-t names threads of this host, so it has no place beside --guest", hint="Give the process's number instead.")
    if arguments.guess != "none":
        raise BadRequest("--guess is for processes of this host", hint="--guest-method says how a guest's kernel stacks are found.")
    found = stacks_of_guest(plan, None if target is None else int(target), lines=not arguments.no_lines)
    if arguments.json:
        kernel = {"release": found.kernel.release, "build_id": found.kernel.build_id, "base": hex(found.kernel.base)}
        json.dump({"guest": found.guest, "kernel": kernel, "processes": [as_json(stacks) for stacks in found.processes]}, sys.stdout)
        sys.stdout.write("\n")
        return 0
    sys.stdout.write(f"guest {printable(found.guest)}, Linux {printable(found.kernel.release)}\n")
    if found.kernel.missing:
        sys.stdout.write(f"{printable(found.kernel.missing)}\n")
    for stacks in found.processes:
        sys.stdout.write("\n")
        sys.stdout.writelines(f"{line}\n" for line in lines(stacks))
    return 0


def _stacks(arguments: argparse.Namespace) -> ProcessStacks:
    how = Walking(arguments.method, arguments.max_frames, arguments.guess)
    if arguments.target.isdecimal():
        return stacks_of(int(arguments.target), how, tids=arguments.tid, lines=not arguments.no_lines)
    from unspool.session.core_stacks import stacks_of_core

    return stacks_of_core(Path(arguments.target), how, tids=arguments.tid, lines=not arguments.no_lines)


def as_json(stacks: ProcessStacks) -> dict[str, Any]:
    """What --json prints; docs/stack.md says what each field means."""
    return {"pid": stacks.pid, "name": stacks.name, "threads": [_thread_as_json(thread) for thread in stacks.threads]}


def _thread_as_json(thread: ThreadStack) -> dict[str, Any]:
    frames: list[dict[str, Any]] = []
    starts = []
    for frame in thread.frames:
        starts.append(len(frames))
        frames += _frame_as_json(frame)
    judgement = thread.stack.judgement
    bad = judgement.first_bad_frame
    return {
        "tid": thread.tid,
        "name": thread.name,
        "whole": thread.stack.stop.is_end,
        "stop": thread.stack.stop.label,
        "detail": thread.stack.detail,
        "verdict": judgement.verdict.label,
        "reason": judgement.reason.label if judgement.reason else None,
        # An index into `frames` as they are printed here, where an inlined call has an entry of its own.
        "first_bad_frame": starts[bad] if bad is not None and bad < len(starts) else bad,
        "scope": judgement.scope,
        "frames": frames,
    }


def _frame_as_json(frame: NamedFrame) -> Iterator[dict[str, Any]]:
    for call in frame.calls():
        yield {
            "ip": hex(frame.frame.ip),
            "function": call.function if call else None,
            "offset": call.offset + _beyond(frame) if call else None,
            "module": frame.place.module,
            "module_offset": None if frame.place.offset is None else hex(frame.place.offset + _beyond(frame)),
            "file": call.file if call else None,
            "line": call.line if call else None,
            "inlined": bool(call and call.inlined),
            "trust": frame.frame.trust.label,
        } | ({"unnamed": frame.named.reason} if isinstance(frame.named, Unnamed) else {})


def _beyond(frame: NamedFrame) -> int:
    """How far the printed address lies beyond the one that was named: a return address is looked up inside its call."""
    return frame.frame.ip - frame.frame.lookup_pc


def lines(stacks: ProcessStacks) -> Iterator[str]:
    """What the command prints, line by line."""
    yield f"process {stacks.pid} {printable(stacks.name)}"
    for thread in stacks.threads:
        yield ""
        yield f"thread {thread.tid} {printable(thread.name)}: {summary(thread)}"
        for index, frame in enumerate(thread.frames):
            yield from _frame_lines(index, frame)
        yield from _remarks(thread)


def summary(thread: ThreadStack) -> str:
    """The verdict, and where the stack ends, in a few words."""
    stack = thread.stack
    ending = {"whole": "whole", "cut": "cut", "none": "no user stack"}[stack.stop.ending]
    if stack.judgement.verdict is Verdict.NONE:
        return stack.stop.label
    return f"{stack.judgement.verdict.label}, {ending} ({stack.stop.label})"


def _frame_lines(index: int, frame: NamedFrame) -> Iterator[str]:
    head = f"#{index:<3} 0x{frame.frame.ip:016x} "
    for call in frame.calls():
        yield f"{head} {_what(frame, call)}{_mark(frame, call)}"
        head = " " * len(head)


def _what(frame: NamedFrame, call: Symbol | None) -> str:
    module = printable(PurePosixPath(frame.place.module).name or frame.place.module or "?")
    if call is None:
        offset = "" if frame.place.offset is None else f"+{frame.place.offset + _beyond(frame):#x}"
        reason = f"  ({printable(frame.named.reason)})" if isinstance(frame.named, Unnamed) and frame.named.reason else ""
        return f"{module}{offset}{reason}"
    source = f"  {printable(call.file)}:{call.line or '?'}" if call.file else ""
    offset = "" if call.inlined else f"+{call.offset + _beyond(frame):#x}"
    return f"{printable(call.function)}{offset}  ({module}){source}"


def _mark(frame: NamedFrame, call: Symbol | None) -> str:
    if call is not None and call.inlined:
        return "  [inlined]"
    if frame.frame.signal:
        return "  [signal frame]"
    return f"  [{frame.frame.trust.label}]" if frame.frame.trust.is_guess else ""


def _remarks(thread: ThreadStack) -> Iterator[str]:
    """Why the stack is cut or not to be trusted, and what to do about it."""
    stack, judgement = thread.stack, thread.stack.judgement
    if stack.stop.ending == "cut":
        explanation = explain(stack.stop)
        yield f"     cut: {explanation.meaning}{_in_brackets(stack.detail)}"
        yield f"     hint: {explanation.advice}"
    if judgement.verdict is Verdict.UNRELIABLE and judgement.reason is not stack.stop:
        explanation = explain(judgement.reason)
        place = "" if judgement.first_bad_frame is None else f" from frame #{judgement.first_bad_frame} on"
        yield f"     unreliable{place}: {printable(judgement.detail) or explanation.meaning}"
        yield f"     hint: {explanation.advice}"


def _in_brackets(detail: str) -> str:
    return f" ({printable(detail)})" if detail else ""

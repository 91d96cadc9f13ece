"""The options with which `record` and `stack` look into virtual machines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.capture.guest_budget import Limits
from unspool.errors import BadRequest
from unspool.model.verdict import Trust

if TYPE_CHECKING:
    from unspool.session.guests import GuestPlan

REGISTERS = ("kvm-hold", "gdbstub", "qmp-live", "qmp-stop", "tcg-state")
NO_PAUSE = "tcg-state"
METHODS = {trust.label: trust for trust in (Trust.ORC, Trust.FRAME_POINTER, Trust.SCAN)}


def add_guest_arguments(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """How guests are chosen and read."""
    group = parser.add_argument_group("virtual machines (docs/guests.md)")
    what = "these virtual machines" if several else "the tasks of this virtual machine"
    group.add_argument("--guest", metavar="NAME|PID[,...]|all" if several else "NAME|PID", help=f"{what}; `unspool guest list` shows them")
    group.add_argument("--guest-registers", choices=REGISTERS, help="how vCPUs are read (default: what disturbs the guest least)")
    if several:
        group.add_argument("--no-pause", action="store_true", help="under TCG, never stop the guest: its stacks are not reliable then")
        group.add_argument(
            "--guest-budget",
            type=share,
            metavar="PERCENT",
            default=Limits().share,
            help="the part of a guest's time that it may be held for at most; the rate falls by itself (default 10)",
        )
    group.add_argument(
        "--guest-method",
        choices=tuple(METHODS),
        help="how the kernel's frames are found: by its unwind tables (ORC), or by a guess that makes no stack reliable (default orc)",
    )
    group.add_argument(
        "--guest-memory", metavar="LAYOUT", help="where the guest's memory lies: 0xGUEST:0xSIZE@0xADDRESS,... (default: asked for)"
    )
    group.add_argument(
        "--guest-symbols", type=Path, metavar="FILE", help="kallsyms, System.map or vmlinux, for a kernel without names in memory"
    )
    group.add_argument("--sysroot", type=Path, metavar="DIR", help="a folder with copies of the guest's files, for names of its programs")


def guest_plan(arguments: argparse.Namespace) -> GuestPlan | None:
    """What was asked for, None when no guest was; BadRequest when the options contradict each other."""
    if arguments.guest is None:
        given = [
            option
            for option in ("guest_registers", "guest_method", "guest_memory", "guest_symbols", "sysroot", "no_pause")
            if getattr(arguments, option, None)
        ]
        if given:
            option = given[0].replace("_", "-")
            raise BadRequest(f"--{option} is for virtual machines, and --guest names none", hint="Add --guest NAME.")
        return None
    registers = arguments.guest_registers
    if getattr(arguments, "no_pause", False):
        if registers not in {None, NO_PAUSE}:
            raise BadRequest(f"--no-pause and --guest-registers {registers} exclude each other", hint="Leave one of them out.")
        registers = NO_PAUSE
    from unspool.session.guests import GuestPlan

    limits = Limits(share=getattr(arguments, "guest_budget", Limits().share))
    method = METHODS[arguments.guest_method or Trust.ORC.label]
    return GuestPlan(arguments.guest, registers, arguments.guest_memory, arguments.guest_symbols, arguments.sysroot, limits, method)


def share(text: str) -> float:
    """A part of the whole in per cent, as argparse takes it.

    >>> share("5")
    0.05
    """
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 90:
        message = f"{text!r} is no share from 1 to 90 per cent"
        raise argparse.ArgumentTypeError(message)
    return value / 100

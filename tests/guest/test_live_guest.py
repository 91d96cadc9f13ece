"""What looks at guests without a recording: `unspool top --guest`, and `unspool push` of what runs in one."""

from __future__ import annotations

import pytest
from cli.test_push import labelled
from collectors import collector
from export.test_otlp import check_rules
from guest_machines import GuestMachine

from unspool.cli.main import main

pytestmark = pytest.mark.live

_QUICK = ("-F", "199", "--guest-budget", "60")


def test_top_shows_functions_and_tasks_of_a_guest(guest_machine: GuestMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of the kernel, and of a program whose file is in the guest's memory only."""
    with guest_machine.workload("calls") as (pid,):
        assert 0 == main(["top", "--once", "--guest", guest_machine.name, *_QUICK, "-d", "2", "-n", "1000"])
    said = capsys.readouterr().out
    assert " samples in " in said
    assert "  one_turn  (/bin/guest_calls)" in said
    assert "([guest.kernel])" in said
    assert f" {pid}  guest:{guest_machine.name} guest_calls" in said


def test_samples_of_a_guest_are_pushed_as_such(guest_machine: GuestMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """With the attributes that a pushed recording has, and names once the guest's file was fetched."""
    release = guest_machine.release
    with guest_machine.workload("calls"), collector() as there:
        live = ("--guest", guest_machine.name, *_QUICK, "-d", "3", "--interval", "1s")
        assert 0 == main(["push", "--otlp", there.url, *live]), capsys.readouterr().err
    assert there.samples
    names: set[str] = set()
    for message in there.taken:
        check_rules(message)
        names |= set(message.dictionary.string_table)
    assert {"one_turn", "do_syscall_64"} <= names
    for labels in labelled(there.taken):
        found = dict(labels)
        assert (guest_machine.name, release) == (found["unspool.guest"], found["unspool.guest_kernel"])
        assert ("1", True) == (str(found["unspool.guest_generation"]), str(found["unspool.vcpu"]) in {"0", "1"})

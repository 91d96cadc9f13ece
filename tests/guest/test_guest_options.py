"""What the options for virtual machines mean together; no machine is needed."""

from __future__ import annotations

import argparse

import pytest

from unspool.cli.guest_options import add_guest_arguments, guest_plan
from unspool.cli.main import main
from unspool.errors import BadRequest
from unspool.model.verdict import Trust


def plan_of(*words: str) -> object:
    parser = argparse.ArgumentParser()
    add_guest_arguments(parser, several=True)
    return guest_plan(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ((), Trust.ORC),
        (("--guest-method", "orc"), Trust.ORC),
        (("--guest-method", "frame-pointer"), Trust.FRAME_POINTER),
        (("--guest-method", "scan"), Trust.SCAN),
    ],
)
def test_the_kernels_frames_are_found_by_orc_unless_a_guess_is_asked_for(words: tuple[str, ...], method: Trust) -> None:
    plan = plan_of("--guest", "web", *words)
    assert plan is not None
    assert method is plan.method  # type: ignore[attr-defined]
    assert method is plan.how(1).method  # type: ignore[attr-defined]


def test_a_method_without_a_guest_is_a_mistake() -> None:
    with pytest.raises(BadRequest, match="--guest-method is for virtual machines"):
        plan_of("--guest-method", "scan")


def test_the_hosts_guesses_are_not_for_guests(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 != main(["stack", "--guest", "web", "--guess", "scan"])
    assert "--guest-method" in capsys.readouterr().err

"""Every check answers, whatever the machine can do; nothing of what it tried is left."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

import pytest

from unspool.capture import features, tiny_bpf
from unspool.capture.features import Check, Missing, can_record, checks
from unspool.capture.stranger import Stranger
from unspool.errors import NotPermitted


def kernel_objects() -> list[str]:
    """What this process holds of perf events and BPF."""
    held = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            held.append(str(link.readlink()))
    return sorted(name for name in held if "perf" in name or "bpf" in name)


def test_each_check_answers_and_leaves_nothing_in_the_kernel() -> None:
    before = kernel_objects()
    found = list(checks())
    assert [name for name, _, _ in features.ATTEMPTS] == [check.name for check in found]
    assert all(check.found for check in found)
    assert all(check.works or check.mend for check in found)
    assert before == kernel_objects()


def test_what_fails_says_why_and_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise Missing("it is not there", "put it there")

    def refused() -> str:
        raise NotPermitted("no")

    def denied() -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(features, "ATTEMPTS", (("a", True, missing), ("b", False, refused), ("c", False, denied)))
    assert [
        Check("a", works=False, needed=True, found="it is not there", mend="put it there"),
        Check("b", works=False, needed=False, found="no", mend=NotPermitted.hint),
        Check("c", works=False, needed=False, found="Permission denied", mend=features.AS_ROOT),
    ] == list(checks())


def test_recording_needs_what_is_needed() -> None:
    needed, optional = Check("a", works=False, needed=True, found=""), Check("b", works=False, needed=False, found="")
    assert [False, True] == [can_record([needed, optional]), can_record([optional])]


@pytest.mark.live
def test_bpf_is_tried_with_real_objects() -> None:
    for made in (tiny_bpf.ring_buffer(), tiny_bpf.program(tiny_bpf.PERF_EVENT)):
        os.close(made)


def test_a_stranger_is_not_our_child_and_ends_with_us() -> None:
    with Stranger() as stranger:
        with pytest.raises(ChildProcessError):
            os.waitpid(stranger.pid, os.WNOHANG)
        pidfd = os.pidfd_open(stranger.pid)
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)

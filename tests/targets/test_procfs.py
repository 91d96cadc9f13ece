from __future__ import annotations

import os

import pytest

from unspool.targets import procfs

TAIL = b" S 1 2 3 0 -1 4194304 " + b" ".join(b"%d" % number for number in range(8, 50)) + b"\n"


@pytest.mark.parametrize("name", [b"cat", b"a) R (b", b"\n)", b"((", b""])
def test_a_name_may_hold_parentheses_and_spaces(name: bytes) -> None:
    state = procfs.parse_stat(b"12 (" + name + b")" + TAIL)
    assert (name.decode(), "S") == (state.name, state.state)


def test_a_name_that_is_no_utf8_is_escaped() -> None:
    assert "\\xff" == procfs.parse_stat(b"12 (\xff)" + TAIL).name


def test_a_torn_line_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not a stat line"):
        procfs.parse_stat(b"12 (cat) S 1")


def test_fields_are_those_of_proc_pid_stat() -> None:
    own = procfs.thread_state(os.getpid(), os.getpid())
    assert own is not None
    assert not own.kernel
    assert own.initial_sp % 8 == 0
    assert own.start_ticks > 0


def test_kernel_threads_are_known_by_their_flags() -> None:
    kthreadd = procfs.thread_state(2, 2)
    if kthreadd is None or kthreadd.name != "kthreadd":
        pytest.skip("this process namespace does not show kthreadd")
    assert kthreadd.kernel


def test_a_process_that_is_not_there_gives_nothing() -> None:
    gone = 2**22 + 1  # beyond the kernel's PID_MAX_LIMIT
    assert procfs.thread_state(gone, gone) is None
    assert [] == procfs.thread_ids(gone)
    assert procfs.status_number(gone, "Tgid") is None

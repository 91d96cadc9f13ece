"""What the sampler is told, and what its failures say; the kernel itself is in tests/live."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from unspool.capture import kernel
from unspool.capture.kernel import CONFIG, configuration, failure
from unspool.capture.request import Request
from unspool.capture.triggers import parse_trigger
from unspool.errors import NotPermitted, Unsupported

FIELDS = (
    "trigger",
    "filter",
    "self",
    "follow",
    "kernel_frames",
    "pid_namespace",
    "all_syscalls",
    "cpus",
    "threads",
    "methods",
    "deferral",
    "spare",
)


def told(request: Request) -> dict[str, int]:
    """The configuration's fields by name; the mask's words as `mask0` and so on."""
    values = CONFIG.unpack(configuration(request))
    return dict(zip((*FIELDS, *(f"mask{word}" for word in range(8))), values, strict=True))


def test_the_whole_machine_is_sampled_but_for_ourselves() -> None:
    said = told(Request())
    assert (1, 0, os.getpid()) == (said["trigger"], said["filter"], said["self"])
    assert 0 == said["threads"]


def test_targets_are_a_filter() -> None:
    assert 1 == told(Request(pids=(7,)))["filter"]
    assert (1, 1) == (told(Request(tids=(7,)))["filter"], told(Request(tids=(7,)))["threads"])


def test_system_calls_are_bits_of_a_mask() -> None:
    said = told(Request(trigger=parse_trigger("syscalls:0,65,511")))
    assert (2, 0) == (said["trigger"], said["all_syscalls"])
    assert (1, 2, 1 << 63) == (said["mask0"], said["mask1"], said["mask7"])


def test_without_names_every_system_call_is_sampled() -> None:
    said = told(Request(trigger=parse_trigger("syscalls")))
    assert (2, 1, 0) == (said["trigger"], said["all_syscalls"], said["mask0"])


def test_a_refusal_is_about_permission() -> None:
    assert isinstance(failure(errno.EPERM, ["libbpf: ..."]), NotPermitted)


def test_the_verifiers_last_words_are_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    log = [f"line {number}" for number in range(100)]
    error = failure(errno.EACCES, log)
    assert isinstance(error, Unsupported)
    assert "line 99" in str(error)
    assert "line 10\n" not in str(error)


def test_a_build_that_is_missing_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "_unspool.so")
    kernel.library.cache_clear()
    try:
        with pytest.raises(Unsupported) as caught:
            kernel.Sampler(Request())
    finally:
        kernel.library.cache_clear()
    assert "make native" in caught.value.hint

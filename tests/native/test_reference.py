"""The C walk against the Python reference: every thread of the reference's own tests, walked by both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from unwind import test_walk
from unwind.test_walk import (  # noqa: F401  (collected here, too)
    TestCallSites,
    TestEnds,
    TestGuards,
    TestIdentity,
    TestSignals,
    TestSuspects,
    test_a_kernel_thread_has_no_frames,
    test_a_whole_stack_ends_at_the_entry_point_and_is_reliable,
    test_memory_that_ends_within_the_stack_is_a_reason,
    test_the_detail_names_the_frame_the_file_and_the_reason,
)

from unspool import native
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.unwind.api import unwind_user

# The C walk recognises expressions by their form and does not evaluate others.
EXPRESSIONS = {Stop.EXPR_LIMIT, Stop.UNSUPPORTED_RULE, Stop.MEM_FAULT, Stop.BAD_CFI}


@pytest.fixture(autouse=True)
def both_walks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stack]]:
    """The reference's tests with the C walk in its place; where they differ, the test fails."""
    walked: list[Stack] = []

    def both(thread: Thread) -> Stack:
        ours, reference = native.walk(thread), unwind_user(thread)
        walked.append(ours)
        if ours.stop is Stop.UNSUPPORTED_RULE and reference.stop in EXPRESSIONS:
            return reference
        assert reference.frames == ours.frames
        assert reference.stop is ours.stop
        expected, judgement = reference.judgement, ours.judgement
        assert (expected.verdict, expected.reason, expected.first_bad_frame, expected.scope) == (
            judgement.verdict,
            judgement.reason,
            judgement.first_bad_frame,
            judgement.scope,
        )
        return ours

    monkeypatch.setattr(test_walk, "unwind_user", both)
    return walked

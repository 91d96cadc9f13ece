"""The corpus: states of stepped programs, with what was truly pending in them. No root, no tools, no programs needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from oracle import corpus, unwinders
from oracle.corpus import Program
from oracle.judge import Judge

from unspool.model.arch import X86_64
from unspool.model.stack import Stack
from unspool.native import Walker
from unspool.unwind.api import Unwinder

CORPORA = sorted(corpus.FOLDER.glob("*.xz"))
X86_64_CORPUS = corpus.FOLDER / "x86_64.xz"


def programs() -> list[object]:
    """Every program of every corpus file, as parameters."""
    return [pytest.param(program, id=f"{path.stem}: {program.name}") for path in CORPORA for program in corpus.load(path)]


def said(stack: Stack) -> tuple[object, ...]:
    """What two walks must agree on."""
    judgement = stack.judgement
    frames = tuple((frame.ip, frame.sp, frame.exact, frame.signal) for frame in stack.frames)
    return frames, stack.stop, judgement.verdict, judgement.reason, judgement.first_bad_frame, judgement.scope


def test_corpus_is_small() -> None:
    """It is part of the repository, so it stays below 700 KB."""
    assert 700_000 > sum(path.stat().st_size for path in CORPORA)
    assert CORPORA


@pytest.mark.parametrize("program", programs())
def test_reliable_stacks_miss_no_function(program: Program) -> None:
    """FALSE_RELIABLE is 0: no stack called reliable lacks a function that the thread went on to return to."""
    judge, unwind = Judge(program.run), unwinders.reference()
    lies = []
    for state in program.run.states():
        answer = unwind(program.run, state)
        if judge.find(state, answer).false_reliable(answer):
            lies.append((state.step, [hex(ip) for ip in answer.ips], [hex(ip) for ip in judge.truth(state)]))
    assert [] == lies


@pytest.mark.parametrize("program", [p for p in programs() if p.values[0].run.arch is X86_64])  # type: ignore[attr-defined]
def test_both_walks_say_the_same(program: Program) -> None:
    """The C walk and the Python reference agree on frames, stop and verdict of every state."""
    unwinder, walker, differing = Unwinder(), None, []
    for state in program.run.states():
        thread = program.run.thread(state)
        if walker is None or not walker.serves(thread):
            walker = Walker(thread)
        python, native = said(unwinder.unwind(thread)), said(walker.walk(thread))
        if python != native:
            differing.append((state.step, python, native))
    assert [] == differing[:3]


def test_every_reason_has_its_states() -> None:
    """The corpus holds reliable stacks of every end, and the reasons that ordinary programs meet."""
    met: Counter[str] = Counter()
    for program in corpus.load(X86_64_CORPUS):
        unwinder = Unwinder()
        for state in program.run.states():
            stack = unwinder.unwind(program.run.thread(state))
            met[stack.stop.label] += 1
            met[stack.judgement.reason.label] += 1
    wanted = {
        "end-process-entry",
        "end-thread-entry",
        "end-coroutine",
        "no-unwind-info",
        "ra-rule-nonstandard",
        "eh-commit",
        "ra-rewritten",
    }
    assert wanted <= met.keys(), met


def test_files_of_the_corpus_are_only_read_from_it() -> None:
    """No state needs the machine's own files: another machine has others."""
    for program in corpus.load(X86_64_CORPUS):
        assert isinstance(program.run.files, corpus.SparseFiles)
        assert not any(Path(path).is_relative_to(Path(__file__).parent) for path in program.run.files.paths)

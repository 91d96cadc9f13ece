"""The oracle itself: small programs are stepped here and now, and their true stacks are what their source says."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from oracle.judge import Judge
from oracle.run import Options, build_tools, step_to
from oracle.score import score
from oracle.specs import EMULATED, SPECS, Spec
from oracle.truth import Run
from oracle.unwinders import native, reference

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Where programs and tools are built."""
    folder = tmp_path_factory.mktemp("oracle")
    build_tools(folder)
    return Options(1, 120, folder)


def stepped(spec: Spec, options: Options, tmp_path: Path) -> Run:
    """The program's run."""
    path = tmp_path / "states"
    step_to(spec.build(options.folder), spec, options, path)
    return Run.read(path, spec.arch)


@pytest.mark.parametrize("name", ["rules: assembly whose CFI lies", "bare: assembly without CFI"])
def test_no_stack_of_lying_code_is_called_reliable(name: str, options: Options, tmp_path: Path) -> None:
    """FALSE_RELIABLE is 0 where CFI lies and where there is none; the whole program is stepped, and no jump is lost."""
    run = stepped(next(spec for spec in SPECS if spec.name == name), options, tmp_path)
    tallies = score(run, {"reference": reference(), "native": native})
    assert {"reference": 0, "native": 0} == {who: tally.false_reliable for who, tally in tallies.items()}
    assert tallies["reference"].states > 20
    assert (0, 0) == (run.skipped, run.lost_jumps)


def test_the_true_stack_is_what_the_source_says(options: Options, tmp_path: Path) -> None:
    """At each instruction of `wide` the list holds the call in `runs` and the one in `_start`; no entry of a finished call stays."""
    spec = next(spec for spec in SPECS if spec.source == "rules.S")
    run = stepped(spec, options, tmp_path)
    judge = Judge(run)
    symbols = _symbols(spec, options)
    inside = [state for state in run.states() if symbols["skewed"] <= state.registers.pc < symbols["wide"]]
    assert inside
    for state in inside:
        callers = [name for ip in judge.truth(state)[1:] for name in [_name(symbols, ip - 1)]]
        assert ["middle_of_skewed", "runs", "_start"] == callers
    last = list(run.states())[-1]
    assert [last.registers.pc] == judge.truth(last)


def test_children_in_their_parents_memory_are_stepped(options: Options, tmp_path: Path) -> None:
    """Of posix_spawn and clone: no false reliable stack, and nearly all are reliable; without the rule of births none that ends there."""
    spec = next(spec for spec in SPECS if spec.name == "spawns: gcc -O2")
    run = stepped(dataclasses.replace(spec, max_steps=100_000), options, tmp_path)
    judge = Judge(run)
    counted = dict.fromkeys(("states", "reliable", "whole", "without"), 0)
    for state in run.states():
        answer = native(run, state)
        assert answer is not None
        assert not judge.find(state, answer).false_reliable(answer)
        if state.birth is None:
            continue
        counted["states"] += 1
        counted["reliable"] += answer.complete
        counted["whole"] += answer.reason == "end-thread-entry"
        unknown = native(run, dataclasses.replace(state, birth=None))
        counted["without"] += unknown is not None and unknown.reason == "end-thread-entry"
    assert counted["states"] > 50, counted
    assert counted["reliable"] > 0.8 * counted["states"], counted
    assert counted["without"] < 0.5 * counted["whole"], counted


@pytest.mark.parametrize("spec", [spec for spec in EMULATED if "-O2" in spec.name], ids=lambda spec: spec.machine)
def test_emulated_programs_are_stepped(spec: Spec, options: Options, tmp_path: Path) -> None:
    """The start of an AArch64 and an s390x program: every stack that is called reliable is sound, and most are."""
    if spec.missing:
        pytest.skip(f"{spec.missing} is not installed")
    run = stepped(dataclasses.replace(spec, max_steps=2000), options, tmp_path)
    tally = score(run, {"reference": reference()})["reference"]
    assert 0 == tally.false_reliable
    assert tally.exact > 0.9 * tally.states > 100


def _symbols(spec: Spec, options: Options) -> dict[str, int]:
    text = subprocess.run(["nm", spec.build(options.folder)[0]], check=True, capture_output=True, text=True).stdout
    rows = (line.split() for line in text.splitlines())
    return {name: int(address, 16) for address, kind, name in rows if kind in "tT"}


def _name(symbols: dict[str, int], address: int) -> str:
    return max((start, name) for name, start in symbols.items() if start <= address)[1]

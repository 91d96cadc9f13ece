"""SFrame against the truth: programs built with it are single-stepped, and CFA, return address and frame pointer compared at every row."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from oracle.judge import Judge
from oracle.run import Options, build_tools, step_to
from oracle.specs import Spec
from oracle.truth import Flag, Kind, Run, State
from oracle.unwinders import answer_of
from sframe_toolchain import Toolchain

from unspool.formats.elf import Elf
from unspool.model.arch import X86_64
from unspool.model.verdict import Trust, Verdict
from unspool.unwind.api import Unwinder
from unspool.unwind.policy import Method, Policy
from unspool.unwind.rule import Rule, loses_frame_pointer

pytestmark = pytest.mark.live

MANY = (Path(__file__).parents[1] / "formats" / "sframe" / "programs" / "many.c").read_text(encoding="utf-8")
BUILDS = {
    "O2": ("-O2",),
    "O0": ("-O0",),
    "frame-pointer": ("-O2", "-fno-omit-frame-pointer"),
    "Os-now": ("-Os", "-Wl,-z,now"),
}
RBP = 6


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    build_tools(folder)
    return folder


def stepped(program: Path, tools: Path, name: str) -> Run:
    """The program's states: each instruction up to three times."""
    path = tools / f"{name}.states"
    step_to((str(program),), Spec(name, "sframe", max_steps=2_000_000), Options(3, 60, tools), path)
    return Run.read(path)


def returns(run: Run) -> dict[tuple[tuple[int, ...], int], int]:
    """Rbp where a call came back to: by the list that was left, and the address."""
    found = {}
    for state in run.states():
        rbp = state.registers.get(RBP)
        if rbp is not None and not state.flags & Flag.IN_JUMP:
            found[state.entries, state.registers.pc] = rbp
    return found


def is_settled(run: Run, state: State) -> bool:
    """Whether the innermost pending entry is a call's, and no jump is under way."""
    return bool(state.entries) and not state.flags & Flag.IN_JUMP and run.entries[state.entries[0]].kind is Kind.CALL


@pytest.mark.parametrize("build", BUILDS)
def test_every_covered_instruction(build: str, toolchain: Toolchain, tools: Path) -> None:
    """GNU as and ld's rows, read by our walk; the .plt.got bug of GNU ld is left out, and known."""
    program = toolchain.build(MANY, "x86_64", BUILDS[build])
    run = stepped(program, tools, f"gas-{build}")
    unwinder = Unwinder(Policy(methods=frozenset({Method.SFRAME})))
    back = returns(run)
    seen, with_fp, unsure = set(), 0, set()
    for state in run.states():
        if not is_settled(run, state):
            continue
        start = unwinder.start(run.thread(state))
        rule = start.site.rule
        if not isinstance(rule, Rule) or rule.trust is not Trust.SFRAME or rule.outermost or in_plt_got(program, state):
            continue
        if loses_frame_pointer(rule, X86_64):
            # GCC's own CFI of a realigned stack is wrong from `pop %rbp` on, in .eh_frame too: no verdict trusts these rows.
            unsure.add(svma(state))
            continue
        entry = run.entries[state.entries[0]]
        start.next()
        assert (entry.ra, entry.slot + 8) == (start.ip, start.sp), hex(state.registers.pc)
        seen.add(state.registers.pc)
        truth = back.get((state.entries[1:], entry.ra))
        if truth is not None and start.fp is not None:
            with_fp += 1
            assert truth == start.fp, hex(state.registers.pc)
    assert len(seen) > 100
    assert with_fp > 100
    realigned = symbol(toolchain, program, "realigned")
    assert all(pc in realigned for pc in unsure), sorted(map(hex, unsure))
    assert len(unsure) <= 8


def in_plt_got(program: Path, state: State) -> bool:
    section = Elf(program.read_bytes()).section(".plt.got")
    mapping = state.space.find(state.registers.pc)
    if section is None or mapping is None or not mapping.path.endswith(program.name):
        return False
    offset = mapping.file_offset(state.registers.pc)
    return section.offset <= offset < section.offset + section.size


def svma(state: State) -> int:
    """The pc as the file states it: of these position-independent programs, addresses are offsets from the first mapping."""
    mapping = state.space.find(state.registers.pc)
    assert mapping is not None
    return state.registers.pc - min(other.start for other in state.space if other.path == mapping.path)


def symbol(toolchain: Toolchain, program: Path, name: str) -> range:
    """The addresses of a function."""
    text = subprocess.run([toolchain.tool("nm"), "-S", program], capture_output=True, text=True, check=True).stdout
    start, size = next(line.split()[:2] for line in text.splitlines() if line.endswith(f" {name}"))
    return range(int(start, 16), int(start, 16) + int(size, 16))


@pytest.mark.parametrize("build", ["O2", "frame-pointer"])
def test_no_stack_through_sframe_is_falsely_reliable(build: str, toolchain: Toolchain, tools: Path) -> None:
    """SFrame first, then CFI: the oracle's own verdict on every state."""
    program = toolchain.build(MANY, "x86_64", BUILDS[build])
    run = stepped(program, tools, f"all-{build}")
    unwinder = Unwinder()
    judge = Judge(run)
    reliable = 0
    for state in run.states():
        stack = unwinder.unwind(run.thread(state))
        if stack.judgement.verdict is not Verdict.RELIABLE:
            continue
        reliable += 1
        assert judge.find(state, answer_of(stack)).sound, hex(state.registers.pc)
    assert reliable > 1000

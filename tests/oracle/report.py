"""The oracle's tables: a line for the terminal, a page for the documentation."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from oracle.judge import Judge
from oracle.score import Tally
from oracle.specs import Spec
from oracle.truth import Run

OURS = ("reference", "reference with files", "native", "in-kernel")


@dataclass(frozen=True, slots=True)
class Row:
    """One program's scores, by unwinder."""

    spec: Spec
    steps: int
    seconds: float
    skipped: int
    lost_jumps: int
    tallies: dict[str, Tally]
    run: Run

    @property
    def states(self) -> int:
        """How many states were judged."""
        return max((tally.states for tally in self.tallies.values()), default=0)


def line(row: Row, lies: int) -> str:
    """A program's scores for the terminal, with the first false reliable states of our own walks."""
    text = [f"{row.spec.name}: {row.steps} steps in {row.seconds:.0f} s, {row.states} states, {row.skipped} skipped"]
    for name, tally in row.tallies.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common(6))
        text.append(
            f"  {name:13} exact {_percent(tally.exact, tally.states)}  false reliable {tally.false_reliable}  "
            f"complete {_percent(tally.complete, tally.states)}  of time {_percent(tally.uniform_complete, tally.uniform)}  [{reasons}]"
        )
        if name in OURS:
            text.extend(_lies(row, tally, lies))
    return "\n".join(text)


def _lies(row: Row, tally: Tally, count: int) -> Iterator[str]:
    judge = Judge(row.run)
    for state in tally.lies[:count]:
        mapping = state.space.find(state.registers.pc)
        where = f"{mapping.path}+{mapping.file_offset(state.registers.pc):#x}" if mapping else ""
        yield f"    FALSE RELIABLE at step {state.step}, pc {state.registers.pc:#x} {where}; true: {[hex(ip) for ip in judge.truth(state)]}"


def document(rows: list[Row], k: int, seconds: int) -> str:
    """The page docs/oracle-results.md."""
    states = "one state" if k == 1 else f"at most {k} states"
    parts = [
        "# Oracle results",
        "",
        "Written by `make oracle`; [oracle.md](oracle.md) says what the words mean and how far the figures carry.",
        f"Machine: {platform.machine()}, Linux {'.'.join(platform.release().split('.')[:2])}.",
        f"Each instruction gives {states}; a program is stepped for {seconds} s at most.",
        "",
        *_summary(rows),
        "",
        "## Programs",
        "",
        *_table(rows),
        "",
        "## Why our stacks were not called reliable",
        "",
        *_reasons(rows),
        "## Time",
        "",
        *_speed(rows),
    ]
    return "\n".join(parts) + "\n"


def _summary(rows: list[Row]) -> Iterator[str]:
    yield "| unwinder | programs | states | exact | false reliable | exact, not called reliable |"
    yield "|---|---|---|---|---|---|"
    for name in _names(rows):
        tallies = [row.tallies[name] for row in rows if name in row.tallies]
        states, exact = sum(t.states for t in tallies), sum(t.exact for t in tallies)
        lies, refused = sum(t.false_reliable for t in tallies), sum(t.false_unreliable.total() for t in tallies)
        yield f"| {name} | {len(tallies)} | {states} | {_percent(exact, states)} | {lies} | {refused} |"


def _table(rows: list[Row]) -> Iterator[str]:
    names = _names(rows)
    yield "E: exact states. F: false reliable states. T: share of time (of steps) whose stack is called reliable (by others: complete)."
    yield ""
    yield "| program | states | " + " | ".join(f"{name} E / F / T" for name in names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for row in rows:
        cells = (_cell(row.tallies[name]) if name in row.tallies else "-" for name in names)
        yield f"| {row.spec.name} | {row.states} | " + " | ".join(cells) + " |"


def _cell(tally: Tally) -> str:
    return f"{_percent(tally.exact, tally.states)} / {tally.false_reliable} / {_percent(tally.uniform_complete, tally.uniform)}"


def _reasons(rows: list[Row]) -> Iterator[str]:
    yield "States by reason, and how many of them were exact all the same (the price of the rule)."
    yield ""
    for name in OURS:
        refused: Counter[str] = Counter()
        cost: Counter[str] = Counter()
        for row in rows:
            if name in row.tallies:
                refused.update(row.tallies[name].reasons)
                cost.update(row.tallies[name].false_unreliable)
        if not refused:
            continue
        yield f"| {name}: reason | states | of them exact |"
        yield "|---|---|---|"
        for reason, count in refused.most_common():
            yield f"| {reason} | {count} | {cost[reason]} |"
        yield ""


def _speed(rows: list[Row]) -> Iterator[str]:
    native = [row for row in rows if row.spec.machine == platform.machine()]
    steps, seconds = sum(row.steps for row in native), sum(row.seconds for row in native)
    rate = steps / max(seconds, 1)
    yield f"{steps} steps of this machine's programs in {seconds:.0f} s: {rate:.0f} steps a second, walks in the kernel included."


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.tallies))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"

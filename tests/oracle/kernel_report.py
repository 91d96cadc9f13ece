"""The tables of the kernel oracle: lines for the terminal, a page for the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from oracle.kernel_plan import SEEN_KERNEL, SEEN_MACHINES, UNSEEN
from oracle.kernel_score import Tally

_LIE, _SURPLUS = "FALSE RELIABLE", "reliable, not exact"


@dataclass(frozen=True, slots=True)
class Row:
    """One workload on one machine. `shown`: by what is worth a look, states as (place, sentence). `failure`: why there is no more."""

    kernel: str
    machine: str
    workload: str
    release: str
    seconds: float
    tally: Tally
    events: Counter[str]
    anomalies: Counter[str]
    shown: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    failure: str = ""


def line(row: Row) -> str:
    """The scores for the terminal, with the first states that are worth a look."""
    tally = row.tally
    if row.failure:
        return f"{row.kernel}: {row.machine}: {row.workload}: NOT MEASURED: {row.failure}"
    taken = f"{tally.steps} steps in {row.seconds:.0f} s, {tally.states} states ({tally.open} open, {tally.undecided} undecided)"
    scored = f"exact {_percent(tally.exact, tally.states)}, reliable {_percent(tally.reliable, tally.states)}"
    others = f"reliable and not exact {tally.reliable_inexact}, user registers {tally.user_same} same {tally.user_differs} other, asleep "
    others += f"{tally.asleep_exact} of {tally.asleep} exact"
    of_time = f"of time {_percent(tally.uniform_reliable, tally.uniform)}"
    text = [
        f"{row.release}: {row.machine}: {row.workload}: {taken}, {scored}, {of_time}, FALSE RELIABLE {tally.false_reliable}, {others}",
        f"  not reliable: {_counts(tally.reasons)}; of them exact: {_counts(+tally.false_unreliable)}; anomalies: {_counts(row.anomalies)}",
    ]
    for what, states in row.shown.items():
        places = Counter(place for place, _ in states)
        text.append(f"  {what}: {_counts(places, 12)}")
        if what in {_LIE, _SURPLUS}:
            text += [f"    {sentence}" for _, sentence in states[:10]]
    return "\n".join(text)


def document(rows: list[Row], per_pc: int) -> str:
    """The page docs/guest-oracle-results.md."""
    done = [row for row in rows if not row.failure]
    total, events, anomalies = _sum(done), Counter[str](), Counter[str]()
    for row in done:
        events += row.events
        anomalies += row.anomalies
    return "\n".join(
        [
            "# Guest oracle results",
            "",
            "Written by `make guest-oracle`; [oracle.md](oracle.md#kernel-stacks-of-guests) says what the words mean.",
            f"Guests: Debian {', '.join(sorted({row.release for row in done}))}; one vCPU of QEMU's emulation (TCG).",
            f"Each instruction gives at most {per_pc} states for each kernel, machine and workload.",
            "",
            *_summary(total, anomalies),
            "",
            "## What the rules had not seen",
            "",
            "The rules of the walk were made on one kernel (6.1), four machines and eight workloads. The others came after the last rule.",
            "Their [first score](oracle.md#what-the-rules-of-kernel-stacks-had-not-seen) is kept; here they are as the walk stands now.",
            "A row of the long table counts under each thing that is new in it.",
            "",
            *_unseen(done),
            "",
            "## Kernels, machines and workloads",
            "",
            "| kernel | machine | workload | steps | states | exact | false reliable | reliable | of time | exact, not called reliable |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in done),
            *(f"\nNot measured: {row.kernel}, {row.machine}, {row.workload}: {row.failure}" for row in rows if row.failure),
            "",
            "## Why stacks are not called reliable",
            "",
            "| reason | states | of them exact | where (states, at most 200 of each workload looked at) |",
            "|---|---|---|---|",
            *_reasons(done, total),
            "",
            "## What was stepped through",
            "",
            "| event | times |",
            "|---|---|",
            *(f"| {event} | {count} |" for event, count in events.most_common() if count),
            *_sentences(done),
            "",
        ]
    )


def _sum(rows: Iterable[Row]) -> Tally:
    total = Tally()
    for row in rows:
        total.plus(row.tally)
    return total


def _unseen(rows: list[Row]) -> Iterator[str]:
    """The same by what is new: sums over rows, of which one may count in several lines."""
    yield "| | steps | states | exact | false reliable | reliable |"
    yield "|---|---|---|---|---|---|"
    old = {row.release for row in rows if row.kernel == SEEN_KERNEL}
    groups: dict[str, list[Row]] = {"what the rules were made on": []}
    for row in rows:
        names = [] if row.release in old else [f"kernel {row.release}"]
        names += [] if row.machine in SEEN_MACHINES else [f"machine: {row.machine}"]
        names += [f"workload: {row.workload}"] if row.workload in UNSEEN else []
        for name in names or ["what the rules were made on"]:
            groups.setdefault(name, []).append(row)
    for name, members in groups.items():
        tally = _sum(members)
        exact, reliable = _percent(tally.exact, tally.states), _percent(tally.reliable, tally.states)
        yield f"| {name} | {tally.steps} | {tally.states} | {exact} | {tally.false_reliable} | {reliable} |"


def _summary(total: Tally, anomalies: Counter[str]) -> list[str]:
    rows = {
        "instructions stepped": total.steps,
        "states": total.states,
        "exact": f"{total.exact} ({_percent(total.exact, total.states)})",
        "reliable": f"{total.reliable} ({_percent(total.reliable, total.states)})",
        "**false reliable**": f"**{total.false_reliable}**",
        "reliable, not exact": total.reliable_inexact,
        "exact, not called reliable": sum(total.false_unreliable.values()),
        "reliable, of time": _percent(total.uniform_reliable, total.uniform),
        "user registers found are those that user mode was left with": f"{total.user_same} of {total.user_same + total.user_differs}",
        "outer end not seen (inner part judged)": total.open,
        "tasks asleep when a trace ended: exact": f"{total.asleep_exact} of {total.asleep}",
        "undecided, not judged": total.undecided,
        "what the truth cannot explain": sum(anomalies.values()),
    }
    return ["| figure | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _row(row: Row) -> str:
    tally = row.tally
    cells = (
        *(
            row.release.partition("-")[0],
            row.machine,
            row.workload,
            tally.steps,
            tally.states,
            _percent(tally.exact, tally.states),
            tally.false_reliable,
        ),
        *(_percent(tally.reliable, tally.states), _percent(tally.uniform_reliable, tally.uniform), sum(tally.false_unreliable.values())),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _reasons(rows: list[Row], total: Tally) -> Iterator[str]:
    for reason, count in total.reasons.most_common():
        places = Counter(place.partition("+")[0] for row in rows for place, _ in row.shown.get(reason, []))
        yield f"| {_word(reason)} | {count} | {total.false_unreliable[reason]} | {_counts(places, 8)} |"


def _sentences(rows: list[Row]) -> Iterator[str]:
    for what in (_LIE, _SURPLUS, "other user registers"):
        found = Counter(sentence for row in rows for _, sentence in row.shown.get(what, []))
        if found:
            yield from ("", f"## {what.capitalize()}", "")
            yield from (f"- {sentence}" for sentence, _ in found.most_common(20))


def _counts(counts: Counter[str], most: int = 10) -> str:
    text = ", ".join(f"{name} {count}" for name, count in counts.most_common(most))
    return (text or "none") + (", ..." if len(counts) > most else "")


def _word(reason: str) -> str:
    return reason.lower().replace("_", "-")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"

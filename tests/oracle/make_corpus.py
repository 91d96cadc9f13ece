"""Makes the corpus: steps every program, keeps the states that differ from each other, and the bytes that unwinding them takes.

tests/oracle/make_corpus.py [--only TEXT] [--states N]
"""

from __future__ import annotations

import argparse
import lzma
import platform
import re
import struct
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from oracle import corpus, unwinders  # noqa: E402
from oracle.image import Disk, file_table  # noqa: E402
from oracle.judge import Answer, Judge  # noqa: E402
from oracle.run import Options, build_tools, step_to  # noqa: E402
from oracle.specs import EMULATED, SPECS, Spec  # noqa: E402
from oracle.truth import Record, Run, State, register_numbers  # noqa: E402
from oracle.unwinders import Unwind  # noqa: E402

from unspool.model.memory import Bytes  # noqa: E402
from unspool.unwind.policy import Check  # noqa: E402

FOLDER = Path(tempfile.gettempdir()) / "unspool-oracle"
"""Programs are built and run there, so that no state holds the place of this source tree."""
BLOCK = 64
WHOLE = 1 << 16
"""Files up to this size are kept whole."""
PER_REASON = 12
PER_REASON_IN_ALL = 60
PER_RULE = 12


class Recorder:
    """The files of this machine, and which blocks of them were read."""

    def __init__(self) -> None:
        """Nothing was read."""
        self._disk = Disk()
        self.blocks: defaultdict[str, set[int]] = defaultdict(set)
        self.asked: defaultdict[str, set[int]] = defaultdict(set)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """The bytes; their blocks are remembered."""
        self.blocks[path].update(range(offset // BLOCK, (offset + size - 1) // BLOCK + 1))
        return self._disk.read(path, offset, size)

    def function(self, path: str, offset: int) -> int | None:
        """The function; that it was asked for is remembered."""
        self.asked[path].add(offset)
        return self._disk.function(path, offset)


class Changes:
    """Writes states with only those stack words that differ from what was written before."""

    def __init__(self) -> None:
        """Nothing was written."""
        self._known: dict[int, bytes] = {}

    def of(self, part: Bytes) -> list[tuple[int, bytes]]:
        """The changed runs of one range; a run never crosses a page."""
        runs: list[tuple[int, bytearray]] = []
        for at in range(0, len(part.data), 8):
            address, word = part.start + at, part.data[at : at + 8]
            if self._known.get(address, bytes(8)) == word:
                continue
            self._known[address] = word
            if runs and runs[-1][0] + len(runs[-1][1]) == address and address % 4096:
                runs[-1][1].extend(word)
            else:
                runs.append((address, bytearray(word)))
        return [(address, bytes(data)) for address, data in runs]


def main() -> int:
    """Step, choose, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--states", type=int, default=80, help="states kept of each program, besides the telling ones (80)")
    parser.add_argument("--machines", default="x86_64,aarch64,s390x", help="comma-separated (x86_64,aarch64,s390x)")
    args = parser.parse_args()
    build_tools(FOLDER)
    for machine in args.machines.split(","):
        specs = SPECS if machine == "x86_64" else [spec for spec in EMULATED if spec.machine == machine]
        target = corpus.FOLDER / f"{machine}.xz"
        target.write_bytes(pack([spec for spec in specs if spec.in_corpus and not spec.missing], args.states))
        print(f"{target.name}: {target.stat().st_size} bytes", file=sys.stderr, flush=True)
    return 0


def pack(specs: list[Spec], states: int) -> bytes:
    """The corpus file of those programs."""
    recorder, runs = Recorder(), []
    for spec in specs:
        command = spec.build(FOLDER)
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            path = Path(scratch) / "states"
            step_to(command, spec, Options(1, 240, FOLDER), path)
            run = Run.read(path, spec.arch)
            run.files = recorder
            chosen = choose(run, states)
            print(f"{spec.name}: {len(chosen)} states", file=sys.stderr, flush=True)
            runs.append(write_run(spec.name, run, chosen))
    return lzma.compress(write_files(recorder) + b"".join(runs), preset=9 | lzma.PRESET_EXTREME)


def choose(run: Run, count: int) -> list[State]:
    """States of every reason and of as many functions as possible, and all bytes that any policy reads for them."""
    quiet, run.files = run.files, Disk()
    judge, reference = Judge(run), unwinders.reference()
    without = {check: unwinders.reference(check) for check in Check}
    lies: Counter[Check] = Counter()
    by_reason: Counter[str] = Counter()
    by_place: Counter[object] = Counter()
    spare: list[State] = []
    chosen: list[State] = []
    for state in run.states():
        answer = reference(run, state)
        telling = not answer.complete or not judge.find(state, answer).exact
        place = (judge.functions.at(state.space, state.registers.pc), len(answer.ips) > 12)
        key = (answer.reason, place[0]) if telling else ("", "")
        by_reason[str(key)] += 1
        by_reason[key[0]] += 1
        by_place[place] += 1
        # What R3 prevents is a wrong row; under all other rules such a state looks like any other.
        asked = Check if telling else (Check.R3,)
        if held := next((check for check in asked if _is_held_back(run, state, judge, without[check])), None):
            lies[held] += 1
            if lies[held] <= PER_RULE:
                chosen.append(state)
                continue
        if telling and by_reason[str(key)] <= PER_REASON and by_reason[key[0]] <= PER_REASON_IN_ALL:
            chosen.append(state)
        elif not telling and by_place[place] <= 2:
            spare.append(state)
    stride = max(1, len(spare) // count)
    chosen += spare[::stride]
    run.files = quiet
    run.forget_memories()
    read_everything(run, chosen)
    return sorted(chosen, key=lambda state: state.step)


def _is_held_back(run: Run, state: State, judge: Judge, unwind: Unwind) -> bool:
    """Whether the stack would be called reliable without that rule, and is not sound."""
    answer = unwind(run, state)
    return answer.complete and judge.find(state, answer).false_reliable(answer)


def read_everything(run: Run, states: list[State]) -> None:
    """Let every walk under every policy read what it wants, so that the recorder knows."""
    judge = Judge(run)
    walks = [unwinders.reference(), unwinders.native, *(unwinders.reference(check) for check in Check)]
    for state in states:
        for number in state.entries:
            entry = run.entries[number]
            answer = Answer(
                (entry.ra, entry.ra, run.fates[number].landing if number in run.fates else 0), (True, False, True), complete=False
            )
            judge.find(state, answer)
        for walk in walks:
            judge.find(state, walk(run, state))


def write_run(name: str, run: Run, states: list[State]) -> bytes:
    """The records of a run with only those states."""
    parts = [corpus.record(corpus.RUN, struct.pack("<I", run.arch.elf_machine) + name.encode())]
    ends = run.ends
    parts.append(corpus.record(Record.HEADER, struct.pack("<QQQ", ends.process or 0, ends.interpreter or 0, ends.initial_sp or 0)))
    if run.vdso:
        parts.append(corpus.record(Record.VDSO, struct.pack("<Q", run.vdso.start) + _without_paths(run.vdso.data)))
    for number in sorted({number for state in states for number in state.entries}):
        entry, fate = run.entries[number], run.fates.get(number)
        parts.append(corpus.record(Record.ENTRY, struct.pack("<QQQI", number, entry.ra, entry.slot, entry.kind)))
        if fate:
            parts.append(corpus.record(Record.FATE, struct.pack("<QQII", number, fate.landing, 1 if fate.returned else 2, fate.outermost)))
    changes, space = Changes(), None
    for state in states:
        if state.space is not space:
            space = state.space
            parts.append(corpus.record(Record.MAPS, maps_text(state)))
        release = platform.release().encode()  # uname leaves it on the stack
        parts.append(corpus.record(Record.STATE, state_payload(state, changes).replace(release, bytes(len(release)))))
    return b"".join(parts)


def _without_paths(vdso: bytes) -> bytes:
    """The vDSO without the names of its kernel and of the folder that it was built in."""
    return re.sub(rb"/[ -~]{15,}|[0-9]+\.[0-9]+\.[0-9]+-[ -~]+", lambda found: bytes(len(found.group())), vdso)


def maps_text(state: State) -> bytes:
    """The mappings as /proc/PID/maps shows them, without those that no unwinder looks at."""
    lines = []
    for m in state.space:
        mode = f"{'r' if m.readable else '-'}{'w' if m.writable else '-'}{'x' if m.executable else '-'}{'s' if m.shared else 'p'}"
        line = f"{m.start:x}-{m.end:x} {mode} {m.offset:08x} {m.device[0]:02x}:{m.device[1]:02x} {m.inode} {_neutral(m.path)}\n"
        lines.append(line)
    return "".join(lines).encode()


def state_payload(state: State, changes: Changes) -> bytes:
    """The state as the stepper writes it."""
    known, numbers = state.registers, register_numbers(state.registers.arch)
    registers = [*(known.values[number] for number in numbers), known.pc, known.thread_pointer or 0]
    runs = [run for part in state.stack for run in changes.of(part)]
    head = struct.pack(f"<QQII{len(registers)}Q", state.step, 0, state.tid, state.flags, *registers)
    counts = struct.pack("<III", len(state.entries), len(state.stack), len(runs))
    ids = struct.pack(f"<{len(state.entries)}Q", *state.entries)
    bounds = b"".join(struct.pack("<QQ", part.start, part.start + len(part.data)) for part in state.stack)
    return head + counts + ids + bounds + b"".join(struct.pack("<QI", address, len(data)) + data for address, data in runs)


def write_files(recorder: Recorder) -> bytes:
    """Every file's read blocks and functions."""
    disk = Disk()
    parts = []
    for path in sorted(recorder.blocks.keys() | recorder.asked.keys()):
        size = Path(path).stat().st_size if Path(path).exists() else 0
        if not size:
            continue
        parts.append(corpus.record(corpus.FILE, _neutral(path).encode()))
        blocks = range((size + BLOCK - 1) // BLOCK) if size <= WHOLE else sorted(recorder.blocks[path])
        for first, last in _runs(blocks):
            data = disk.read(path, first * BLOCK, (last - first) * BLOCK)
            parts.append(corpus.record(corpus.CHUNK, struct.pack("<Q", first * BLOCK) + data))
        table = file_table(path)
        found = {extent: table.start(offset) for offset in recorder.asked[path] if table and (extent := table.extent(offset))}
        packed = b"".join(struct.pack("<QQQ", *extent, identity) for extent, identity in sorted(found.items()))
        parts.append(corpus.record(corpus.FUNCTIONS, packed))
    return b"".join(parts)


def _neutral(path: str) -> str:
    """The path without the place of this source tree."""
    return path.replace(str(FOLDER), "/oracle")


def _runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][1] == block:
            runs[-1] = (runs[-1][0], block + 1)
        else:
            runs.append((block, block + 1))
    return runs


if __name__ == "__main__":
    sys.exit(main())

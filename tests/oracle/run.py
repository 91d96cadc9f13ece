"""The oracle: steps programs instruction by instruction, and holds every unwinder against the true stack.

    tests/oracle/run.py [--only TEXT] [--write FILE] [-k STATES_PER_PC] [--keep FOLDER]

Needs root only for the uretprobe program; ptrace needs none. docs/oracle.md says how to read the result.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from oracle import unwinders  # noqa: E402
from oracle.emulated import machine_of, step  # noqa: E402
from oracle.in_kernel import kernel_walk  # noqa: E402
from oracle.probe import uretprobe  # noqa: E402
from oracle.report import OURS, Row, document, line  # noqa: E402
from oracle.score import read_answers, score  # noqa: E402
from oracle.specs import EMULATED, HERE, SPECS, UNSEEN, Spec  # noqa: E402
from oracle.truth import Run  # noqa: E402
from oracle.unwinders import Unwind  # noqa: E402

from unspool.model.arch import S390X, X86_64, Arch  # noqa: E402

FOLDER = TESTS.parent / "build" / "oracle"
LIBRARIES = {"stepper": (), "libdw": ("-ldw", "-lelf"), "libunwind": ("-lunwind-x86_64",)}
UNIFORM_EVERY = 101


@dataclass(frozen=True, slots=True)
class Options:
    """How far a run goes, and what is scored."""

    k: int
    seconds: int
    folder: Path
    only: frozenset[str] | None = None

    def scores(self, name: str) -> bool:
        """Whether that unwinder is scored."""
        return self.only is None or name in self.only


def main() -> int:
    """Step, score, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="programs whose name holds the text")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("-k", type=int, default=2, metavar="N", help="states taken at each instruction (2)")
    parser.add_argument("--seconds", type=int, default=120, help="stepping at most, for each program (120)")
    parser.add_argument(
        "--unwinders", default="", metavar="NAMES", help="comma-separated: reference,native,in-kernel,frame pointer,elfutils,libunwind"
    )
    parser.add_argument("--lies", type=int, default=3, metavar="N", help="false reliable states that are described for each program (3)")
    args = parser.parse_args()
    options = Options(args.k, args.seconds, FOLDER, frozenset(args.unwinders.split(",")) if args.unwinders else None)
    build_tools(FOLDER)
    rows = []
    for spec in [*SPECS, *UNSEEN, *EMULATED]:
        if args.only not in spec.name:
            continue
        if spec.missing:
            print(f"{spec.name}: not run, {spec.missing} is not installed", file=sys.stderr)
            continue
        row = step_and_score(spec, options)
        rows.append(row)
        print(line(row, args.lies), flush=True)
        if args.write:
            args.write.write_text(document(rows, args.k, args.seconds))
    return any(row.tallies[name].false_reliable for row in rows for name in OURS if name in row.tallies)


def build_tools(folder: Path) -> None:
    """Compile the stepper and the programs that hold other unwinders; one that cannot be built is not scored."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in HERE.glob("*.[ch]"))
    for name, libraries in LIBRARIES.items():
        target = folder / name
        if target.exists() and target.stat().st_mtime > newest:
            continue
        result = subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(HERE / f"{name}.c"), *libraries],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            print(f"{name}.c: not built, {result.stderr}", file=sys.stderr)


def step_and_score(spec: Spec, options: Options) -> Row:
    """One program's row of the table."""
    command = spec.build(options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        path = Path(scratch) / "states"
        begin = time.monotonic()
        kernel = kernel_walk() if options.scores("in-kernel") and spec.arch is X86_64 else None
        with kernel or contextlib.nullcontext():
            step_to(command, spec, options, path, in_kernel=kernel is not None)
        stepped = time.monotonic() - begin
        run = Run.read(path, spec.arch)
        unwinds = dict(_unwinders(path, options, spec.arch))
        if spec.is_static and options.scores("reference"):
            unwinds["reference with files"] = unwinders.with_files
        if kernel:
            unwinds["in-kernel"] = unwinders.from_answers(kernel.answers(run))
        tallies = score(run, unwinds)
        return Row(spec, run.steps, stepped, run.skipped, run.lost_jumps, tallies, run)


def step_to(command: tuple[str, ...], spec: Spec, options: Options, path: Path, *, in_kernel: bool = False) -> None:
    """Step the program into that file, with its probe if it has one."""
    if machine := machine_of(spec.compiler):
        step(machine, Path(command[0]), path, k=options.k, max_steps=spec.max_steps)
        return
    with uretprobe(Path(command[0]), spec.probe) if spec.probe else contextlib.nullcontext():
        _step(command, spec, options, path, in_kernel=in_kernel)


def _step(command: tuple[str, ...], spec: Spec, options: Options, path: Path, *, in_kernel: bool) -> None:
    """Run the stepper."""
    limits = ["-k", str(options.k), "-m", str(spec.max_steps), "-w", str(options.seconds), "-u", str(UNIFORM_EVERY)]
    entry = [*(["-e"] if spec.from_entry else []), *(["-p"] if spec.probe else []), *(["-x"] if in_kernel else [])]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
    subprocess.run(
        [str(options.folder / "stepper"), "-o", str(path), *limits, *entry, "--", *command],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=options.seconds + 120,
        env=environment,
    )


def _unwinders(path: Path, options: Options, arch: Arch) -> Iterator[tuple[str, Unwind]]:
    ours = {"reference": unwinders.reference(), "native": unwinders.native, "frame pointer": unwinders.frame_pointer}
    if arch is not X86_64 or not unwinders.native_is_built():
        del ours["native"]
    if arch is S390X:  # its functions keep no chain of frames
        del ours["frame pointer"]
    for name, unwind in ours.items():
        if options.scores(name):
            yield name, unwind
    for name, program in (("elfutils", "libdw"), ("libunwind", "libunwind")):
        tool = options.folder / program
        if options.scores(name) and tool.exists() and arch is X86_64:
            answers = path.with_suffix(f".{program}")
            subprocess.run([str(tool), str(path), str(answers)], check=True, timeout=600)
            yield name, unwinders.from_answers(read_answers(answers))


if __name__ == "__main__":
    sys.exit(main())

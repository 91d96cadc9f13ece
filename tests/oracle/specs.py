"""The programs that are stepped: how each is built and started, and how far."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from oracle.emulated import MACHINES, machine_of

from unspool.model.arch import X86_64, Arch

HERE = Path(__file__).parent
SOURCES = HERE / "programs"


@dataclass(frozen=True, slots=True)
class Spec:
    """One program. `command` starts it, with `{}` for what was built from `source`; `from_entry`: no states of the loader's start-up."""

    name: str
    family: str
    source: str = ""
    compiler: str = "gcc"
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ("{}",)
    from_entry: bool = True
    max_steps: int = 3_000_000
    in_corpus: bool = True
    probe: str = ""
    """A function of the program that gets a uretprobe while it runs."""

    @property
    def machine(self) -> str:
        """The machine that the program is for."""
        return emulated.arch.name if (emulated := machine_of(self.compiler)) else X86_64.name

    @property
    def arch(self) -> Arch:
        """The same, as the unwinders know it."""
        return emulated.arch if (emulated := machine_of(self.compiler)) else X86_64

    @property
    def is_static(self) -> bool:
        """Whether the linker left out .eh_frame_hdr, so that unwind data is found in the file only."""
        return "-static" in self.flags and "-Wl,--eh-frame-hdr" not in self.flags

    @property
    def missing(self) -> str:
        """The tool that is needed and not installed, "" when all are."""
        emulated = machine_of(self.compiler)
        needed = [self.compiler if self.source else self.command[0], *([emulated.emulator] if emulated else [])]
        return next((tool for tool in needed if not shutil.which(tool)), "")

    def build(self, folder: Path) -> tuple[str, ...]:
        """The command that starts the program, which is compiled first when its source or flags are new."""
        built = str(self._compiled(self.source, self.flags, folder)) if self.source else ""
        plugin = str(self._compiled("plugin.c", ("-O2", "-fPIC", "-shared"), folder)) if "{plugin}" in self.command else ""
        return tuple(part.format(built) if part == "{}" else part.replace("{plugin}", plugin) for part in self.command)

    def _compiled(self, source: str, flags: tuple[str, ...], folder: Path) -> Path:
        compiler = "gcc" if source == "plugin.c" else self.compiler
        path = SOURCES / source
        key = hashlib.sha256(repr((compiler, flags, path.read_bytes())).encode()).hexdigest()[:12]
        target = folder / f"{path.stem}-{key}"
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            output = ["-o", str(target)]
            subprocess.run([compiler, *output, str(path), *flags], check=True, capture_output=True, text=True, timeout=300)
        return target


def _outside(specs: list[Spec]) -> list[Spec]:
    """The same programs, but not for the corpus, which has others like them."""
    return [replace(spec, in_corpus=False) for spec in specs]


def _c(source: str, variants: dict[str, tuple[str, ...]], **options: object) -> list[Spec]:
    stem = Path(source).stem
    cxx = source.endswith(".cc")
    made = []
    for title, flags in variants.items():
        compiler = title.split()[0]
        if cxx:
            compiler = {"gcc": "g++", "clang": "clang++"}[compiler]
        made.append(Spec(f"{stem}: {title}", stem, source, compiler, flags, **options))  # type: ignore[arg-type]
    return made


_ALL = {
    "gcc -O0": ("-O0",),
    "gcc -O1": ("-O1",),
    "gcc -O2": ("-O2",),
    "gcc -O2 -fno-omit-frame-pointer": ("-O2", "-fno-omit-frame-pointer"),
    "gcc -O3 -flto -fcf-protection": ("-O3", "-flto", "-fcf-protection=full"),
    "gcc -Os": ("-Os",),
    "gcc -O2 -static": ("-O2", "-static"),
    "gcc -O2 -static-pie": ("-O2", "-static-pie"),
    "gcc -O2 lazy": ("-O2", "-Wl,-z,lazy"),
    "clang -O0": ("-O0",),
    "clang -O2": ("-O2",),
    "clang -O3 -fno-omit-frame-pointer": ("-O3", "-fno-omit-frame-pointer"),
}
_SOME = {key: _ALL[key] for key in ("gcc -O0", "gcc -O2", "gcc -O2 -static", "gcc -O2 -static-pie", "clang -O2")}
_CXX = ("-fnon-call-exceptions", "-static-libstdc++", "-static-libgcc")
_CLANG_CXX = ("-static-libstdc++", "-static-libgcc")
_EXCEPTIONS = {
    "gcc -O0": ("-O0", *_CXX),
    "gcc -O2": ("-O2", *_CXX),
    "gcc -O3 -flto": ("-O3", "-flto", *_CXX),
    "gcc -O2 -fno-omit-frame-pointer": ("-O2", "-fno-omit-frame-pointer", *_CXX),
    "gcc -O2 -static-pie": ("-O2", "-fnon-call-exceptions", "-static-pie"),
    "clang -O2": ("-O2", *_CLANG_CXX),
    "clang -O0": ("-O0", *_CLANG_CXX),
}
_KEPT = ("gcc -O0", "gcc -O2", "gcc -O2 -static-pie", "clang -O2")
_KEPT_EXCEPTIONS = ("gcc -O2", "clang -O2")

SPECS: list[Spec] = [
    *_outside(_c("calls.c", {"gcc -O2 from the first instruction": ("-O2",)}, from_entry=False)),
    *_c("calls.c", {key: _ALL[key] for key in _KEPT}),
    *_outside(_c("calls.c", {key: flags for key, flags in _ALL.items() if key not in _KEPT})),
    *_c("signals.c", {key: flags for key, flags in _SOME.items() if "static" not in key}),
    *_outside(_c("signals.c", {key: flags for key, flags in _SOME.items() if "static" in key})),
    *_c("exceptions.cc", {key: _EXCEPTIONS[key] for key in _KEPT_EXCEPTIONS}, max_steps=6_000_000),
    *_outside(_c("exceptions.cc", {key: flags for key, flags in _EXCEPTIONS.items() if key not in _KEPT_EXCEPTIONS}, max_steps=6_000_000)),
    *_outside(_c("exceptions.cc", {"gcc -O2 shared libstdc++": ("-O2", "-fnon-call-exceptions")}, max_steps=6_000_000)),
    *_c("threads.c", {"gcc -O2": ("-O2", "-pthread")}),
    *_outside(_c("threads.c", {"gcc -O0 -static": ("-O0", "-static", "-pthread")})),
    *_outside(_c("spawns.c", {"gcc -O2": ("-O2", "-pthread"), "gcc -O0": ("-O0", "-pthread"), "clang -O2": ("-O2", "-pthread")})),
    *_outside(_c("spawns.c", {"gcc -O2 -static-pie": ("-O2", "-pthread", "-static-pie")})),
    *_c("contexts.c", {"gcc -O2": ("-O2",)}),
    *_outside(_c("contexts.c", {"clang -O0": ("-O0",)})),
    *_c("vdso.c", {"gcc -O2": ("-O2",)}),
    *_c("loads.c", {"gcc -O2": ("-O2",)}, command=("{}", "{plugin}")),
    *_c("probed.c", {"gcc -O0 with a uretprobe": ("-O0", "-no-pie")}, probe="work"),
    Spec("rules: assembly whose CFI lies", "bare", "rules.S", "gcc", ("-nostdlib", "-static", "-Wl,--eh-frame-hdr"), from_entry=False),
    Spec("bare: assembly without CFI", "bare", "bare.S", "gcc", ("-nostdlib", "-static"), from_entry=False),
    Spec("calls: musl", "musl", "calls.c", "musl-gcc", ("-O2",)),
    Spec("calls: musl static", "musl", "calls.c", "musl-gcc", ("-O2", "-static"), in_corpus=False),
    Spec("panics: rustc -O", "rust", "panics.rs", "rustc", ("-O",)),
    Spec("panics: rustc", "rust", "panics.rs", "rustc", (), in_corpus=False),
    Spec("ls", "debian", command=("/bin/ls", "-la", "/usr/lib"), from_entry=False),
    Spec(
        "bash",
        "debian",
        command=("/bin/bash", "-c", "f() { local x=$1; ((x > 0)) && f $((x - 1)); }; f 5; for i in a b; do echo ${i^^}; done"),
    ),
    Spec("perl", "debian", command=("/usr/bin/perl", "-e", "sub f { my $n = shift; $n ? f($n - 1) : sort { $b <=> $a } 1..9 } print f(6)")),
    Spec(
        "python3",
        "debian",
        command=("/usr/bin/python3", "-I", "-S", "-c", "print(sorted(map(str, range(20)), key=len))"),
        max_steps=4_000_000,
        in_corpus=False,
    ),
    Spec(
        "sqlite3",
        "debian",
        command=("/usr/bin/sqlite3", ":memory:", "create table t(a); insert into t values (1),(2); select sum(a) from t order by 1"),
        in_corpus=False,
    ),
]

UNSEEN: list[Spec] = _outside(
    [
        Spec("unseen: generators gcc -O2", "unseen", "generators.cc", "g++", ("-std=c++20", "-O2", "-static-libstdc++", "-static-libgcc")),
        Spec("unseen: generators gcc -O0", "unseen", "generators.cc", "g++", ("-std=c++20", "-O0", "-static-libstdc++", "-static-libgcc")),
        Spec("unseen: oddities gcc -O2", "unseen", "oddities.c", "gcc", ("-O2", "-w", "-pthread")),
        Spec("unseen: oddities gcc -O1 -pg", "unseen", "oddities.c", "gcc", ("-O1", "-w", "-pthread", "-pg")),
        Spec("unseen: sort", "unseen", command=("/usr/bin/sort", "-n", "/etc/services")),
        Spec(
            "unseen: mawk",
            "unseen",
            command=("/usr/bin/mawk", 'BEGIN { for (i = 0; i < 50; i++) s = s sprintf("%d,", i * i); print length(s), toupper(s) }'),
        ),
        Spec("unseen: openssl", "unseen", command=("/usr/bin/openssl", "dgst", "-sha256", "/etc/services")),
    ]
)
"""The family that was written after the rules were final: its first score is in docs/oracle-results.md as it came."""

EMULATED: list[Spec] = [
    Spec(
        f"calls: {machine.arch.name} gcc {level}",
        "emulated",
        "calls.c",
        machine.compiler,
        (level, "-static", "-w", "-Wl,--eh-frame-hdr"),
        max_steps=60_000,
        in_corpus=level == "-O2",
    )
    for machine in MACHINES
    for level in ("-O0", "-O2")
]

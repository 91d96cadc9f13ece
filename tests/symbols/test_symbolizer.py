"""Names of programs that the tests compile and of the machine's own, against elfutils and nm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from target_programs import Programs

from unspool.formats.elf import Elf
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.symbols import debug_files, external
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import Symbolizer

BUILDS = [
    ("-O2", "-g"),
    ("-O2", "-g", "-no-pie"),
    ("-O2", "-g", "-static"),
    ("-O2", "-g", "-gz=zlib"),
    ("-O2", "-gdwarf-4"),
    ("-O0", "-g"),
]


def opened(path: Path | str, build_id: str = "") -> OpenFile:
    return OpenFile(open_in_root(None, str(path)), str(path), build_id)


def names(path: Path | str, addresses: list[int], **options: bool) -> list[Named]:
    """What a new symbolizer says of Svmas in a file."""
    with Symbolizer() as symbolizer:
        symbolizer.add("file", opened(path))
        return symbolizer.names("file", addresses, stated=True, **options)


def run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, timeout=120).stdout


def symbols_of(path: Path) -> dict[str, tuple[int, int]]:
    """Functions by mangled name: (address, size)."""
    rows = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [TtWwi] (\S+)$", run("nm", "-S", path), re.MULTILINE)
    return {name: (int(address, 16), int(size, 16)) for address, size, name in rows}


def own_addresses(path: Path) -> list[int]:
    """Every address of the functions of inlined.cc that starts a line of it, by objdump."""
    wanted = [place for name, place in symbols_of(path).items() if re.search(r"outer|plain|hidden|^main$", name)]
    return [address for start, size in wanted for address in range(start, start + size)]


def by_elfutils(path: Path, addresses: list[int]) -> list[list[tuple[str, int | None]]]:
    """For each address (function, line), innermost first; addr2line of binutils 2.40 gives inlined calls their caller's name."""
    answers: list[list[tuple[str, int | None]]] = []
    lines = run("eu-addr2line", "-a", "-f", "-i", "-C", "-e", path, *(hex(address) for address in addresses)).splitlines()
    position = 0
    while position < len(lines):
        if re.fullmatch(r"0x[0-9a-f]+", lines[position]):
            answers.append([])
            position += 1
            continue
        place = re.search(r":([1-9]\d*)", lines[position + 1])
        function = lines[position].partition(" inlined at ")[0].partition("(")[0]
        answers[-1].append((function, int(place[1]) if place else None))
        position += 2
    return answers


def plain(named: Named) -> list[tuple[str, int | None]]:
    assert isinstance(named, tuple), named
    return [(symbol.function.partition("(")[0], symbol.line) for symbol in named]


@pytest.fixture(scope="module", params=BUILDS, ids=" ".join)
def built(request: pytest.FixtureRequest, programs: Programs) -> Path:
    return programs.build("inlined.cc", *request.param)


def test_functions_lines_and_inlined_calls_are_those_of_elfutils(built: Path) -> None:
    addresses = own_addresses(built)
    assert len(addresses) > 50
    assert by_elfutils(built, addresses) == [plain(named) for named in names(built, addresses)]


@pytest.mark.parametrize("machine", ["aarch64", "s390x"])
def test_programs_of_other_machines_are_read_too(machine: str, programs: Programs) -> None:
    """AArch64, and s390x with the other byte order."""
    compiler = f"{machine}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    path = programs.build("threads.c", "-O2", "-g", compiler=compiler)
    start, size = symbols_of(path)["main"]
    addresses = list(range(start, start + size, 2))
    assert by_elfutils(path, addresses) == [plain(named) for named in names(path, addresses)]


def test_offsets_count_from_the_function(built: Path) -> None:
    start, size = symbols_of(built)["main"]
    for named, inner in zip(names(built, [start, start + size - 1]), (0, size - 1), strict=True):
        assert isinstance(named, tuple)
        assert ("main", inner, False) == (named[-1].function, named[-1].offset, named[-1].inlined)
        assert all(symbol.inlined for symbol in named[:-1])


def test_a_file_offset_means_what_its_address_means(built: Path) -> None:
    elf = Elf(built.read_bytes())
    start, size = symbols_of(built)["main"]
    svmas = list(range(start, start + size))
    offsets = [elf.file_offset(svma) or 0 for svma in svmas]
    with Symbolizer() as symbolizer:
        symbolizer.add(1, opened(built))
        assert symbolizer.names(1, svmas, stated=True) == symbolizer.names(1, offsets)


def test_dwarf_says_which_of_several_names_is_the_functions_own(programs: Programs) -> None:
    """Three symbols share one address: with DWARF the one that it states counts, without it the one that gdb shows."""
    path = programs.build("inlined.cc", "-O2", "-g")
    start, _ = symbols_of(path)["plain"]
    with Symbolizer(lines=False) as symbolizer:
        symbolizer.add("file", opened(path))
        assert (Symbol("zzz_alias"),) == symbolizer.names("file", [start], stated=True)[0]
    [named] = names(path, [start])
    assert isinstance(named, tuple)
    assert "plain" == named[-1].function


def test_without_debugging_information_the_symbol_table_names_functions(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2")
    symbols = symbols_of(path)
    start, _ = next(place for name, place in symbols.items() if "outerIl" in name)
    assert [(Symbol("long shapes::outer<long>(long)", 1),)] == names(path, [start + 1])


def test_a_stub_has_the_name_of_what_it_calls(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2")
    stub = re.search(r"^([0-9a-f]+) <puts@plt>:$", run("objdump", "-d", path), re.MULTILINE)
    assert stub is not None
    assert [(Symbol("puts@plt", 2),)] == names(path, [int(stub[1], 16) + 2])


def test_a_stripped_program_has_its_reason(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "stripped"
    start, _ = symbols_of(programs.build("inlined.cc", "-O2", "-static"))["main"]
    run("strip", "-o", path, programs.build("inlined.cc", "-O2", "-static"))
    assert [Unnamed(Reason.STRIPPED)] == names(path, [start])
    dynamic = tmp_path / "dynamic"
    main, _ = symbols_of(programs.build("inlined.cc", "-O2"))["main"]
    run("strip", "-o", dynamic, programs.build("inlined.cc", "-O2"))
    assert [Unnamed(Reason.NO_SYMBOL)] == names(dynamic, [main])


Split = Callable[[Path, Path], None]


def by_debug_link(whole: Path, folder: Path) -> None:
    """Program and program.debug, joined by .gnu_debuglink."""
    run("objcopy", "--only-keep-debug", whole, folder / "program.debug")
    run("strip", "-o", folder / "program", whole)
    run("objcopy", f"--add-gnu-debuglink={folder / 'program.debug'}", folder / "program")


def by_debug_link_in_folder(whole: Path, folder: Path) -> None:
    """The same with the debug file in .debug."""
    by_debug_link(whole, folder)
    (folder / ".debug").mkdir()
    (folder / "program.debug").rename(folder / ".debug" / "program.debug")


def by_build_id(whole: Path, folder: Path) -> None:
    """program, and in the debug folder xx/yyyy.debug."""
    build_id = Elf(whole.read_bytes()).build_id
    place = folder / "debug" / ".build-id" / build_id[:2]
    place.mkdir(parents=True)
    run("objcopy", "--only-keep-debug", whole, place / f"{build_id[2:]}.debug")
    run("strip", "-o", folder / "program", whole)


@pytest.mark.parametrize("split", [by_debug_link, by_debug_link_in_folder, by_build_id])
@pytest.mark.parametrize(
    "flags", [("-O2", "-g", "-Wl,--build-id=none"), ("-O2", "-g", "-no-pie", "-Wl,--build-id=sha1")], ids=["crc", "id"]
)
def test_a_separate_debug_file_is_found(
    split: Split, flags: tuple[str, ...], programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if split is by_build_id and "-Wl,--build-id=none" in flags:
        return
    monkeypatch.setattr(debug_files, "FOLDER", str(tmp_path / "debug"))
    whole = programs.build("inlined.cc", "-O2", "-g", *flags)
    split(whole, tmp_path)
    addresses = own_addresses(whole)
    assert names(whole, addresses) == names(tmp_path / "program", addresses)


def test_a_debug_file_of_another_build_is_not_used(programs: Programs, tmp_path: Path) -> None:
    """Neither with another build id, nor with another checksum."""
    for identity in ("-Wl,--build-id=none", "-Wl,--build-id=sha1"):
        folder = tmp_path / identity[-4:]
        folder.mkdir()
        by_debug_link(programs.build("inlined.cc", "-O2", "-g", identity), folder)
        run("objcopy", "--only-keep-debug", programs.build("inlined.cc", "-O0", "-g", identity), folder / "program.debug")
        main, _ = symbols_of(programs.build("inlined.cc", "-O2", "-g", identity))["main"]
        [named] = names(folder / "program", [main])
        assert Unnamed(Reason.NO_SYMBOL) == named


def test_mini_debug_info_names_what_the_dynamic_table_leaves_out(programs: Programs, tmp_path: Path) -> None:
    whole = programs.build("inlined.cc", "-O2")
    mini, program = tmp_path / "mini", tmp_path / "program"
    run("objcopy", "-S", "--remove-section=.comment", "--keep-symbols=/dev/stdin", whole, mini) if False else run("cp", whole, mini)
    run("xz", "--check=crc32", mini)
    run("strip", "-o", program, whole)
    run("objcopy", f"--add-section=.gnu_debugdata={mini}.xz", program)
    start, _ = next(place for name, place in symbols_of(whole).items() if "hidden" in name)
    assert [(Symbol("hidden(long)", 2),)] == names(program, [start + 2])


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may read, as those of installed debug files are."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_files_that_dwz_took_parts_out_of_keep_their_inlined_calls(programs: Programs, public_folder: Path) -> None:
    whole = programs.build("inlined.cc", "-O2", "-gdwarf-4")
    common, first, second = (public_folder / name for name in ("common", "a", "b"))
    shutil.copy(whole, first)
    shutil.copy(whole, second)
    run("dwz", "-m", common, "-M", common, first, second)
    assert Elf(first.read_bytes()).section(".gnu_debugaltlink") is not None
    assert external.available()
    addresses = own_addresses(whole)
    expected, mine = names(whole, addresses), names(first, addresses)
    assert [plain(named) for named in expected] == [plain(named) for named in mine]


@pytest.mark.parametrize("path", ["/usr/bin/perl", "/bin/bash", "/usr/bin/python3"])
def test_system_programs_have_the_names_of_nm(path: str) -> None:
    rows = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [T] (\w+)$", run("nm", "-D", "-S", path), re.MULTILINE)
    addresses = [int(address, 16) for address, size, _ in rows if int(size, 16)]
    by_address: dict[int, set[str]] = {}
    for address, _, name in rows:
        by_address.setdefault(int(address, 16), set()).add(name)
    assert len(addresses) > 500
    for address, named in zip(addresses, names(path, addresses), strict=True):
        assert isinstance(named, tuple)
        assert named[-1].function in by_address[address]
        assert 0 == named[-1].offset


@pytest.fixture(scope="module")
def in_rust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc here")
    folder = tmp_path_factory.mktemp("rust")
    (folder / "p.rs").write_text(
        "mod shapes { #[inline(never)] pub fn area(side: u64) -> u64 { side * std::hint::black_box(side) } }\n"
        'fn main() { println!("{}", shapes::area(std::env::args().count() as u64)); }\n'
    )
    run(rustc, "-g", "-O", "-o", folder / "p", folder / "p.rs")
    return folder / "p"


def test_rust_names_are_as_in_the_source(in_rust: Path) -> None:
    start, _ = next(place for name, place in symbols_of(in_rust).items() if "shapes" in name and "area" in name)
    [named] = names(in_rust, [start])
    assert isinstance(named, tuple)
    assert ("p::shapes::area", 1) == (named[-1].function, named[-1].line)


IN_GO = """package main

type counter struct{ n int }

//go:noinline
func (c *counter) add(x int) int { c.n += x; return c.n }

//go:noinline
func cold(x int) int { return (&counter{x}).add(1) }

func main() { println(cold(3)) }
"""


@pytest.mark.slow
def test_go_functions_keep_names_that_look_like_marks(tmp_path: Path) -> None:
    """In Go `main.cold` is a function of its own, not the cold part of main."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go here")
    (tmp_path / "main.go").write_text(IN_GO)
    environment = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOCACHE": str(tmp_path / "cache")}
    subprocess.run([go, "build", "-o", "program", "main.go"], cwd=tmp_path, env=environment, check=True, timeout=300)
    symbols = symbols_of(tmp_path / "program")
    wanted = {"main.(*counter).add": 6, "main.cold": 9, "main.main": 11}
    found = names(tmp_path / "program", [symbols[name][0] for name in wanted])
    assert [[(name, line)] for name, line in wanted.items()] == [[(call.function, call.line) for call in named] for named in found]


def test_what_was_not_added_or_not_found_is_unnamed() -> None:
    with Symbolizer() as symbolizer:
        symbolizer.add("none", None)
        symbolizer.add("gone", Reason.FILE_UNREACHABLE.because("no such file"))
        assert [Unnamed(Reason.UNKNOWN_FILE)] == symbolizer.names("none", [1]) == symbolizer.names("never added", [1])
        assert [Unnamed("the file cannot be opened: no such file")] * 2 == symbolizer.names("gone", [1, 2])
        assert "gone" in symbolizer
        assert "never added" not in symbolizer


def test_a_key_that_is_added_again_has_its_new_file(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2", "-g")
    start, _ = symbols_of(path)["main"]
    with Symbolizer() as symbolizer:
        for key in ("a", "b", "a"):
            symbolizer.add(key, opened(path if key == "a" else "/bin/bash"))
            symbolizer.names(key, [start], stated=True)
        symbolizer.add("a", None)
        symbolizer.add("c", opened(path))
        [[main], [gone]] = (symbolizer.names(key, [start], stated=True) for key in ("c", "a"))
        assert isinstance(main, tuple)
        assert ("main", Unnamed(Reason.UNKNOWN_FILE)) == (main[-1].function, gone)
        assert symbolizer.names("b", [start], stated=True) != [main]


def test_another_build_at_the_path_is_not_believed() -> None:
    with Symbolizer() as symbolizer:
        symbolizer.add("ls", opened("/bin/ls", "c0ffee"))
        assert [Unnamed(Reason.OTHER_BUILD)] == symbolizer.names("ls", [0x4000])


def test_more_files_than_a_worker_keeps_open_are_named(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2", "-g")
    start, _ = symbols_of(path)["main"]
    with Symbolizer() as symbolizer:
        for key in range(40):
            symbolizer.add(key, opened(path))
        for key in [*range(40), *range(40)]:
            [named] = symbolizer.names(key, [start], stated=True)
            assert isinstance(named, tuple)
            assert "main" == named[-1].function


@given(st.binary(max_size=300))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_reason(data: bytes) -> None:
    with Symbolizer() as symbolizer:
        symbolizer.add("bytes", OpenFile.of_bytes(data, "bytes"))
        [named] = symbolizer.names("bytes", [64])
        assert isinstance(named, Unnamed)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=64))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_gives_names_or_reasons(programs: Programs, damage: list[tuple[int, int]]) -> None:
    """The damage goes into the debugging information too; a worker may die of it, the symbolizer may not."""
    data = bytearray(programs.build("inlined.cc", "-O2", "-g").read_bytes())
    for position, value in damage:
        data[position % len(data)] = value
    with Symbolizer(timeout=20) as symbolizer:
        symbolizer.add("damaged", OpenFile.of_bytes(bytes(data), "damaged"))
        symbolizer.add("whole", opened("/bin/bash"))
        assert 3 == len(symbolizer.names("damaged", [0x1100, 0x1200, 1 << 63]))
        assert 1 == len(symbolizer.names("whole", [0x40000]))

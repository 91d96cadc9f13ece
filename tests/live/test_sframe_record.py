"""The kernel's walk through SFrame: a thousand frames as gdb sees them, and system programs through .sframe alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from live.recorded import PROGRAM, record, rows
from peer_stacks import gdb_stacks
from sframe_toolchain import Toolchain

from unspool.cli.main import main
from unspool.formats.elf import Elf

pytestmark = pytest.mark.live

SPIN = """
#include <stdio.h>
static volatile unsigned long sink;
__attribute__((noinline)) unsigned long work(void) {
    puts("ready");
    fflush(stdout);
    for (;;) sink++;
}
__attribute__((noinline)) unsigned long down(int n) {
    if (!n) return work();
    unsigned long below = down(n - 1);
    sink += below;
    return below;
}
int main(void) { return (int)down(1000); }
"""


def test_a_thousand_frames_through_sframe_are_gdbs(toolchain: Toolchain, tmp_path: Path) -> None:
    """The callers, address by address; the innermost frame spins."""
    program = toolchain.build(SPIN, "x86_64")
    output = tmp_path / "r.unspool"
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            done = record("-p", process.pid, "-F", 199, "-d", 1, "-o", output)
            assert done.returncode == 0, done.stderr
            (expected,) = gdb_stacks(process.pid).values()
        finally:
            process.kill()
    sql = "SELECT k.stack, k.stop, k.frames[k.kernel_frames + 2:] FROM stacks k WHERE k.ending = 'whole' AND k.verdict = 'reliable'"
    found = rows(output, sql)
    assert found
    address = dict(rows(output, "SELECT frame, address FROM frames"))
    trust = dict(rows(output, "SELECT frame, trust FROM frames"))
    for _, stop, frames in found:
        assert expected[1:] == [address[frame] for frame in frames]
        assert stop == "end-process-entry"
        assert sum(trust[frame] == "sframe" for frame in frames) > 1000


def test_system_programs_are_recorded_through_sframe_alone(tmp_path: Path) -> None:
    """Perl and the libraries it loads, converted: with CFI left out the stacks are whole, and mean the same functions."""
    for file in (
        "/usr/bin/perl",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/x86_64-linux-gnu/libcrypt.so.1",
    ):
        assert 0 == main(["sframe", "make", file, "-o", str(tmp_path / Path(file).name)])
    work = "my $t = time + 2; my %h; while (time < $t) { $h{$_ % 97} .= 'x' for 1 .. 500; my @k = sort keys %h; %h = () }"
    command = ["--", "env", f"LD_LIBRARY_PATH={tmp_path}", str(tmp_path / "perl"), "-e", work]
    outermost = []
    for method in ("sframe", "dwarf"):
        output = tmp_path / f"{method}.unspool"
        done = record("--call-graph", method, "-F", 299, "-o", output, *command)
        assert done.returncode == 0, done.stderr
        perl = "FROM samples s JOIN processes p USING (process) JOIN stacks k USING (stack) WHERE p.comm = 'perl' AND k.ending <> 'none'"
        ((samples, whole),) = rows(output, f"SELECT count(*), count(*) FILTER (WHERE k.ending = 'whole') {perl}")
        assert samples > 20
        # ld.so at the start was not converted: its samples end for want of unwind data through SFrame alone.
        assert whole > 0.8 * samples
        trusts = {trust for (trust,) in rows(output, "SELECT DISTINCT trust FROM frames WHERE space = 'user'")}
        assert {"registers", "sframe" if method == "sframe" else "cfi"} == trusts
        names = dict(rows(output, "SELECT frame, arg_max(function, depth) FROM symbols GROUP BY frame"))
        stacks = rows(output, f"SELECT DISTINCT k.frames[len(k.frames) - 3:] {perl} AND k.ending = 'whole' AND len(k.frames) > 8")
        outermost.append({tuple(names.get(frame, "?") for frame in frames) for (frames,) in stacks})
    assert ("main", "__libc_start_call_main", "__libc_start_main_impl", "_start") in outermost[0] & outermost[1]


def test_a_section_that_breaks_a_rule_is_left_alone_and_named(toolchain: Toolchain, tmp_path: Path) -> None:
    """The unsorted flag: stacks come from the CFI, and the report says which file and why."""
    program = toolchain.build(SPIN, "x86_64")
    data = bytearray(program.read_bytes())
    place = Elf(program.read_bytes()).section(".sframe")
    assert place is not None
    data[place.offset + 3] = 4
    broken = tmp_path / "broken"
    broken.write_bytes(data)
    broken.chmod(0o755)
    output = tmp_path / "r.unspool"
    done = record("-F", 199, "-d", 2, "-o", output, "--", broken)
    assert done.returncode == 0, done.stderr
    assert {("cfi",), ("registers",)} >= set(rows(output, "SELECT DISTINCT trust FROM frames WHERE space = 'user'"))
    assert rows(output, "SELECT 1 FROM stacks WHERE ending = 'whole' AND verdict = 'reliable'")
    report = subprocess.run([*PROGRAM, "report", output], capture_output=True, text=True, check=True).stdout
    assert f"SFrame    not used of {broken}: flags 0x4" in report

"""The whole machine under 500 short-lived programs: every sample accounted for, their stacks whole, their names known."""

from __future__ import annotations

from pathlib import Path

import pytest
from live.recorded import counters, record, rows

pytestmark = pytest.mark.live

# Four programs a round. /bin/true, because a shell has its own; each in the background of nobody, one after the other.
ROUNDS = 125
SCRIPT = f"""
i=0
while [ $i -lt {ROUNDS} ]; do
  ls -l / >/dev/null
  /bin/true
  gcc -c "$1" -o "$2"
  perl -e '$x{{$_}} = 1 for 1 .. 2000'
  i=$((i + 1))
done
"""
SOURCE = "int square(int x) { return x * x; }\nint main(void) { return square(3) - 9; }\n"
PROGRAMS = ("ls", "true", "gcc", "cc1", "as", "perl")

# The descendants of the script, and what their samples came to.
OURS = """
    WITH RECURSIVE ours AS (
        SELECT process, pid FROM processes WHERE pid = {root}
        UNION SELECT p.process, p.pid FROM processes p JOIN ours o ON p.parent = o.pid
    )
    SELECT p.comm, p.exe, k.stop, k.ending, count(*)
    FROM samples JOIN ours USING (process) JOIN processes p USING (process) JOIN stacks k USING (stack)
    GROUP BY ALL
"""


def test_five_hundred_short_programs(tmp_path: Path) -> None:
    source, output = tmp_path / "a.c", tmp_path / "out.unspool"
    source.write_text(SOURCE, encoding="utf-8")
    done = record("-a", "-F", 999, "-o", output, "--", "sh", "-c", "echo $$; " + SCRIPT, "sh", source, tmp_path / "a.o")
    assert 0 == done.returncode, done.stderr

    counted = counters(output)
    lost = sum(value for name, value in counted.items() if name.startswith("lost"))
    assert counted["samples"] == counted["emitted"] + lost
    assert [(counted["emitted"], counted["emitted"])] == [(counted["stored"], rows(output, "SELECT count(*) FROM samples")[0][0])]
    # Events may be lost on a machine that stands still; they are told, and then /proc was read again.
    assert counted["events-lost"] >= 0

    found = rows(output, OURS.format(root=int(done.stdout.split()[0])))
    named = {comm for comm, *_ in found}
    assert set(PROGRAMS) <= named
    assert all(exe for comm, exe, *_ in found if comm in PROGRAMS)
    # A thread that has given its memory back on its way out has no user stack any more.
    ran = [row for row in found if row[0] in PROGRAMS and row[2] not in {"exited", "no-user-stack"}]
    samples = sum(row[-1] for row in ran)
    whole = sum(row[-1] for row in ran if row[3] == "whole")
    assert samples > 500
    assert whole >= 0.9 * samples, sorted(ran, key=lambda row: -row[-1])


def test_functions_of_programs_that_are_gone_have_names(tmp_path: Path) -> None:
    output = tmp_path / "out.unspool"
    record(
        "-a",
        "-F",
        1999,
        "-o",
        output,
        "--",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10; do perl -e '$x{$_} = 1 for 1 .. 20000'; done; true",
    )
    sql = """
        SELECT count(*), count(*) FILTER (WHERE symbol_state = 'named') FROM (
            SELECT DISTINCT unnest(k.frames[k.kernel_frames + 1:]) AS frame
            FROM samples JOIN processes p USING (process) JOIN stacks k USING (stack) WHERE p.comm = 'perl'
        ) JOIN frames USING (frame) JOIN modules USING (module) WHERE path LIKE '%/perl'
    """
    [(frames, named)] = rows(output, sql)
    # Debian's perl keeps its dynamic symbols; a few static functions have none.
    assert 0 < frames
    assert named > 0.5 * frames

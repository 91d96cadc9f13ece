"""The conversion in columns gives what the one by one gives: the same functions and rows, and the same list of what cannot be said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unspool.formats.elf import Elf
from unspool.formats.sframe import Abi, decode
from unspool.native import frame_rows as native
from unspool.toolkit.bulk import lay_out
from unspool.toolkit.convert import convert
from unspool.toolkit.make import frame_section

FOLDER = Path("/lib/x86_64-linux-gnu")
FILES = [
    "/usr/bin/ls",
    "/usr/bin/perl",
    "/usr/bin/gdb",
    *(str(FOLDER / name) for name in ("libc.so.6", "libstdc++.so.6", "ld-linux-x86-64.so.2")),
]
FILES.append("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")
ADDRESS = 0x10000000


@pytest.mark.parametrize("file", FILES)
def test_columns_say_what_the_functions_say(file: str) -> None:
    path = Path(file)
    if not path.exists():
        pytest.skip(f"{file} is not installed")
    elf = Elf(path.read_bytes(), file=file)
    section = elf.section(".eh_frame")
    assert section is not None
    laid = lay_out(frame_section(elf), elf.data(section), ADDRESS)
    assert laid is not None
    expected = convert(frame_section(elf).fdes(), Abi.AMD64_LITTLE)
    found = decode(laid.section, ADDRESS)
    assert tuple(sorted(expected.fdes, key=lambda fde: fde.start)) == found.fdes
    assert {skipped for skipped in expected.skipped if skipped.end > skipped.start} == set(laid.skipped)
    assert laid.rows == sum(len(fde.fres) for fde in found.fdes) == found.header.num_fres


def test_a_broken_section_is_left_to_the_other_way() -> None:
    elf = Elf(Path("/usr/bin/ls").read_bytes())
    section = elf.section(".eh_frame")
    assert section is not None
    data = bytearray(elf.data(section))
    data[4:8] = b"\xff\xff\xff\xef"
    assert native.frame_rows(bytes(data), section.address) is None
    assert native.frame_rows(b"", 0x1000) is not None


def test_the_row_has_the_headers_layout(tmp_path: Path) -> None:
    """Offsets as the compiler sees them."""
    header = Path(__file__).parents[2] / "native" / "frame_rows.h"
    names = [name for name, _ in native.FIELDS]
    prints = "".join(f'printf("%zu\\n", offsetof(struct frame_row, {name}));' for name in names)
    source = f'#include <stddef.h>\n#include <stdio.h>\n#include "{header}"\nint main(void) {{ {prints} return 0; }}\n'
    (tmp_path / "layout.c").write_text(source, encoding="utf-8")
    subprocess.run(["gcc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True, capture_output=True)
    text = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    import numpy as np

    fields = np.dtype(list(native.FIELDS)).fields
    assert fields is not None
    assert [fields[name][1] for name in names] == [int(line) for line in text.split()]

"""Every row of an .eh_frame section at once, from the C library: for tools that convert whole files of x86-64."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from unspool.native.library import load

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FIELDS = (
    *(
        ("entry", "<u8"),
        ("function", "<u8"),
        ("function_end", "<u8"),
        ("start", "<u8"),
        ("cfa_offset", "<i4"),
        ("fp_offset", "<i2"),
        ("ra_offset", "<i2"),
    ),
    *((name, "u1") for name in ("cfa_base", "cfa_deref", "fp_kind", "fp_base", "ra_kind", "ra_base", "plain", "spare")),
)
"""`struct frame_row` of native/frame_rows.h."""

SAME, AT_CFA, AT_REGISTER, UNDEFINED = 0, 1, 3, 5
"""`enum rule_kind` of native/row.h, as far as plain rows have them."""


def frame_rows(section: bytes, address: int) -> npt.NDArray[np.void] | None:
    """The rows in the section's order, fields as in FIELDS; None when the section is broken. Unsupported when the library is not built.

    The rule of a row whose `plain` is 0 is not in it: its function needs the Python interpreter.
    """
    import numpy as np

    call = load().unspool_frame_rows
    call.restype = ctypes.c_int64
    call.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    # A row costs at least two bytes: an advance and what changes.
    rows = np.zeros(len(section) // 2 + 1, dtype=np.dtype(list(FIELDS)))
    count = call(section, len(section), address, rows.ctypes.data, len(rows))
    return None if count < 0 else rows[:count]

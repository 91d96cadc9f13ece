"""DWARF call frame information: sections, search tables, programs and expressions (DWARF 5 section 6.4; LSB 5.0 section 10.6)."""

from __future__ import annotations

from unspool.formats.dwarf.budget import Budget, OverBudget
from unspool.formats.dwarf.cfi import Cie, Fde, FrameSection
from unspool.formats.dwarf.hdr import SearchTable
from unspool.formats.dwarf.program import CfaRule, How, RegisterRule, Row, row_at, rows

__all__ = [
    "Budget",
    "CfaRule",
    "Cie",
    "Fde",
    "FrameSection",
    "How",
    "OverBudget",
    "RegisterRule",
    "Row",
    "SearchTable",
    "row_at",
    "rows",
]

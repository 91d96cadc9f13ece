"""Rules out of .eh_frame and .debug_frame."""

from __future__ import annotations

from unspool.errors import BadInput
from unspool.formats.dwarf import Budget, OverBudget, row_at
from unspool.model.arch import Arch
from unspool.model.module import Mapping
from unspool.model.verdict import Stop
from unspool.unwind.image import Images
from unspool.unwind.rule import Miss, Rule, rule_of


def rule_at(images: Images, mapping: Mapping, pc: int, arch: Arch, budget: Budget | None = None) -> Rule | Miss:
    """The rule for a lookup address of the mapping: NO_UNWIND_INFO, BAD_CFI or PARSE_BUDGET when there is none."""
    try:
        fde = images.find(mapping, pc)
        if fde is None:
            return Miss(Stop.NO_UNWIND_INFO)
        row = row_at(fde, pc, budget)
    except OverBudget as error:
        return Miss(Stop.PARSE_BUDGET, str(error))
    except BadInput as error:
        return Miss(Stop.BAD_CFI, str(error))
    if row is None:
        return Miss(Stop.NO_UNWIND_INFO)
    return rule_of(row, fde, arch)

"""How every text says a share."""

from __future__ import annotations


def percent(part: float, whole: float = 1.0) -> str:
    """A share in per cent to one decimal; what rounding would make nothing, or all, is said as what it is: at most eight characters.

    >>> percent(1, 3), percent(3, 3), percent(0, 3), percent(0, 0)
    ('33.3 %', '100.0 %', '0.0 %', '-')
    >>> percent(1, 100_000), percent(99_999, 100_000), percent(0.5)
    ('< 0.1 %', '> 99.9 %', '50.0 %')
    """
    if not whole:
        return "-"
    share = part / whole
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"

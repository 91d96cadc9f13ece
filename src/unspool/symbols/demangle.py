"""Names as the programmer wrote them: C++, Rust, Swift and D names decoded, marks of compilers taken off."""

from __future__ import annotations

import re

# What GCC and LLVM append to the name of a part or a copy of a function.
_CLONE = re.compile(r"(\.(cold|localalias)(\.\d+)*|\.(part|constprop|isra|lto_priv|llvm|__uniq)(\.\d+)+)+$")
_MARK = re.compile(r"\.[a-z_]+(?:\.\d+)*")
_MANGLED = ("_Z", "__Z", "_R", "___Z", "$s", "$S", "_T0")
_MAX_MANGLED = 1 << 14


def without_clone_mark(name: str) -> str:
    """The function that a part of it or a copy of it was made from.

    >>> without_clone_mark("round_and_return.part.0.constprop.0"), without_clone_mark("a.cold")
    ('round_and_return', 'a')
    """
    return _CLONE.sub("", name) or name


def demangled(name: str) -> str:
    """The name decoded; itself when it is in no known encoding or its encoding is broken. Marks of clones follow, as binutils write them.

    >>> demangled("_ZN3foo3barEi"), demangled("main"), demangled("_ZN3foo3barEi.part.0.cold")
    ('foo::bar(int)', 'main', 'foo::bar(int) [clone .part.0] [clone .cold]')
    """
    if not name.startswith(_MANGLED) or len(name) > _MAX_MANGLED:
        return name
    try:
        import pydemumble
    except ImportError:
        return name
    marks = _CLONE.search(name)
    decoded: str = pydemumble.demangle(name[: marks.start()] if marks else name)
    if not decoded:
        return name
    return decoded + "".join(f" [clone {mark}]" for mark in _MARK.findall(marks[0]) if not mark.startswith(".llvm")) if marks else decoded

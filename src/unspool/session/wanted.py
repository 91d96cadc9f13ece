"""Whether a symbol is the function that a user named: mangled or decoded, with or without parameters, whole or a part of it."""

from __future__ import annotations

import re
from functools import cached_property

from unspool.symbols.demangle import demangled, without_clone_mark

# What may follow a parameter list: qualifiers and ABI tags. Demanglers write the mark of a copy behind it.
_AFTER_PARAMETERS = re.compile(r"( const| volatile| &{1,2}| noexcept|\[abi:\w+\])*")
_COPY = re.compile(r"( \[clone [^\]]*\]| \(\.[.\w]+\))+$")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_MANGLED = ("_Z", "_R", "$s", "$S")


class Wanted:
    """A function by the name that a user gave.

    A name with parameters means that function; one without means all its overloads, as one without template arguments means all
    instances. Copies and parts that the compiler made (`.cold`, `.part.0`, `.constprop.0`, `.isra.0`) are the function, too.

    >>> Wanted("tree::visit").matches("_ZN4tree5visitEi"), Wanted("visit").matches("_ZN4tree5visitEi")
    (True, False)
    """

    def __init__(self, name: str) -> None:
        """Take the name."""
        self.name = name
        self._shown = _unspaced(demangled(name))

    def matches(self, function: str) -> bool:
        """Whether a symbol of that name, mangled or decoded, is the function."""
        plain = without_clone_mark(function)
        if plain == self.name:
            return True
        shown = _COPY.sub("", demangled(plain))
        return self._shown in {_unspaced(name) for name in spellings(shown)}

    @cached_property
    def identifier(self) -> bytes:
        """A piece that every symbol name of the function holds, mangled or not; empty when there is none (operators)."""
        if self.name.startswith(_MANGLED):
            return self.name.encode()
        last = _without_templates(without_parameters(self.name)).split("::")[-1]
        if "operator" in last:
            return b""
        found = _IDENTIFIER.findall(last)
        return found[-1].encode() if found else b""


def spellings(shown: str) -> set[str]:
    """The ways in which a user may write a decoded name: as it is; then less and less of parameters, return type, template arguments.

    >>> sorted(spellings("long tree::catching<int>(int&&)"))
    ['long tree::catching<int>(int&&)', 'tree::catching', 'tree::catching<int>', 'tree::catching<int>(int&&)']
    """
    bare = without_parameters(shown)
    parameters = shown[len(bare) :]
    named = _without_return_type(bare)
    return {shown, named + parameters, named, _without_templates(named), _RUST_HASH.sub("", named)}


def without_parameters(shown: str) -> str:
    """The name up to its parameter list.

    >>> without_parameters("a::operator()(int) const"), without_parameters("(anonymous namespace)::f")
    ('a::operator()', '(anonymous namespace)::f')
    """
    end = shown.rfind(")")
    if end < 0 or not _AFTER_PARAMETERS.fullmatch(shown, end + 1):
        return shown
    depth = 0
    for index in range(end, -1, -1):
        depth += (shown[index] == ")") - (shown[index] == "(")
        if depth == 0:
            return shown[:index]
    return shown


def _without_return_type(bare: str) -> str:
    """The name without what stands before its last blank outside of brackets."""
    if "operator" in bare:
        return bare
    depth = 0
    for index in range(len(bare) - 1, -1, -1):
        depth += (bare[index] in ">)}]") - (bare[index] in "<({[")
        if depth == 0 and bare[index] == " ":
            return bare[index + 1 :]
    return bare


def _without_templates(named: str) -> str:
    """The name without its template arguments; operators keep their signs."""
    if "operator" in named:
        return named
    kept = []
    depth = 0
    for character in named:
        depth += character == "<"
        if depth == 0:
            kept.append(character)
        depth -= character == ">" and depth > 0
    return "".join(kept)


def _unspaced(name: str) -> str:
    return name.replace(" ", "")

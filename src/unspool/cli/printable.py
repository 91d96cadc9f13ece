"""Text of hostile origin (names of symbols, files, threads) made fit for a terminal."""

from __future__ import annotations

import unicodedata

# Cc: C0 and C1 controls; Cf: format characters, those that reverse the writing direction among them; Zl, Zp: separators of lines;
# Cs: bytes that are no UTF-8 (surrogateescape), which stdout would refuse.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_LONGEST = 4096


def printable(text: str) -> str:
    r"""The text with every character escaped that would move the cursor, change colours or the writing direction; a very long one is cut.

    >>> printable("\x1b]0;owned\a main")
    '\\x1b]0;owned\\x07 main'
    """
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if unicodedata.category(character) in _ESCAPED else character for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if character != "\n" else "\\n"

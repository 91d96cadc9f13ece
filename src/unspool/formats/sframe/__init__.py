"""The SFrame format, versions 1 to 3: sections between bytes and values, and rows between words and rules."""

from __future__ import annotations

from unspool.formats.sframe.decode import decode, decode_all, decode_header
from unspool.formats.sframe.encode import encode
from unspool.formats.sframe.layout import Abi, Base, Fde, FdeType, Flag, Fre, FreType, Header, PcType, Section
from unspool.formats.sframe.rules import CFA, BadRow, FrameRule, Place, rule_of

__all__ = [
    "CFA", "Abi", "BadRow", "Base", "Fde", "FdeType", "Flag", "FrameRule", "Fre", "FreType", "Header", "PcType", "Place", "Section",
    "decode", "decode_all", "decode_header", "encode", "rule_of",
]  # fmt: skip

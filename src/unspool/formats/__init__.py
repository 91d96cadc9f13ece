"""Bytes to values and back: ELF, DWARF, SFrame, /proc texts. No I/O: bytes come in, values or BadInput go out."""

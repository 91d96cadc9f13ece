"""Addresses that say which kind they are, so that only a mapping converts one into another."""

from __future__ import annotations

from typing import NewType

Avma = NewType("Avma", int)
"""An actual virtual memory address: where a byte is in a running process (or a core)."""

Svma = NewType("Svma", int)
"""A stated virtual memory address: where the ELF file says the byte will be, before the load bias is added."""

FileOffset = NewType("FileOffset", int)
"""A byte's distance from the start of its file."""

"""Unspool: whole call stacks of running Linux programs, each with a verdict on whether it can be trusted.

    target -> registers, memory, mappings -> stack with verdict -> symbols -> profile -> store, exports, web
"""

from __future__ import annotations

__version__ = "0.1.0"

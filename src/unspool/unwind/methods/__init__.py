"""The ways to find a caller: each finds a rule, none reads a stack but the guesses."""

from __future__ import annotations

"""The reference unwinder: finds rules, applies them under guard, and judges the stack (docs/verdicts.md states the rules)."""

from __future__ import annotations

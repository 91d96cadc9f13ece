"""The C library through ctypes: the walk that also runs in the kernel, over any thread. Nothing is loaded before it is used."""

from __future__ import annotations

from unspool.native.library import LIBRARY, load
from unspool.native.walker import MAX_FRAMES, Walker, walk

__all__ = ["LIBRARY", "MAX_FRAMES", "Walker", "load", "walk"]

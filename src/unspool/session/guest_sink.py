"""Where the samples of guests go: what a recording and a live view have in common."""

from __future__ import annotations

from typing import Protocol

from unspool.model.guest import Guest
from unspool.model.module import ModuleKind
from unspool.model.symbol import Named
from unspool.model.verdict import Judgement, Stop, Trust


class GuestSink(Protocol):
    """Where the rows go: `store.writer.Writer`, or `session.windows.Windows`, which say what they mean."""

    def guest(self, guest: Guest) -> int:
        """A guest between two boots."""

    def process(
        self, pid: int, start_ns: int, comm: str, exe: str | None = None, parent: int | None = None, *, guest: int | None = None
    ) -> int:
        """A program of a process."""

    def thread(self, process: int, tid: int, comm: str) -> int:
        """A thread."""

    def module(self, path: str, build_id: str = "", kind: ModuleKind = "file", *, guest: int | None = None) -> int:
        """A file."""

    def frame(self, module: int | None, address: int, offset: int | None, space: str, trust: Trust) -> int:
        """A place in code."""

    def stack(  # noqa: D102 (the next line's words)
        self,
        frames: tuple[int, ...],
        kernel_frames: int,
        stop: Stop,
        stop_module: int | None,
        judgement: Judgement,
        *,
        kernel_whole: bool | None = None,
    ) -> int: ...

    def sample(  # noqa: D102, PLR0913, PLR0917
        self,
        time_ns: int,
        process: int,
        thread: int,
        cpu: int,
        trigger: str,
        detail: str,
        weight: int,
        stack: int,
        *,
        vcpu: int | None = None,
    ) -> None: ...

    def name(self, frame: int, named: Named) -> None:
        """A frame's names."""

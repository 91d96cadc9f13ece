"""A recording with a live page: what is committed goes there too, names come as they are found, sampling stops and starts on its word."""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from unspool.capture.command import Command
from unspool.capture.frames import Place
from unspool.session.live_feed import Feed, forked
from unspool.session.live_names import LiveNames
from unspool.session.recording import Plan, Recording, Show
from unspool.session.recording_names import by_source, name_frames, source
from unspool.session.sframe_notes import refused_sections
from unspool.store import wire
from unspool.symbols.symbolizer import Symbolizer

if TYPE_CHECKING:
    from unspool.store.header import Header
    from unspool.store.writer import Writer
    from unspool.web.serving import Place as Address


class LivePage:
    """The page of a recording that is about to begin. As a context manager it ends the page's process on the way out."""

    def __init__(self, name: str, address: Address, owner: tuple[int, int] | None, ready: Callable[[str], None]) -> None:
        """Listen (BadRequest when that cannot be), and fork the process that answers; there `ready` is called with the address to open."""
        from unspool.web.serving import listen

        with listen(address) as bound:
            self.feed = forked(functools.partial(_serve, bound, name, address, owner, ready), bound)
        self._recording: LiveRecording | None = None
        self._lingers = False
        self._asked = False
        self._before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = signal.SIG_IGN

    def make(self, plan: Plan, command: Command | None, held: contextlib.ExitStack) -> Recording:
        """The recording that feeds the page: for `session.recording.record`."""
        self._recording = LiveRecording(plan, command, held, self.feed)
        return self._recording

    def linger(self) -> None:
        """Keep the page until Ctrl-C; not at all when that came since the recording was finished."""
        with contextlib.suppress(KeyboardInterrupt):
            self._lingers = True
            if not self._asked:
                self.feed.flush()
                self.feed.linger()
        self._lingers = False

    def __enter__(self) -> Self:
        """The page. Once it says that the recording is finished, Ctrl-C ends it, whatever is being closed at that moment."""
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        signal.signal(signal.SIGINT, self._before)
        self.feed.close()

    def _caught(self, _: int, __: FrameType | None) -> None:
        if self._lingers or self._recording is None or not self._recording.finished:
            raise KeyboardInterrupt
        self._asked = True


def _serve(
    bound: socket.socket,
    name: str,
    address: Address,
    owner: tuple[int, int] | None,
    ready: Callable[[str], None],
    channel: socket.socket,
) -> None:
    from unspool.symbols.uploaded import UploadedFile
    from unspool.web.live_serving import Pipes, serve_live

    serve_live(Pipes(channel, bound), name, address, owner, ready, UploadedFile)


class LiveRecording(Recording):
    """A recording whose rows go to a page as well."""

    def __init__(self, plan: Plan, command: Command | None, held: contextlib.ExitStack, feed: Feed) -> None:
        """Open everything; the page sees the recording from its first commit on."""
        self.finished = False
        self._feed = feed
        self._on = True
        self._said = False
        self._seen: list[Place] = []
        super().__init__(plan, command, held)
        self._symbolizer = held.enter_context(contextlib.closing(Symbolizer()))
        self._names = LiveNames(self.recorder.perf_maps, self._symbolizer)
        held.callback(self._names.close)

    def finish(self, show: Show) -> None:
        """Name what has no name yet, and close the file; the page stays."""
        try:
            super().finish(show)
        finally:
            self.finished = True
            self._say(finished=True)

    def sample(self, *, on: bool) -> None:
        """Take samples, or take none: the programs are detached from the kernel's events."""
        if on == self._on:
            return
        if on:
            self.sampler.start()
        else:
            self.sampler.stop()
            self.sampler.flush()
        if self.guests is not None:
            self.guests.sample(on=on)
        self._on = on
        self._say()

    def _open(self, header: Header) -> Writer:
        from unspool.store.feed import FeedingWriter

        return FeedingWriter(self.plan.output, header, self._feed.rows, replace=self.plan.replace, later=True)

    def _step(self) -> None:
        super()._step()
        if not self._said:
            self._say()
        word = self._feed.attend()
        if word:
            self.sample(on=word == wire.START)

    def _commit(self) -> None:
        self._names.give(self.writer)
        super()._commit()
        fresh = self.recorder.frames.take_unnamed()
        self._seen += fresh
        self._names.take(fresh)
        if self.guests is not None:
            # Two guests may have one file, and the next may have more of it in its memory.
            self._names.take(self.guests.unnamed(self._symbolizer), patient=True)
        self._say()

    def _name(self) -> Iterator[tuple[int, int]]:
        left = self._names.stop(self.writer)
        fresh = self.recorder.frames.take_unnamed()
        self.writer.machine(refused_sections([*self._seen, *fresh]))
        for key, group in by_source(left).items():
            if group[0].kind == "jit":
                self._symbolizer.add(key, source(group[0], self.recorder.perf_maps))
        if self.guests is not None:
            fresh += self.guests.unnamed(self._symbolizer, last=True)
        yield from name_frames([*left, *fresh], self.recorder.perf_maps, self.writer, self._symbolizer)

    def _say(self, *, finished: bool = False) -> None:
        self._said = True
        header = self.writer.header
        self._feed.state(
            started_ns=header.started_ns,
            monotonic_ns=header.monotonic_ns,
            recorded_s=self.progress.seconds,
            sampling=self._on and not finished,
            finished=finished,
        )

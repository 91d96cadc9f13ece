"""Files sent by the page to name addresses that have no name: parsed elsewhere (a `Namer`), used for what is shown, and never kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from unspool.errors import BadRequest, UnspoolError
from unspool.model.symbol import Named, Unnamed
from unspool.profile.columns import NO_OFFSET, Profile
from unspool.web.app import Views, query_of
from unspool.web.names import Added, Key, bare_frames
from unspool.web.opened import Opened
from unspool.web.query import Query

if TYPE_CHECKING:
    Json = dict[str, object]

MOST_BYTES = 1 << 30
"""Of a file that is sent."""
MOST_NAME = 200
KERNEL = "kernel"
_CODE_STARTS = "Give `base`, where the kernel that was recorded begins (`sudo grep ' _text$' /proc/kallsyms`), or send its /proc/kallsyms."


class NamedFile(Protocol):
    """A file that was sent: `symbols.uploaded.UploadedFile`, or a fake."""

    kind: str
    build_id: str
    base: int | None

    def names(self, addresses: Sequence[int], *, stated: bool) -> list[Named]:
        """For each address its function; BadInput when the file is broken."""

    def close(self) -> None:
        """End its parser."""


class Namer(Protocol):
    """Makes a `NamedFile` of a descriptor; BadInput for a file that gives no names."""

    def prepare(self) -> None:
        """Import what is imported late: called before privileges are given up."""

    def __call__(self, descriptor: int) -> NamedFile:
        """Look at the file, in a process that can do nothing else."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came with a file: the name to show, the module it is for ("": by build id), and where the kernel's code was, if that is said."""

    name: str
    module: str = ""
    base: int | None = None


class Uploads:
    """Takes files, one at a time."""

    def __init__(self, views: Views, namer: Namer) -> None:
        """Names go to these views."""
        self._views = views
        self._namer = namer
        self._busy = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """The address that takes them."""
        return [Route("/api/names", self.answer, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """Take the body as a file; 413 when it is too large, 503 while another one is read, 400 with the reason when it gives no names."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MOST_BYTES:
            return _too_large()
        if self._busy.locked():
            return _said(503, "another file is being read", "Try again in a moment.")
        async with self._busy:
            try:
                query = query_of(request)
                query.check(("file", "module", "name", "base"))
                sent = Sent(query.one("name", "a file")[:MOST_NAME], query.one("module"), _base(query))
                number = query.number("file", 0, 0, len(self._views.opened) - 1)
                with _anonymous() as file:
                    if not await _received(request, file):
                        return _too_large()
                    found = await run_in_threadpool(self._take, file.fileno(), number, sent)
            except UnspoolError as error:
                return _said(400, str(error), error.hint)
        return Response(json.dumps(found), media_type="application/json")

    def _take(self, descriptor: int, number: int, sent: Sent) -> Json:
        if os.fstat(descriptor).st_size == 0:
            raise BadRequest("the file is empty")
        with contextlib.closing(self._namer(descriptor)) as file:
            added = looked_up(self._views.opened[number], file, sent)
        self._views.add_names(number, added)
        return {"version": self._views.version, "modules": list(added.modules), "asked": added.asked, "named": len(added.names)}


def _anonymous() -> IO[bytes]:
    """A file without a name, on disk where that is possible."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return os.fdopen(os.memfd_create("upload", os.MFD_CLOEXEC), "w+b")


async def _received(request: Request, file: IO[bytes]) -> bool:
    """Whether the whole body is in the file; it is not when it is too large, or its sender went away."""
    size = 0
    with contextlib.suppress(ClientDisconnect):
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                return False
            await run_in_threadpool(file.write, part)
        file.flush()
        return True
    return False


def looked_up(opened: Opened, file: NamedFile, sent: Sent) -> Added:
    """The names that the file has for addresses without one; BadRequest when it fits no module, or no one knows where its code was."""
    profile = opened.profile
    modules = _modules(profile, file, sent)
    frames, addresses = bare_frames(profile, modules)
    names: dict[Key, tuple[str, int]] = {}
    for module in modules:
        chosen = profile.modules[module]
        rows = [row for row in range(len(frames)) if int(profile.frames.module[frames[row]]) == module]
        asked = [_address(profile, int(frames[row]), int(addresses[row]), file, sent) for row in rows]
        for row, named in zip(rows, file.names(asked, stated=chosen.kind == KERNEL), strict=True):
            if not isinstance(named, Unnamed):
                frame = int(frames[row])
                key = (int(profile.frames.address[frame]), int(profile.frames.offset[frame]), chosen.path, chosen.build_id)
                names[key] = (named[-1].function, named[-1].offset)
    if not names:
        raise BadRequest(f"the file has no name for any of {len(frames)} addresses", hint=_why(file, len(frames)))
    return Added(sent.name, tuple(dict.fromkeys(profile.modules[module].path for module in modules)), len(frames), names)


def _why(file: NamedFile, asked: int) -> str:
    if not asked:
        return "All addresses of that module have names."
    if file.kind == "elf":
        return "A debug file does not say where its code lies in the program's file: send the program or library before it was stripped."
    return "Is it of another boot or another kernel? Its addresses must be those of the kernel that was recorded."


def _modules(profile: Profile, file: NamedFile, sent: Sent) -> list[int]:
    if sent.module:
        found = [number for number, module in enumerate(profile.modules) if module.path == sent.module]
        wrong = [number for number in found if file.build_id and profile.modules[number].build_id not in {"", file.build_id}]
        if not found:
            raise BadRequest(f"no module {sent.module!r}")
        if wrong:
            raise BadRequest(f"the file is another build than {sent.module}", hint=f"Its build id is {file.build_id}.")
        if file.kind != "elf" and any(profile.modules[number].kind != KERNEL for number in found):
            raise BadRequest("a list of symbols names the kernel's addresses only", hint="Send an ELF file for programs and libraries.")
        return found
    if file.kind == "elf":
        found = [number for number, module in enumerate(profile.modules) if file.build_id and module.build_id == file.build_id]
        if not found:
            raise BadRequest("no module has this file's build id", hint="Choose the module that it belongs to.")
        return found
    found = [number for number, module in enumerate(profile.modules) if module.kind == KERNEL]
    if not found:
        raise BadRequest("there are no addresses of the kernel")
    return found


def _address(profile: Profile, frame: int, address: int, file: NamedFile, sent: Sent) -> int:
    """The address to ask the file for. `address` is the frame's, or its offset in what has one."""
    kernel = profile.modules[int(profile.frames.module[frame])].kind == KERNEL
    if not kernel:
        return address
    if int(profile.frames.offset[frame]) != NO_OFFSET:
        if file.base is None:
            raise BadRequest("the list does not say where the kernel begins (_text)")
        return address + file.base
    if file.kind == "kallsyms":
        return address
    # As it was linked; the kernel moves itself when it boots (KASLR).
    if sent.base is None or file.base is None:
        raise BadRequest("the file does not say where the kernel was", hint=_CODE_STARTS)
    return max(0, address - sent.base + file.base)


def _base(query: Query) -> int | None:
    text = query.one("base")
    if not text:
        return None
    try:
        value = int(text, 16)
    except ValueError:
        raise BadRequest("base takes a number in hexadecimal") from None
    if not 0 <= value < 1 << 64:
        raise BadRequest("base takes an address")
    return value


def _too_large() -> Response:
    return _said(413, f"the file has more than {MOST_BYTES >> 20} MB", "")


def _said(status: int, error: str, hint: str) -> Response:
    return Response(json.dumps({"error": error, "hint": hint}), status, media_type="application/json")

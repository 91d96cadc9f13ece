"""Names out of a file that somebody hands us: an ELF file, or a kernel's list of symbols; parsed in a worker without privileges."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from typing import Any, Self

from unspool.errors import BadInput
from unspool.formats.kallsyms import MAX_SIZE, Kallsyms
from unspool.model.symbol import Named
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import checked_names
from unspool.symbols.worker import Handler, ParserDied, Worker

SECONDS = 60.0
"""How long the parser may take for an answer."""
_NUMBER = 1
_BATCH = 4096
_TEXT = "_text"
_ELF = b"\x7fELF"


class UploadedFile:
    """An open file that names are taken from. `build_id` is "" for what has none, `base` where its code begins, None when it does not say.

    `kind` is "elf", "kallsyms" (addresses of a running kernel) or "system-map" (addresses as it was linked).
    """

    def __init__(self, descriptor: int) -> None:
        """Look at the file, which stays the caller's; BadInput when it is none of the three, or its parser died of it."""
        self._worker = Worker(_prepare, timeout=SECONDS)
        try:
            is_elf = os.pread(descriptor, 4, 0) == _ELF
            facts = self._facts(["open", _NUMBER, ""] if is_elf else ["list", _NUMBER], descriptor)
            build_id, base = facts.get("build_id"), facts.get("base")
            self.build_id = build_id if isinstance(build_id, str) else ""
            self.base = base if isinstance(base, int) and 0 <= base < 1 << 64 else None
            runs = facts.get("modules") is True
            self.kind = "elf" if is_elf else "kallsyms" if runs else "system-map"
        except BaseException:
            self.close()
            raise

    @staticmethod
    def prepare() -> None:
        """Import what the worker needs, while the files can still be reached; what is imported here is there after the fork."""
        import unspool.sandbox  # noqa: F401

        # What the sandbox reads /proc with.
        codecs.lookup("ascii")
        _prepare()

    def names(self, addresses: Sequence[int], *, stated: bool) -> list[Named]:
        """For each address its function, or why there is none. Addresses of an ELF file are offsets in it, or with `stated` Svmas."""
        found: list[Named] = []
        for start in range(0, len(addresses), _BATCH):
            batch = [int(address) for address in addresses[start : start + _BATCH]]
            asked = ["names", _NUMBER, batch, stated, False] if self.kind == "elf" else ["find", _NUMBER, batch]
            answer = self._ask(asked)
            if isinstance(answer, dict):
                raise BadInput(_error(answer))
            try:
                found += checked_names(answer, len(batch))
            except ParserDied:
                raise BadInput(Reason.PARSER_DIED.value) from None
        return found

    def close(self) -> None:
        """End the parser; again is harmless."""
        self._worker.close()

    def __enter__(self) -> Self:
        """The file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _facts(self, request: list[Any], descriptor: int) -> dict[str, object]:
        facts = self._ask(request, [descriptor])
        if not isinstance(facts, dict) or "error" in facts:
            raise BadInput(_error(facts))
        return facts

    def _ask(self, request: list[Any], descriptors: Sequence[int] = ()) -> object:
        try:
            return self._worker.ask(request, descriptors)
        except ParserDied:
            raise BadInput(Reason.PARSER_DIED.value) from None


def _error(answer: object) -> str:
    said = answer.get("error") if isinstance(answer, dict) else None
    return said[:400] if isinstance(said, str) else Reason.BAD_FILE.value


def _prepare() -> Handler:
    """The parser's handler for ELF files, and one for lists.

    ["list", id] + descriptor   {"base", "modules"} or {"error"}
    ["find", id, addresses]     as "names"
    """
    from unspool.symbols import parser

    elf = parser.prepare(lines=False)
    lists: dict[int, Kallsyms] = {}

    def handle(request: list[Any], descriptors: list[int]) -> object:
        if request[0] == "list":
            try:
                text = _read(descriptors[0])
                lists[request[1]] = found = Kallsyms(text, file="the list")
            except BadInput as error:
                return {"error": str(error)}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if found.hidden:
                return {"error": "the list shows no addresses: read /proc/kallsyms as root"}
            return {"base": found.address(_TEXT), "modules": b"\t[" in text}
        if request[0] == "find":
            return [_found(lists[request[1]], address) for address in request[2]]
        return elf(request, descriptors)

    return handle


def _found(symbols: Kallsyms, address: int) -> str | list[list[Any]]:
    found = symbols.find(address)
    if found is None:
        return Reason.NO_KERNEL_SYMBOL.value
    name = f"{found.name} [{found.module}]" if found.module else found.name
    return [[name[:4096], address - found.address, None, None, False]]


def _read(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > MAX_SIZE:
        raise BadInput(f"{size} bytes are too much for a list of symbols")
    parts, at = [], 0
    while at < size and (part := os.pread(descriptor, 1 << 20, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)

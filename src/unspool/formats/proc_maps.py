"""The mappings of a process, read from the text of /proc/PID/maps (or smaps' headers: the same lines)."""

from __future__ import annotations

from unspool.errors import BadInput
from unspool.model.module import AddressSpace, Mapping

_DELETED = " (deleted)"
_MAX_ADDRESS = 1 << 64


def parse_maps(text: bytes | str, *, file: str = "") -> AddressSpace:
    r"""Every mapping of the text, sorted; BadInput with the offset of the first line that is none.

    Paths are as the kernel keeps them: the escape of a newline (`\012`, fs/seq_file.c) is undone, " (deleted)" moves into
    `Mapping.deleted`, bytes that are not UTF-8 are kept as surrogates (`os.fsencode` gives them back).
    A file whose own name ends in " (deleted)" or holds the four characters `\012` cannot be told apart: compare device and inode
    before it is believed.

    >>> [mapping] = parse_maps(b"7f10-7f20 r-xp 00001000 fe:00 42    /a b (deleted)\n")
    >>> mapping.path, mapping.deleted, mapping.offset, mapping.device
    ('/a b', True, 4096, (254, 0))
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    mappings = []
    offset = 0
    # Only the newline ends a line: a name may hold every other control character.
    for line in data.split(b"\n"):
        if line:
            mappings.append(_mapping(line, file, offset))
        offset += len(line) + 1
    return AddressSpace.of(mappings)


def _mapping(line: bytes, file: str, offset: int) -> Mapping:
    fields = line.split(None, 5)
    try:
        start, end = (int(number, 16) for number in fields[0].split(b"-"))
        permissions = fields[1]
        major, minor = (int(number, 16) for number in fields[3].split(b":"))
        position, inode = int(fields[2], 16), int(fields[4])
    except (IndexError, ValueError):
        raise BadInput("not a line of /proc/PID/maps", file=file, offset=offset) from None
    if not 0 <= start < end <= _MAX_ADDRESS or position < 0 or inode < 0 or len(permissions) != len("rwxp"):
        raise BadInput("a mapping with an impossible range, offset, inode or mode", file=file, offset=offset)
    path = _path(fields[5]) if len(fields) > len(fields[:5]) else ""
    deleted = path.endswith(_DELETED)
    return Mapping(
        start,
        end,
        readable=permissions[0:1] == b"r",
        writable=permissions[1:2] == b"w",
        executable=permissions[2:3] == b"x",
        offset=position,
        path=path.removesuffix(_DELETED),
        device=(major, minor),
        inode=inode,
        shared=permissions[3:4] == b"s",
        deleted=deleted,
    )


def _path(field: bytes) -> str:
    return field.replace(b"\\012", b"\n").decode("utf-8", "surrogateescape")

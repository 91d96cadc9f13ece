"""The kernel's own symbol table as it stands in its memory: found by its content alone, in the layouts of Linux 5.x to 7.x.

Source: scripts/kallsyms.c and kernel/kallsyms.c of the Linux sources. A name is a row of bytes, each of which stands for a token of the
token table; the table is recognised by its tokens for the digits, which are always themselves. What was found is checked against itself:
the token index, every marker, and the address that the table gives for itself.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from unspool.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SYMBOLS = 2_000_000
MAX_NAME = 1024
"""The longest name in bytes; Linux allows 511 (KSYM_NAME_LEN)."""
MAX_TEXT = 64 << 20
"""All names together in bytes."""
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS = 256
_GROUP = 256
# Bytes of names that one marker spans: 256 names of at least 2 bytes, at most a length of 2 bytes and MAX_NAME tokens each.
_MIN_STEP, _MAX_STEP = _GROUP * 2, _GROUP * (MAX_NAME + 2)
_CANDIDATES = 8
# Tables of characters in UTF-16 (fs/unicode, fs/nls) look the same at this place, and stand before the right one.
_MAX_DIGITS = 1024
# How far before the token table the markers are looked for: right before it, then with more and more of kallsyms_seqs_of_names between.
_WINDOWS = (64 << 10, 1 << 20, 8 << 20)
_BLOCK = 8192
_KEPT_NAMES = 4096
_FILE = "kallsyms"


class KernelSymbols:
    """Every symbol of a kernel by address and by name; what /proc/kallsyms shows of vmlinux."""

    def __init__(self, addresses: bytes, text: bytes, starts: bytes) -> None:
        """Take sorted u64 addresses; the names as "Tname" lines; and the u32 offset of each line in that text."""
        self._addresses = array("Q", addresses)
        self._text = text
        self._starts = array("I", starts)
        self._known: dict[str, int | None] = {}

    @classmethod
    def of(cls, rows: list[tuple[int, str, str]]) -> KernelSymbols:
        """The symbols from (address, type letter, name) rows in any order; rows of one address keep theirs."""
        ordered = sorted(rows, key=lambda row: row[0])
        lines = [f"{kind[:1]}{name}\n".encode(errors="surrogateescape") for _, kind, name in ordered]
        starts, at = array("I"), 0
        for line in lines:
            starts.append(at)
            at += len(line)
        return cls(array("Q", [row[0] for row in ordered]).tobytes(), b"".join(lines), starts.tobytes())

    def __len__(self) -> int:
        """How many symbols there are."""
        return len(self._addresses)

    @property
    def size(self) -> int:
        """The bytes of memory that the table takes, about."""
        return 12 * len(self._addresses) + len(self._text)

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        """Address, type letter and name of every symbol, by address."""
        for index, address in enumerate(self._addresses):
            line = self._line(index)
            yield address, line[:1], line[1:]

    def find(self, address: int) -> tuple[str, int] | None:
        """Name and start of the symbol that `address` lies in, None below the first. Of aliases the first, as in the kernel's traces."""
        index = self._index(address)
        return None if index is None else (self._line(index)[1:], self._addresses[index])

    def extent(self, address: int) -> tuple[int, int] | None:
        """Start of the symbol that `address` lies in and of the next one, None below the first and in the last."""
        index = self._index(address)
        if index is None:
            return None
        after = bisect_right(self._addresses, address)
        return None if after == len(self._addresses) else (self._addresses[index], self._addresses[after])

    def address(self, name: str) -> int | None:
        """The address of the first symbol of that name; it is searched for once."""
        if name not in self._known:
            if len(self._known) >= _KEPT_NAMES:
                self._known.clear()
            self._known[name] = self._search(name)
        return self._known[name]

    def _search(self, name: str) -> int | None:
        wanted, at = name.encode(errors="surrogateescape") + b"\n", 0
        while (at := self._text.find(wanted, at)) >= 0:
            index = bisect_right(self._starts, at) - 1
            if index >= 0 and self._starts[index] == at - 1:
                return self._addresses[index]
            at += len(wanted)
        return None

    def _index(self, address: int) -> int | None:
        index = bisect_right(self._addresses, address) - 1
        return None if index < 0 else bisect_left(self._addresses, self._addresses[index])

    def _line(self, index: int) -> str:
        start = self._starts[index]
        return self._text[start : self._text.index(b"\n", start)].decode("utf-8", "replace")


def read_tables(image: bytes, start: int) -> KernelSymbols:
    """The symbols of a kernel whose image (from `start` on, an address that is a multiple of 8) is given; BadInput when there are none."""
    at, why = 0, BadInput("no token table", file=_FILE)
    budget = _Budget()
    for _ in range(_MAX_DIGITS):
        at = image.find(_DIGITS, at)
        if at < 0:
            break
        table = _token_table(image, at)
        if table is not None:
            try:
                return _read_at(image, start, table, budget)
            except BadInput as error:
                why = error
        at += len(_DIGITS)
    raise why


class _TokenTable(NamedTuple):
    """The tokens, where their table starts, and where the token index after it ends (offsets in the image)."""

    tokens: list[bytes]
    start: int
    end: int


class _Names(NamedTuple):
    """The compressed names: where the count of symbols stands, where each name's length byte does, and where the last name ends."""

    count_at: int
    places: NDArray[np.uint32]
    end: int


@dataclass(slots=True)
class _Budget:
    """How much may still be tried: bytes made to look like many tables must not keep their reader busy."""

    names: int = 4 * MAX_SYMBOLS
    tables: int = 4

    def walked(self, names: int) -> None:
        """So many names were passed over."""
        self.names -= names
        if self.names < 0:
            raise BadInput("too many tables that lead nowhere", file=_FILE)

    def written_out(self) -> None:
        """A whole table was written out."""
        self.tables -= 1
        if self.tables < 0:
            raise BadInput("too many tables that contradict themselves", file=_FILE)


def _read_at(image: bytes, start: int, table: _TokenTable, budget: _Budget) -> KernelSymbols:
    for names in _names(image, table.start, budget):
        budget.written_out()
        text, starts = _expand(image, names, table)
        for addresses in _addresses(image, start, names, table):
            symbols = KernelSymbols(addresses.tobytes(), text, starts.tobytes())
            if _is_consistent(symbols, start, len(image), start + table.start):
                return symbols
    raise BadInput("a token table without its names or addresses", file=_FILE, offset=table.start)


def _token_table(image: bytes, digits: int) -> _TokenTable | None:
    """The table whose tokens for the digits are at `digits`, None when no index that agrees with it stands behind it."""
    end = digits
    for _ in range(_TOKENS - ord("0")):
        end = image.find(b"\0", end, end + MAX_NAME) + 1
        if end == 0:
            return None
    for at in range(end, end + 8):
        content = image[at : at + 2 * _TOKENS]
        if len(content) < 2 * _TOKENS:
            break
        index = array("H", content)
        if index[0] != 0 or index[ord("0")] > digits:
            continue
        first = digits - index[ord("0")]
        tokens = image[first:end].split(b"\0")[:-1]
        if len(tokens) == _TOKENS and list(index) == _offsets(tokens):
            return _TokenTable(tokens, first, at + 2 * _TOKENS)
    return None


def _offsets(tokens: list[bytes]) -> list[int]:
    places, at = [], 0
    for token in tokens:
        places.append(at & 0xFFFF)
        at += len(token) + 1
    return places


def _names(image: bytes, table: int, budget: _Budget) -> Iterator[_Names]:
    """Every reading of the bytes before the token table as names with their markers; a whole kernel has one."""
    import numpy as np

    # Before the token table stand the markers; in some kernels from 6.1 to 6.3 with 3 bytes a symbol between (kallsyms_seqs_of_names).
    for window in _WINDOWS:
        low = max(0, table - window) & ~3
        words = np.frombuffer(image, dtype="<u4", count=(table - low) // 4, offset=low)
        steps = words[1:] - words[:-1]
        good = (steps >= _MIN_STEP) & (steps <= _MAX_STEP)
        firsts = np.flatnonzero((words[:-1] == 0) & good)
        stops = np.append(np.flatnonzero(~good), len(good))
        lengths = stops[np.searchsorted(stops, firsts)] - firsts + 1
        for which in np.argsort(-lengths, kind="stable")[:_CANDIDATES].tolist():
            first, length = int(firsts[which]), int(lengths[which])
            yield from _counted(image, low + first * 4, words[first : first + length].tolist(), budget)


def _counted(image: bytes, markers_at: int, markers: list[int], budget: _Budget) -> Iterator[_Names]:
    """The names before the markers: they follow their count, and each 256th stands where its marker says."""
    import numpy as np

    last = markers[-1]
    high, low = markers_at - last, max(0, markers_at - last - _MAX_STEP - 16) & ~3
    if high <= low:
        return
    counts = np.frombuffer(image, dtype="<u4", count=(high - low) // 4, offset=low)
    # What follows the markers may look like one more of them.
    fitting = (counts > _GROUP * (len(markers) - 3)) & (counts <= min(_GROUP * len(markers), MAX_SYMBOLS))
    for which in np.flatnonzero(fitting).tolist()[: _CANDIDATES * 8]:
        at, count = low + 4 * which, int(counts[which])
        for names_at in (at + 8, at + 4):
            places = _walk(image, range(names_at, markers_at), count, markers, budget)
            if places is not None:
                starts = np.array(places, dtype=np.uint32)
                yield _Names(at, starts[:-1], int(starts[-1]))


def _walk(image: bytes, area: range, count: int, markers: list[int], budget: _Budget) -> list[int] | None:
    """Where each of `count` names begins and the last one ends, None when they do not lead from marker to marker and fill the area."""
    places: list[int] = []
    at = area.start
    try:
        for marker in markers[: -(-count // _GROUP)]:
            if at != area.start + marker:
                return None
            budget.walked(_GROUP)
            for _ in range(min(_GROUP, count - len(places))):
                places.append(at)
                length = image[at]
                if length & 0x80:
                    # Linux 6.1 on: a name of more than 127 tokens has a length of two bytes.
                    length = (length & 0x7F | image[at + 1] << 7) + 1
                elif not length:
                    return None
                at += length + 1
    except IndexError:
        return None
    places.append(at)
    return places if len(places) == count + 1 and 0 <= area.stop - at < 8 else None


def _expand(image: bytes, names: _Names, table: _TokenTable) -> tuple[bytes, NDArray[np.uint32]]:
    """All names written out, a line each, and the offset of each line."""
    import numpy as np

    texts, lines, done = [], [], 0
    places = np.append(names.places, np.uint32(names.end))
    pool = _Pool.of(table.tokens)
    for first in range(0, len(places) - 1, _BLOCK):
        text, starts = pool.expand(image, places[first : first + _BLOCK + 1])
        lines.append(starts + np.uint32(done))
        texts.append(text)
        done += len(text)
        if done > MAX_TEXT:
            raise BadInput("names that are too long together", file=_FILE, offset=table.start)
    return b"".join(texts), np.concatenate(lines)


class _Pool(NamedTuple):
    """The tokens one after the other, where each starts and how long it is; token 256 ends a line, 257 is nothing."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, tokens: list[bytes]) -> _Pool:
        """The pool of a token table."""
        import numpy as np

        every = [*tokens, b"\n", b""]
        sizes = np.array([len(token) for token in every], dtype=np.int64)
        return cls(np.frombuffer(b"".join(every), dtype=np.uint8), np.cumsum(sizes) - sizes, sizes)

    def expand(self, image: bytes, places: NDArray[np.uint32]) -> tuple[bytes, NDArray[np.uint32]]:
        """Some names as lines, and the offset of each; `places` are their length bytes and the end of the last."""
        import numpy as np

        first, last = int(places[0]), int(places[-1])
        codes = np.frombuffer(image, dtype=np.uint8, offset=first, count=last - first).astype(np.uint16)
        heads = (places[:-1] - np.uint32(first)).astype(np.int64)
        # The length byte becomes the end of the line before; the second byte of a length becomes nothing.
        codes[heads[codes[heads] >= 0x80] + 1] = _TOKENS + 1
        codes[heads] = _TOKENS
        lengths = self.sizes[codes]
        ends = np.cumsum(lengths)
        starts = ends[heads]
        sizes = np.diff(starts, append=ends[-1] + 1)
        if int(sizes.max()) > MAX_NAME + 2 or int(sizes.min()) < 3:
            raise BadInput("a name that is empty or too long", file=_FILE, offset=first)
        # Each byte of the result: its token's place in the pool, and how far into the token it is.
        source = np.repeat((self.offsets[codes] - (ends - lengths)).astype(np.int32), lengths) + np.arange(int(ends[-1]), dtype=np.int32)
        text = self.data[source].tobytes()[1:] + b"\n"
        if text.count(b"\n") != len(heads):
            raise BadInput("a name with a line's end in it", file=_FILE, offset=first)
        return text, (starts - 1).astype(np.uint32)


def _addresses(image: bytes, start: int, names: _Names, table: _TokenTable) -> Iterator[NDArray[np.uint64]]:
    """Every reading of the bytes around as addresses: offsets before the count (to 6.3) or behind the token index (6.4 on)."""
    import numpy as np

    count = len(names.places)
    size = 4 * count
    old_base = names.count_at - 8
    behind8, behind4 = -(-table.end // 8) * 8, -(-table.end // 4) * 4
    places = ((old_base - -(-size // 8) * 8, old_base), (behind8, behind8 + -(-size // 8) * 8), (behind4, None))
    for at, base_at in places:
        if at < 0 or at + size > len(image):
            continue
        offsets = np.frombuffer(image, dtype="<i4", count=count, offset=at)
        if base_at is None:
            # Linux 7.x: each offset is relative to its own place.
            own = np.arange(count, dtype=np.int64) * 4 + offsets
            yield own.astype(np.uint64) + np.uint64(start + at)
            continue
        base = int.from_bytes(image[base_at : base_at + 8], "little")
        if not start <= base <= start + len(image):
            continue
        # CONFIG_KALLSYMS_ABSOLUTE_PERCPU (to 6.14): offsets from 0 up are per-CPU addresses, the others count down from base - 1.
        wide = offsets.astype(np.int64)
        yield np.where(wide >= 0, wide.astype(np.uint64), (-1 - wide).astype(np.uint64) + np.uint64(base))
        yield offsets.view("<u4").astype(np.uint64) + np.uint64(base)


def _is_consistent(symbols: KernelSymbols, start: int, size: int, table: int) -> bool:
    """Whether the addresses are in order, and the symbols that can be checked are where they must be."""
    import numpy as np

    addresses = np.frombuffer(symbols._addresses, dtype=np.uint64)  # noqa: SLF001 - the same module
    if (addresses[1:] < addresses[:-1]).any():
        return False
    stated = symbols.address("kallsyms_token_table")
    if stated is not None:
        return stated == table
    text = symbols.address("_stext") or symbols.address("_text")
    return text is not None and start <= text < start + size

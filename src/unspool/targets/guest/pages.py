"""Memory that is read page by page, and kept until it is to be forgotten because the guest has run since."""

from __future__ import annotations

from typing import ClassVar

from unspool.formats.paging import PAGE

_KEPT_PAGES = 2048


class PagedMemory:
    """A `model.memory.Memory` whose pages a subclass reads (`_read_page`); those that could not be read are remembered as well."""

    longest: ClassVar[int] = 16 << 20
    """Bytes of one read at most."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._pages: dict[int, bytes | None] = {}

    def forget(self) -> None:
        """Drop every page that was read."""
        self._pages.clear()

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at the address, None when any of them cannot be read or there are more than `longest`."""
        inside = address & PAGE - 1
        if 0 <= size <= PAGE - inside:
            page = self._page(address - inside)
            return None if page is None else page[inside : inside + size]
        return self._read_long(address, size) if 0 <= size <= self.longest else None

    def _read_long(self, address: int, size: int) -> bytes | None:
        """What lies in more than one page."""
        inside = address & PAGE - 1
        parts = []
        for start in range(address - inside, address + size, PAGE):
            page = self._page(start)
            if page is None:
                return None
            parts.append(page)
        return b"".join(parts)[inside : inside + size]

    def _page(self, address: int) -> bytes | None:
        try:
            return self._pages[address]
        except KeyError:
            pass
        if len(self._pages) >= _KEPT_PAGES:
            self._pages.clear()
        self._pages[address] = page = self._read_page(address)
        return page

    def _read_page(self, address: int) -> bytes | None:
        """The page that begins at the address, None when it cannot be read."""
        raise NotImplementedError

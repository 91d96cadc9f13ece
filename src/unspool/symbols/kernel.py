"""Names of kernel addresses, from /proc/kallsyms of the running kernel."""

from __future__ import annotations

from pathlib import Path

from unspool.errors import BadInput
from unspool.formats.kallsyms import Kallsyms
from unspool.model.symbol import Named, Symbol
from unspool.symbols.reasons import Reason


class KernelNames:
    """A `NameTable` of kernel functions by address; a module's function is shown as "name [module]". Read at the first question."""

    def __init__(self, path: Path = Path("/proc/kallsyms")) -> None:
        """Say where the text is."""
        self._path = path
        self._symbols: Kallsyms | None = None
        self._failure = ""

    def name(self, address: int) -> Named:
        """The function at a kernel address."""
        if self._symbols is None and not self._failure:
            self._read()
        if self._symbols is None or self._symbols.hidden:
            return Reason.KERNEL_HIDDEN.because(self._failure)
        found = self._symbols.find(address)
        if found is None:
            return Reason.NO_KERNEL_SYMBOL.because()
        function = f"{found.name} [{found.module}]" if found.module else found.name
        return (Symbol(function, address - found.address),)

    def _read(self) -> None:
        try:
            self._symbols = Kallsyms(self._path.read_bytes(), file=str(self._path))
        except (OSError, BadInput) as error:
            self._failure = str(error)

"""What runs in the decoder's process: finds the guest's kernel in its memory, and turns registers into a stack of named places.

Everything here reads bytes that the guest chose. An exception that escapes ends the process, which is counted, and never the recorder's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

from unspool.capture.guest_process import Handler
from unspool.capture.guest_stacks import GuestStacks
from unspool.capture.guest_wire import MAX_TASKS, MAX_TEXT, stack_to_wire, state_of, task_to_wire
from unspool.errors import BadInput
from unspool.formats.paging import PageTables
from unspool.model.memory import Memory
from unspool.model.verdict import Trust
from unspool.targets.guest.kernel import GuestKernel, Unreadable, discover, preload
from unspool.targets.guest.kernel_cache import KernelCache
from unspool.targets.guest.kernel_files import KernelFile
from unspool.targets.guest.kernel_image import Placement, place
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.tasks import Task

_LOST = {"failed": "the guest runs another kernel now, or is being started anew", "lost": True}
_NOT_STARTED = {"failed": "the vCPU is not in long mode"}
_WARM_TASKS = 64
_UNKNOWN: dict[str, object] = {"failed": "no kernel was found yet", "lost": True}


def preparation(
    extents: Sequence[Extent], symbols: bytes | None = None, method: Trust = Trust.ORC
) -> Callable[[Memory, list[int]], Handler]:
    """What `guest_process.Decoder` runs first: memory is read from the descriptor it was given (RAM by these extents), or by its parent.

    `symbols` are the bytes of a file with the kernel's names, for a kernel that has none in its memory; `method` finds the kernel's frames.
    """

    def prepare(asked: Memory, descriptors: list[int]) -> Handler:
        preload()
        # Cycles are rare here, and the collector's pauses would be the guest's: it runs between samples (`refresh`).
        gc.disable()
        physical = Ram.of_file(descriptors[0], extents) if descriptors else asked
        return GuestDecoder(physical, symbols, method)

    return prepare


class GuestDecoder:
    """The handler of the decoder's requests; each is a method of the same name."""

    def __init__(self, physical: Memory, symbols: bytes | None = None, method: Trust = Trust.ORC) -> None:
        """No kernel is known yet; `symbols` and `method` as in `preparation`."""
        self._physical = physical
        self._symbols = symbols
        self._method = method
        self._cache = KernelCache()
        self._kernel: GuestKernel | None = None
        self._last: GuestKernel | None = None
        self._placement: Placement | None = None
        self._stacks: GuestStacks | None = None
        self._tasks: dict[int, Task] = {}
        self._operations: dict[object, Callable[[dict[str, Any]], object]] = {
            "discover": self._discover,
            "sample": self._sample,
            "warm": self._warm,
            "names": self._names,
            "refresh": self._refresh,
            "file": self._file,
            "tasks": self._list_tasks,
            "task": self._task,
        }

    def __call__(self, request: dict[str, Any]) -> object:
        """The answer to a request."""
        return self._operations[request["op"]](request)

    def _discover(self, request: dict[str, Any]) -> object:
        state = state_of(request["state"])
        self._kernel = self._stacks = None
        placement = place(self._physical, state)
        if isinstance(placement, Unreadable):
            return {"failed": placement.reason}
        kernel = discover(self._physical, state, cache=self._cache)
        if isinstance(kernel, Unreadable) and self._symbols is not None:
            kernel = self._by_file(state, self._symbols)
        if isinstance(kernel, Unreadable):
            return {"failed": kernel.reason}
        same_boot = self._last is not None and _is_continued(self._last, kernel)
        self._kernel = self._last = kernel
        self._placement = placement
        self._stacks = GuestStacks(kernel, self._method)
        return {
            "release": kernel.release,
            "version": kernel.version[:1024],
            "build_id": kernel.build_id,
            "base": kernel.base,
            "symbols": len(kernel.symbols),
            "same_boot": same_boot,
            "missing": " ".join(kernel.missing)[:MAX_TEXT],
        }

    def _by_file(self, state: VcpuState, symbols: bytes) -> GuestKernel | Unreadable:
        try:
            return discover(self._physical, state, cache=self._cache, given=KernelFile.of(symbols))
        except BadInput as error:
            return Unreadable(f"{error}. {error.hint}".rstrip())

    def _sample(self, request: dict[str, Any]) -> object:
        state = state_of(request["state"])
        if self._kernel is None or self._stacks is None:
            return _UNKNOWN
        if not state.long_mode:
            # The processor waits to be started, or was reset: whether the kernel is gone shows when it runs again.
            return _NOT_STARTED
        self._stacks.forget()
        if not self._is_same(state, self._kernel):
            return _LOST
        return stack_to_wire(self._stacks.of_vcpu(state, request["vcpu"]))

    def _warm(self, request: dict[str, Any]) -> object:
        """Do once what the first sample would have to do: read the tables of every module, and walk what is there."""
        state = state_of(request["state"])
        if self._kernel is not None and self._stacks is not None:
            for module in self._kernel.modules:
                self._kernel.orc(module.start)
            tasks = self._stacks.all_tasks(_WARM_TASKS)
            for task in tasks.values():
                self._stacks.of_task(task, stopped=False)
            self._stacks.of_vcpu(state, 0)
            self._stacks.forget_modules()
            # What was made until now stays: the collector of garbage need not look at it, least of all during a hold.
            gc.collect()
            gc.freeze()
        return {}

    def _is_same(self, state: VcpuState, kernel: GuestKernel) -> bool:
        """Whether the vCPU still runs the kernel that was found.

        After a reset the old kernel's bytes are still in memory: so the vCPU's own page tables must lead to it, too.
        """
        placement = self._placement
        if placement is None:
            return False
        wanted = placement.physical(kernel.base)
        # With page table isolation the table of user mode is the page behind the kernel's (arch/x86/include/asm/pgtable.h).
        for root in {state.root, state.root & ~0x1000}:
            found = PageTables(self._physical, root, state.levels).translate(kernel.base)
            if found is not None and found.pa == wanted:
                return kernel.same_boot()
        return False

    def _names(self, request: dict[str, Any]) -> object:
        kernel = self._kernel
        found = [None if kernel is None else kernel.symbol(address) for address in request["addresses"]]
        pairs = zip(request["addresses"], found, strict=True)
        return {"names": [None if symbol is None else [symbol.name[:512], address - symbol.address] for address, symbol in pairs]}

    def _refresh(self, _: dict[str, Any]) -> object:
        if self._kernel is not None and self._stacks is not None:
            self._stacks.forget()
            if self._kernel.refresh():
                self._stacks.code_changed()
        gc.collect(1)
        return {}

    def _file(self, request: dict[str, Any]) -> bytes | None:
        return None if self._stacks is None else self._stacks.file_bytes(request["module"], request["offset"], request["size"])

    def _list_tasks(self, _: dict[str, Any]) -> object:
        if self._stacks is None or self._kernel is None:
            return _UNKNOWN
        self._stacks.forget()
        self._tasks = self._stacks.all_tasks(MAX_TASKS)
        return {"tasks": [task_to_wire(self._stacks.described(task)) for task in self._tasks.values()]}

    def _task(self, request: dict[str, Any]) -> object:
        task = self._tasks.get(request["pid"])
        if self._stacks is None or self._kernel is None or task is None:
            return {"failed": "there is no such task"}
        stack = self._stacks.of_task(task, stopped=request["stopped"])
        return {"failed": "it runs on a CPU, or has no stack any more"} if stack is None else stack_to_wire(stack)


def _is_continued(before: GuestKernel, now: GuestKernel) -> bool:
    """Whether a kernel that was lost and one that was found are the same, in the same boot."""
    if (before.base, before.build_id) != (now.base, now.build_id):
        return False
    before.forget()
    return before.same_boot()

"""Which SFrame sections describe a process's code: registered, forked, removed and dropped as the kernel series does it.

The rules are those of the series "unwind_user/sframe" (sframe_add_section, sframe_remove_section, sframe_find): a section and the text
it describes are registered together, texts never overlap, a section that turns out to be corrupt is dropped and remembered by name.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, replace

from unspool.model.memory import Memory
from unspool.model.module import AddressSpace
from unspool.unwind.sframe_section import Errno, Found, Refused, RegisteredSection


@dataclass(frozen=True, slots=True)
class Dropped:
    """A section that was refused or dropped: the file it came from, where it was, and the rule it breaks."""

    file: str
    start: int
    reason: str


class SFrameRegistry:
    """The registered sections of one address space.

    `space` lets registration check that the section is mapped and the text executable; without it (a file, a test) that is not checked.
    `validate`: walk the whole section at registration, as a kernel with CONFIG_SFRAME_VALIDATION does.
    """

    def __init__(self, memory: Memory, space: AddressSpace | None = None, *, validate: bool = False) -> None:
        """Start without sections."""
        self.memory = memory
        self.space = space
        self.validate = validate
        self.dropped: list[Dropped] = []
        self._sections: dict[int, RegisteredSection] = {}
        self._starts: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """How many sections are registered."""
        return len(self._sections)

    def add(self, sframe: range, text: range, *, file: str = "") -> RegisteredSection | Refused:
        """Register the section in `sframe` for the code in `text` (ranges of Avmas). Refused with EINVAL, EFAULT or EEXIST."""
        problem = self._check_ranges(sframe, text)
        if problem is not None:
            return problem
        section = RegisteredSection.open(self.memory, sframe, text, file=file)
        problem = section if isinstance(section, Refused) else section.validate() if self.validate else None
        if problem is not None or isinstance(section, Refused):
            assert problem is not None
            if problem.corrupt:
                self.dropped.append(Dropped(file, sframe.start, problem.reason))
            return problem
        self._insert(section)
        return section

    def remove(self, sframe_start: int) -> Refused | None:
        """Unregister the section that starts at the address; EINVAL when none does."""
        section = self._sections.pop(sframe_start, None)
        if section is None:
            return Refused(Errno.EINVAL, f"no section is registered at {sframe_start:#x}")
        self._starts.remove((section.text_start, sframe_start))
        return None

    def fork(self, memory: Memory, space: AddressSpace | None = None) -> SFrameRegistry:
        """The child's copy: the same sections, read from the child's memory; what either does later does not concern the other."""
        child = SFrameRegistry(memory, space, validate=self.validate)
        child.dropped = list(self.dropped)
        for section in self._sections.values():
            child._insert(replace(section, memory=memory))
        return child

    def section_at(self, pc: int) -> RegisteredSection | None:
        """The section whose text holds the address."""
        index = bisect_right(self._starts, (pc, 1 << 64)) - 1
        if index < 0:
            return None
        section = self._sections[self._starts[index][1]]
        return section if pc < section.text_end else None

    def find(self, pc: int) -> Found | Refused:
        """The rule at the address. Every failure is ENOENT ("try the next method") here; a corrupt section is dropped by it."""
        section = self.section_at(pc)
        if section is None:
            return Refused(Errno.ENOENT, f"no section covers {pc:#x}")
        found = section.find(pc)
        if isinstance(found, Found):
            return found
        if found.corrupt:
            self.remove(section.start)
            self.dropped.append(Dropped(section.file, section.start, found.reason))
        return Refused(Errno.ENOENT, found.reason, corrupt=found.corrupt)

    def _insert(self, section: RegisteredSection) -> None:
        self._sections[section.start] = section
        insort(self._starts, (section.text_start, section.start))

    def _check_ranges(self, sframe: range, text: range) -> Refused | None:
        if not all((sframe.start, sframe.stop, text.start, text.stop)) or not sframe or not text:
            return Refused(Errno.EINVAL, "an address is 0, or a range is empty")
        if self.space is not None:
            mapping = self.space.find(sframe.start)
            if mapping is None or sframe.stop > mapping.end:
                return Refused(Errno.EINVAL, f"one mapping must hold the section at {sframe.start:#x}")
            mapping = self.space.find(text.start)
            if mapping is None or not mapping.executable or text.stop > mapping.end:
                return Refused(Errno.EINVAL, f"one executable mapping must hold the text at {text.start:#x}")
        if any(s.text_start < text.stop and text.start < s.text_end for s in self._sections.values()):
            return Refused(Errno.EEXIST, f"the text at {text.start:#x} overlaps a registered one")
        if sframe.start in self._sections:
            return Refused(Errno.EEXIST, f"a section is registered at {sframe.start:#x}")
        return None

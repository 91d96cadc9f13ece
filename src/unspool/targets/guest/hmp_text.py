"""What QEMU's human monitor prints (`info registers`, `info mtree -f`, `gpa2hva`), read defensively. QEMU 7.2 to 10.0."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.targets.guest.registers import VcpuState

_LONGEST = 8 << 20
_MOST_REGIONS = 4096
_TOP = 1 << 64
# `RAX=...`, `R8 =...`; in 32-bit code `EAX=...`. `CS =0010 0000000000000000 ffffffff 00af9b00 ...`: selector, base, limit, flags.
_WORD = re.compile(r"\b([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{1,16})(?![0-9a-f])")
_SEGMENT = re.compile(r"^(CS|FS|GS|TR) ?=([0-9a-f]{1,4}) ([0-9a-f]{1,16}) ", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)= +([0-9a-f]{1,16}) ", re.MULTILINE)
_GENERAL = ("AX", "DX", "CX", "BX", "SI", "DI", "BP", "SP")
_VIEW = ' AS "memory", root: system'
_REGION = re.compile(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d{1,10}, ([\w/-]{1,20})\): (.{0,256}?)(?: @([0-9a-f]{16}))?(?: KVM)?$")
_HVA = re.compile(r"Host virtual address for \S+ \(.*\) is (0x[0-9a-f]{1,16})\s*$")


@dataclass(frozen=True, slots=True)
class Region:
    """One range of guest-physical addresses as `info mtree -f` shows it: `kind` is `ram`, `rom`, `i/o`; `offset` lies in block `name`."""

    start: int
    size: int
    kind: str
    name: str
    offset: int


def words(text: str) -> dict[str, int]:
    """The registers of one vCPU by their names (RAX, CR3, EFER, CPL, HLT, ...; CS, FS_BASE, GS_BASE, TR_BASE, GDT, IDT)."""
    text = text[:_LONGEST]
    found = {match[1]: int(match[2], 16) for match in _WORD.finditer(text)}
    for name, selector, base in _SEGMENT.findall(text):
        found[name], found[f"{name}_BASE"] = int(selector, 16), int(base, 16)
    for name, base in _TABLE.findall(text):
        found[name] = int(base, 16)
    return found


def vcpu_state(text: str, *, snapshot: bool) -> VcpuState:
    """The state in what `info registers` prints of one vCPU; BadInput when a register that is needed is not there."""
    found = words(text)
    try:
        wide = "R" if "RIP" in found else "E"
        general = {number: found[wide + name] for number, name in enumerate(_GENERAL)}
        general |= {number: found[f"R{number}"] for number in range(8, 16) if f"R{number}" in found}
        return VcpuState(
            registers=Registers(X86_64, found[f"{wide}IP"], general, found["FS_BASE"]),
            cr0=found["CR0"],
            cr3=found["CR3"],
            cr4=found["CR4"],
            efer=found["EFER"],
            cs=found["CS"],
            cpl=found["CPL"] & 3,
            rflags=found.get("RFL", found.get("EFL", 0)),
            fs_base=found["FS_BASE"],
            gs_base=found["GS_BASE"],
            kernel_gs_base=None,
            halted=bool(found.get("HLT")),
            snapshot=snapshot,
        )
    except KeyError as error:
        raise BadInput(f"the monitor prints no register {error}") from None


def system_memory(text: str) -> list[Region]:
    """The regions of the machine's memory by address, from `info mtree -f`; BadInput when it shows none."""
    regions: list[Region] = []
    inside = False
    for line in text[:_LONGEST].splitlines():
        if line.startswith("FlatView"):
            if regions:
                break
            inside = False
        elif line.startswith(_VIEW):
            inside = True
        elif inside and (match := _REGION.match(line)) and len(regions) < _MOST_REGIONS:
            start, end = int(match[1], 16), int(match[2], 16) + 1
            if start < end:
                regions.append(Region(start, end - start, match[3], match[4], int(match[5] or "0", 16)))
    if not regions:
        raise BadInput("`info mtree -f` shows no system memory")
    return sorted(regions, key=lambda region: region.start)


def host_address(text: str) -> int:
    """The VMM's address that `gpa2hva` prints; BadInput when it prints none."""
    match = _HVA.search(text[:_LONGEST])
    if match is None:
        raise BadInput("`gpa2hva` prints no address")
    return int(match[1], 16)

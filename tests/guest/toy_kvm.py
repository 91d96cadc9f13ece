"""A virtual machine in a page of Python over /dev/kvm: long mode, kernel-half addresses, three nested calls; no firmware, no kernel.

Its vCPU 0 spins in the innermost function and counts; further vCPUs wait in HLT with `--halted-from`, else they spin too. Each runs in a
thread of this process, as in any VMM. Run it as a program: it prints `ready` and the address of its memory, and runs until it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import sys
import threading

RAM_BYTES = 32 << 20
BASE = 0xFFFF_FFFF_8000_0000
CODE, STACKS, COUNTER = 0x10000, 0x20000, 0x18000
START, F1, F2, F3 = 0x00, 0x40, 0x80, 0xC0
ROOT = 0x1000
STACK_BYTES = 0x1000

# include/uapi/linux/kvm.h
_CREATE_VM, _CREATE_VCPU, _CREATE_IRQCHIP, _RUN_SIZE, _RUN = 0xAE01, 0xAE41, 0xAE60, 0xAE04, 0xAE80
_SET_MEMORY, _GET_SREGS, _SET_SREGS, _SET_REGS = 0x4020AE46, 0x8138AE83, 0x4138AE84, 0x4090AE82
_EXIT_INTR, _EXIT_HLT = 10, 5
_PRESENT_WRITABLE, _LARGE = 3, 0x80


def call(at: int, target: int) -> bytes:
    """A near call."""
    return b"\xe8" + struct.pack("<i", target - (at + 5))


def code(*, halts: bool) -> bytes:
    """_start calls f1, f1 calls f2, f2 calls f3 (each with a frame pointer); f3 counts for ever, or halts."""
    image = bytearray(0x100)
    enter = b"\x55\x48\x89\xe5"  # push rbp; mov rbp, rsp
    count = b"\x48\xff\x05" + struct.pack("<i", COUNTER - (CODE + F3 + 4 + 7)) + b"\xeb\xf7"  # again: inc qword [counter]; jmp again
    parts = {
        START: call(START, F1) + b"\xf4",
        F1: enter + call(F1 + 4, F2) + b"\x5d\xc3",
        F2: enter + call(F2 + 4, F3) + b"\x5d\xc3",
        F3: enter + (b"\xf4\xeb\xfd" if halts else count),
    }
    for offset, data in parts.items():
        image[offset : offset + len(data)] = data
    return bytes(image)


def page_tables() -> dict[int, bytes]:
    """4-level tables that show the first 4 MiB at 0 and at BASE, in 2 MiB pages."""
    middle, last = ROOT + 0x1000, ROOT + 0x2000

    def entries(**at: int) -> bytes:
        table = bytearray(0x1000)
        for index, value in at.items():
            struct.pack_into("<Q", table, 8 * int(index[1:]), value)
        return bytes(table)

    return {
        ROOT: entries(_0=middle | _PRESENT_WRITABLE, _511=middle | _PRESENT_WRITABLE),
        middle: entries(_0=last | _PRESENT_WRITABLE, _510=last | _PRESENT_WRITABLE),
        last: entries(_0=_LARGE | _PRESENT_WRITABLE, _1=0x200000 | _LARGE | _PRESENT_WRITABLE),
    }


class Toy:
    """The machine: `vcpus` of them, memory in a memfd; those from `halted_from` on wait in HLT."""

    def __init__(self, vcpus: int, halted_from: int) -> None:
        """Build it."""
        self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.kvm, _CREATE_VM, 0)
        if halted_from < vcpus:
            # With KVM's own interrupt controller a vCPU that halts waits inside the kernel.
            fcntl.ioctl(self.vm, _CREATE_IRQCHIP, 0)
        memfd = os.memfd_create("toy-ram")
        os.ftruncate(memfd, RAM_BYTES)
        self.ram = mmap.mmap(memfd, RAM_BYTES, mmap.MAP_SHARED)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        fcntl.ioctl(self.vm, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, 0, RAM_BYTES, self.address))
        for start, data in page_tables().items():
            self.ram[start : start + len(data)] = data
        self.ram[CODE : CODE + 0x100] = code(halts=False)
        self.ram[CODE + 0x100 : CODE + 0x200] = code(halts=True)
        self.vcpus = [self._vcpu(number, halts=number >= halted_from) for number in range(vcpus)]

    def _vcpu(self, number: int, *, halts: bool) -> int:
        vcpu = fcntl.ioctl(self.vm, _CREATE_VCPU, number)
        sregs = bytearray(312)
        fcntl.ioctl(vcpu, _GET_SREGS, sregs)

        def segment(index: int, selector: int, kind: int, *, is_code: bool) -> None:
            # struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable.
            struct.pack_into("<QIH8B", sregs, 24 * index, 0, 0xFFFFFFFF, selector, kind, 1, 0, not is_code, 1, is_code, 1, 0)

        segment(0, 8, 11, is_code=True)
        for index in range(1, 6):
            segment(index, 16, 3, is_code=False)
        for offset, value in {224: 0x80050033, 240: ROOT, 248: 0x20, 264: 0x500}.items():  # cr0, cr3, cr4, efer
            struct.pack_into("<Q", sregs, offset, value)
        fcntl.ioctl(vcpu, _SET_SREGS, bytes(sregs))
        stack = BASE + STACKS + (number + 1) * STACK_BYTES
        entry = BASE + CODE + (0x100 if halts else 0) + START
        fcntl.ioctl(vcpu, _SET_REGS, struct.pack("<18Q", 0, 0, 0, 0, 0, 0, stack, *[0] * 9, entry, 2))
        return vcpu

    def run(self, vcpu: int) -> None:
        """Run one vCPU as a VMM does: again and again, until something happens that a toy does not know."""
        page = mmap.mmap(vcpu, fcntl.ioctl(self.kvm, _RUN_SIZE, 0))
        while True:
            with contextlib.suppress(InterruptedError, BlockingIOError):
                fcntl.ioctl(vcpu, _RUN, 0)
            (reason,) = struct.unpack_from("<I", page, 8)
            if reason not in {0, _EXIT_INTR, _EXIT_HLT}:
                print("exit", reason, bytes(page[32:64]).hex(), flush=True)
                os._exit(1)


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--halted-from", type=int, default=1 << 30)
    arguments = parser.parse_args()
    toy = Toy(arguments.vcpus, arguments.halted_from)
    for vcpu in toy.vcpus:
        threading.Thread(target=toy.run, args=(vcpu,), daemon=True).start()
    print(f"ready {toy.address:#x}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

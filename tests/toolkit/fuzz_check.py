"""Damaged SFrame sections in any number: `fuzz_check.py COUNT`. Each is read or refused, with findings; else the status is 1."""

from __future__ import annotations

import random
import sys

from unspool.formats.sframe import Abi, Base, FdeType, encode
from unspool.formats.sframe.encode import function, row
from unspool.toolkit.check import check_data

AT = 0x1000


def sections() -> list[bytes]:
    """Sound sections of three machines: default, flexible, signal and outermost rows."""
    plain = [row(0, (8,), base=Base.SP), row(1, (16, -16), base=Base.SP), row(4, (16, -16))]
    x86 = [
        function(0x2000, 64, plain),
        function(0x2040, 700, [row(0, (8,), base=Base.SP), row(300, (70000,), base=Base.SP)]),
        function(0x2400, 40, [row(0, (0x51, 0, 0, 0x33, 0), fde_type=FdeType.FLEX), row(9, ())], fde_type=FdeType.FLEX),
        function(0x2430, 9, [], signal=True),
    ]
    other = [function(0x2000, 64, [row(0, (0,), base=Base.SP), row(4, (2, -8, -16), base=Base.SP)])]
    return [encode(x86, Abi.AMD64_LITTLE, AT), encode(other, Abi.AARCH64_LITTLE, AT), encode(other, Abi.S390X_BIG, AT)]


def main() -> int:
    """Damage and check."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    numbers = random.Random(count)
    originals = sections()
    refused = 0
    for _ in range(count):
        data = bytearray(numbers.choice(originals))
        for _ in range(numbers.randint(1, 8)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        if numbers.random() < 0.1:
            del data[numbers.randrange(len(data)) :]
        found, findings = check_data(bytes(data), AT)
        if data and not found and not findings:
            print(f"no answer for {bytes(data).hex()}")
            return 1
        refused += not found
    print(f"{count} damaged sections: {refused} refused, {count - refused} read and checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())

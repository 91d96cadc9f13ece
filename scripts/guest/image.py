"""The initramfs of a test guest: busybox, the virtio modules, and an init that offers a root shell on the second serial port.

    image.py FOLDER OUTPUT [GUESTPATH=FILE ...]

FOLDER is what fetch.sh made. The archive is the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import gzip
import lzma
import stat
import sys
from pathlib import Path

APPLETS = (
    *(
        "sh",
        "mount",
        "cat",
        "dd",
        "find",
        "sha256sum",
        "sleep",
        "ps",
        "ls",
        "mkdir",
        "echo",
        "setsid",
        "poweroff",
        "reboot",
        "date",
        "grep",
    ),
    *(
        "head",
        "wc",
        "taskset",
        "seq",
        "kill",
        "usleep",
        "insmod",
        "sync",
        "pidof",
        "killall",
        "tr",
        "stty",
        "mkfifo",
        "uname",
        "awk",
        "sed",
    ),
)

# In dependency order; the cloud kernel of 6.1 wants virtio_ring before virtio, later ones the other way round: so all are tried twice.
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")

INIT = f"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
echo 1 > /proc/sys/kernel/sysrq
echo 0 > /proc/sys/kernel/kptr_restrict
for turn in 1 2; do for m in {" ".join(MODULES)}; do [ -f /$m.ko ] && insmod /$m.ko 2>/dev/null; done; done
mkfifo /tmp/fifo
cat /tmp/fifo &
sleep 100000 &
stty -F /dev/ttyS1 raw -echo
# Line by line, because a shell whose input is a terminal prompts and echoes; each by a shell of its own, which an error may end.
setsid sh -c 'echo GUEST-READY >/dev/console
while :; do while read -r line; do sh -c "$line" </dev/null; done; echo SHELL-INPUT-ENDED >/dev/console; sleep 1; done' \
  </dev/ttyS1 >/dev/ttyS1 2>&1 &
while :; do sleep 1000; done
"""


class Archive:
    """A newc cpio archive in the making."""

    def __init__(self) -> None:
        """Nothing is in it yet."""
        self._parts: list[bytes] = []
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """Append a file; `device` is (major, minor) of a node."""
        self._inode += 1
        path = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def finished(self) -> bytes:
        """The archive with its trailer."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def build(folder: Path, extra: dict[str, Path]) -> bytes:
    """The compressed initramfs; `extra` are further files by their path in the guest."""
    archive = Archive()
    for name in (".", "bin", "dev", "proc", "sys", "tmp", "etc", "root"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, (folder / "busybox").read_bytes())
    for applet in APPLETS:
        archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    for module in MODULES:
        for file in folder.glob(f"modules/{module}.ko*"):
            data = file.read_bytes()
            archive.add(f"{module}.ko", stat.S_IFREG | 0o644, lzma.decompress(data) if file.suffix == ".xz" else data)
    made = {".", "bin"}
    for name, file in extra.items():
        for parent in [str(folder) for folder in reversed(Path(name.lstrip("/")).parents) if str(folder) not in made]:
            archive.add(parent, stat.S_IFDIR | 0o755)
            made.add(parent)
        archive.add(name.lstrip("/"), stat.S_IFREG | 0o755, file.read_bytes())
    return gzip.compress(archive.finished(), 6, mtime=0)


def main() -> None:
    """Write the archive."""
    folder, output, *words = sys.argv[1:]
    pairs = (word.split("=", 1) for word in words)
    Path(output).write_bytes(build(Path(folder), {name: Path(file) for name, file in pairs}))


if __name__ == "__main__":
    main()

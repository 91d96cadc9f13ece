"""What the kernel tells of a process's sockets (proc_net(5)): whether a control socket of a machine serves another client already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from unspool.targets import procfs

_LISTEN, _ESTABLISHED = "0A", "01"  # include/net/tcp_states.h
_CONNECTED = "03"  # include/uapi/linux/net.h: SS_CONNECTED


def busy(pid: int, path: str, port: int) -> bool:
    """Whether the process's socket of that path, or that TCP port, has a client. False when it cannot be told."""
    with suppress(OSError):
        inodes = set(_connected_unix(pid, path) if path else _tcp(pid, port, _ESTABLISHED))
        return bool(inodes) and any(link in inodes for _, link in descriptors(pid))
    return False


def listens(pid: int, port: int) -> bool:
    """Whether the process holds a TCP socket that listens on that port, in our network namespace."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            inodes = set(_tcp(pid, port, _LISTEN))
            return any(link in inodes for _, link in descriptors(pid))
    return False


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """The process's descriptors and what they lead to (the links of /proc/PID/fd); none when they are not ours to see."""
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError, ValueError):
                yield int(entry.name), str(Path(entry.path).readlink())


def _connected_unix(pid: int, path: str) -> Iterator[str]:
    """An accepted socket shows the path of the one that listens, as its owner wrote it."""
    for line in procfs.read_file(f"/proc/{pid}/net/unix").split(b"\n")[1:]:
        # Num: RefCount Protocol Flags Type St Inode Path
        fields = line.split(None, 7)
        if len(fields) > 7 and fields[5] == _CONNECTED.encode() and fields[7] == os.fsencode(path):
            yield f"socket:[{fields[6].decode()}]"


def _tcp(pid: int, port: int, state: str) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in procfs.read_file(f"/proc/{pid}/net/{name}").splitlines()[1:]:
                # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
                fields = line.decode("ascii", "replace").split()
                if len(fields) > 9 and fields[3] == state and fields[1].rpartition(":")[2] == f"{port:04X}":
                    yield f"socket:[{fields[9]}]"

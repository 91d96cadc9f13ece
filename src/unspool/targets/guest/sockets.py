"""What the kernel tells of a process's sockets (proc_net(5)): whether a control socket of a machine serves another client already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from unspool.targets import procfs

_LISTEN, _ESTABLISHED = "0A", "01"  # include/net/tcp_states.h
_CONNECTED = "03"  # include/uapi/linux/net.h: SS_CONNECTED
_ACCEPTS = "00010000"  # the same: __SO_ACCEPTCON


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


def listening_paths(pid: int) -> list[str]:
    """The paths of the Unix sockets on which the process listens, as it wrote them."""
    with suppress(OSError):
        paths = {inode: path for inode, flags, _, path in _unix(pid) if flags == _ACCEPTS}
        return sorted(paths[link] for _, link in descriptors(pid) if link in paths)
    return []


def _connected_unix(pid: int, path: str) -> Iterator[str]:
    """An accepted socket shows the path of the one that listens, as its owner wrote it."""
    return (inode for inode, _, state, found in _unix(pid) if state == _CONNECTED and found == path)


def _unix(pid: int) -> Iterator[tuple[str, str, str, str]]:
    """The link, flags, state and path of each named Unix socket in the process's network namespace."""
    for line in procfs.read_file(f"/proc/{pid}/net/unix").split(b"\n")[1:]:
        # Num: RefCount Protocol Flags Type St Inode Path
        fields = line.split(None, 7)
        if len(fields) > 7:
            yield f"socket:[{fields[6].decode()}]", fields[3].decode(), fields[5].decode(), os.fsdecode(fields[7])


def _tcp(pid: int, port: int, state: str) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in procfs.read_file(f"/proc/{pid}/net/{name}").splitlines()[1:]:
                # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
                fields = line.decode("ascii", "replace").split()
                if len(fields) > 9 and fields[3] == state and fields[1].rpartition(":")[2] == f"{port:04X}":
                    yield f"socket:[{fields[9]}]"

"""QEMU's command line, as far as it says what machine runs and where its control sockets are (qemu(1)). It is text of that process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.layout import Block, Plan

_MOST = 10_000
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,18})([bkmgt]?)", re.IGNORECASE)
_DEFAULT_RAM = 128 << 20
_ENCRYPTED = frozenset({"sev-guest", "sev-snp-guest", "tdx-guest"})
_ENCRYPTION = ("confidential-guest-support", "memory-encryption")


@dataclass(frozen=True, slots=True)
class QemuOptions:
    """What the options say: `plan` of the memory, `vcpus` at the start."""

    name: str
    uuid: str
    plan: Plan
    vcpus: int
    qmp: Endpoint | None
    gdb: Endpoint | None
    qmp_inherited: bool
    """The QMP socket was handed over by the starter (libvirt does so) and is served to it alone."""
    encrypted: str
    wants_kvm: bool


def is_qemu(program: str) -> bool:
    """Whether a program's file name is QEMU's.

    >>> is_qemu("qemu-system-x86_64"), is_qemu("qemu-img")
    (True, False)
    """
    return program.startswith("qemu-system-") or program in {"qemu-kvm", "kvm", "qemu"}


def is_x86(program: str) -> bool:
    """Whether that QEMU emulates an x86 machine; a program without a machine in its name is the distribution's for KVM."""
    return program.startswith(("qemu-system-x86", "qemu-system-i386")) or not program.startswith("qemu-system-")


def parse(arguments: Sequence[str], pid: int | None = None) -> QemuOptions:
    """The options of a command line without its first word; whatever is malformed is left out."""
    pairs = list(_pairs(arguments[:_MOST]))
    name = uuid = machine = encrypted = ""
    ram, vcpus, low_limit = _DEFAULT_RAM, 1, None
    for option, value in pairs:
        words, named = _split(value)
        if option == "name":
            name = named.get("guest") or words or name
        elif option == "uuid":
            uuid = value
        elif option in {"machine", "M"}:
            machine = named.get("type") or words or machine
            low_limit = _bytes(named.get("max-ram-below-4g", "")) or low_limit
            encrypted = encrypted or next((word for word in _ENCRYPTION if named.get(word)), "")
        elif option == "m":
            ram = _bytes(named.get("size") or words) or ram
        elif option == "smp":
            vcpus = _number(named.get("cpus") or words) or vcpus
        elif option == "object" and (kind := _object(value).get("qom-type", "")) in _ENCRYPTED:
            encrypted = kind
    qmp, inherited = _qmp(pairs, pid)
    kvm = any(_wants_kvm(option, value) for option, value in pairs)
    plan = Plan(machine, _blocks(pairs, ram, machine), low_limit)
    return QemuOptions(name, uuid, plan, vcpus, qmp, _gdb(pairs, pid), inherited, encrypted, kvm)


def _object(value: str) -> dict[str, str]:
    """An object's properties, its type as "qom-type"; also in JSON, as libvirt writes it."""
    if not value.startswith("{"):
        words, named = _split(value)
        return {"qom-type": words} | named
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return {key: str(word) for key, word in found.items()}


def _blocks(pairs: Sequence[tuple[str, str]], ram: int, machine: str) -> tuple[Block, ...]:
    """The blocks of the machine's memory: one for each NUMA node that has a backend (qemu(1), -numa), else one."""
    backends = {found["id"]: found for option, value in pairs if option == "object" for found in [_object(value)] if "id" in found}
    nodes: dict[int, str] = {}
    whole = ""
    for option, value in pairs:
        words, named = _split(value)
        if option == "numa" and words == "node":
            number = named.get("nodeid", "")
            nodes[_number(number) if number else len(nodes)] = named.get("memdev", "")
        elif option in {"machine", "M"}:
            whole = named.get("memory-backend", whole)
    names = [nodes[number] for number in sorted(nodes) if nodes[number]]
    sizes = [_bytes(backends.get(name, {}).get("size", ""), plain=1) for name in names]
    if names and all(sizes):
        return tuple(map(Block, names, sizes))
    return (Block(whole or ("microvm.ram" if machine == "microvm" else "pc.ram"), ram),)


def _wants_kvm(option: str, value: str) -> bool:
    words, named = _split(value)
    if option in {"machine", "M", "accel"}:
        return (named.get("accel") or (words if option == "accel" else "")).partition(":")[0] == "kvm"
    return option == "enable-kvm"


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option (one minus sign or two mean the same) and its value, "" when there is none."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        index += 1
        if word.startswith("-"):
            value = ""
            if index < len(arguments) and not arguments[index].startswith("-"):
                value = arguments[index]
                index += 1
            yield word.lstrip("-"), value


def _split(value: str) -> tuple[str, dict[str, str]]:
    """The first word without a name, and the named ones; a comma that belongs to a value is written twice."""
    parts = value.replace(",,", "\0").split(",")
    named: dict[str, str] = {}
    for part in parts:
        key, equals, rest = part.partition("=")
        if equals:
            named.setdefault(key, rest.replace("\0", ","))
    first = parts[0].replace("\0", ",")
    return ("" if "=" in parts[0] else first), named


def _qmp(pairs: Sequence[tuple[str, str]], pid: int | None) -> tuple[Endpoint | None, bool]:
    """Where QMP is served, and whether some QMP is served on an inherited descriptor."""
    devices = {
        named["id"]: (words, named) for option, value in pairs if option == "chardev" for words, named in [_split(value)] if "id" in named
    }
    inherited = False
    for option, value in pairs:
        words, named = _split(value)
        if option in {"qmp", "qmp-pretty"}:
            if endpoint := _address(value, pid):
                return endpoint, False
            chardev = value.partition("chardev:")[2]
        elif option == "mon" and named.get("mode") == "control":
            chardev = named.get("chardev") or words
        else:
            continue
        kind, device = devices.get(chardev, ("", {}))
        if kind == "socket" and device.get("server", "on") in {"on", "yes", ""}:
            inherited = inherited or "fd" in device
            if endpoint := _chardev_address(device, pid):
                return endpoint, False
    return None, inherited


def _chardev_address(device: dict[str, str], pid: int | None) -> Endpoint | None:
    if device.get("path"):
        return Endpoint(path=device["path"], pid=pid)
    port = _number(device.get("port", ""))
    return Endpoint(port=port, pid=pid) if port and _is_local(device.get("host", "")) else None


def _gdb(pairs: Sequence[tuple[str, str]], pid: int | None) -> Endpoint | None:
    for option, value in pairs:
        if option == "s":
            return Endpoint(port=1234, pid=pid)
        if option == "gdb":
            return _address(value, pid)
    return None


def _address(value: str, pid: int | None) -> Endpoint | None:
    """`unix:PATH,server=on` or `tcp:HOST:PORT,...` (a gdb option may leave out the host); None when it is neither or of another host."""
    kind, _, rest = value.replace(",,", "\0").partition(",")[0].replace("\0", ",").partition(":")
    if kind == "unix" and rest:
        return Endpoint(path=rest, pid=pid)
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        if _number(port) and _is_local(host):
            return Endpoint(port=_number(port), pid=pid)
    return None


def _is_local(host: str) -> bool:
    return host in {"", "localhost", "127.0.0.1", "0.0.0.0", "::", "[::]"}  # noqa: S104 nothing is bound here


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0


def _bytes(text: str, plain: int = _UNITS["m"]) -> int:
    """A size; one without a unit is a number of `plain` bytes: MiB in `-m`, bytes in an object."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * (_UNITS[match[2].lower()] if match[2] else plain) if match else 0


def program_name(path: str) -> str:
    """The file's name of a program's path as /proc/PID/exe shows it.

    >>> program_name("/usr/bin/qemu-system-x86_64 (deleted)")
    'qemu-system-x86_64'
    """
    return PurePosixPath(path.removesuffix(" (deleted)")).name

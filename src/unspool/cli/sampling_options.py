"""The options of every command that takes samples: which processes, how often, how long; and what their values mean."""

from __future__ import annotations

import argparse

FREQUENCY = 99
FREQUENCY_MAX = 50_000
"""Samples a second and CPU; the kernel's own limit is kernel.perf_event_max_sample_rate."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Options = argparse.ArgumentParser | argparse._ArgumentGroup  # noqa: SLF001 (argparse has no public name for what takes options)
"""A parser, or a group of its options."""


def add_pid(options: Options) -> None:
    """-p: `pid`, a list."""
    options.add_argument(
        "-p", "--pid", type=numbers, action="extend", default=[], metavar="PID[,PID]", help="these processes and their children"
    )


def add_everything(options: Options, text: str = "every process of the machine") -> None:
    """-a: `everything`, a bool; `text` is its help."""
    options.add_argument("-a", "--all", "--all-cpus", action="store_true", dest="everything", help=text)


def add_frequency(options: Options, text: str = f"samples a second and CPU (default {FREQUENCY})") -> None:
    """-F: `frequency` in samples a second; `text` is its help."""
    options.add_argument("-F", "--freq", "-r", "--rate", type=frequency, default=FREQUENCY, dest="frequency", metavar="HZ", help=text)


def add_duration(options: Options, text: str = "end after that long (default: no end)") -> None:
    """-d: `duration` in seconds, or None; `text` is its help."""
    options.add_argument("-d", "--duration", type=seconds, metavar="TIME", help=text)


def numbers(text: str) -> list[int]:
    """A list of ids, as argparse takes it.

    >>> numbers("12,34")
    [12, 34]
    """
    return [_positive(word) for word in text.split(",")]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is no number of a process or thread"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def frequency(text: str) -> int:
    """Samples a second, as argparse takes it.

    >>> frequency("1k")
    1000
    """
    digits, factor = (text[:-1], 1000) if text.lower().endswith("k") else (text, 1)
    value = int(digits) * factor if digits.isdecimal() else 0
    if not 0 < value <= FREQUENCY_MAX:
        message = f"{text!r} is no rate from 1 to {FREQUENCY_MAX} samples a second"
        raise argparse.ArgumentTypeError(message)
    return value


def seconds(text: str) -> float:
    """A time span, as argparse takes it.

    >>> seconds("500ms"), seconds("2m")
    (0.5, 120.0)
    """
    # "ms" is asked for before "m" and "s", because the table begins with it.
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    try:
        value = float(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        message = f"{text!r} is no time span: 10, 10s, 500ms, 2m"
        raise argparse.ArgumentTypeError(message)
    return value

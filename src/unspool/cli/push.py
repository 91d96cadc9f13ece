"""Send a recording, or what runs now, to an OpenTelemetry collector (OTLP profiles over HTTP).

Messages are tried again when the collector is away or busy. Every sample is accounted for: when one did not arrive, the numbers
and reasons are printed and the exit status is 1. The profiles signal of OTLP is in development: the path is /v1development/profiles.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.cli.guest_options import add_guest_arguments, guest_plan
from unspool.cli.output import say
from unspool.cli.printable import printable
from unspool.cli.record import Screen
from unspool.cli.sampling_options import add_duration, add_everything, add_frequency, add_pid, seconds
from unspool.errors import BadRequest

if TYPE_CHECKING:
    from unspool.session.otlp_sender import Delivery, Sender

EXAMPLES = """examples:
  unspool push --otlp http://localhost:4318 host.unspool      a recording
  unspool push --otlp http://localhost:4318 -a                the whole machine, every ten seconds, until Ctrl-C
  unspool push --otlp https://otlp.example.com -p 1234 -d 1h  one process for an hour
  unspool push --otlp http://localhost:4318 --guest web       a virtual machine, without an agent in it

A header with a key is best given in the environment, where other users do not see it:
  OTEL_EXPORTER_OTLP_HEADERS='Authorization=Bearer%20KEY' unspool push --otlp https://otlp.example.com host.unspool
"""

INTERVAL = 10.0
RETRY = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a recording")
    parser.add_argument("--otlp", required=True, metavar="URL", help="the collector, such as http://localhost:4318")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="goes with every request; also OTEL_EXPORTER_OTLP_HEADERS"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates (PEM) to trust instead of the machine's")
    parser.add_argument("--retry", type=seconds, default=RETRY, metavar="TIME", help="how long a message is tried (default 5m)")
    live = parser.add_argument_group("instead of a file, what runs now")
    add_everything(live)
    add_pid(live)
    add_frequency(live, "samples a second and CPU")
    add_duration(live)
    add_guest_arguments(parser, several=True)
    live.add_argument("--interval", type=seconds, default=INTERVAL, metavar="TIME", help="send that often (default 10s)")


def run(arguments: argparse.Namespace) -> int:
    """Send; 0 when every sample arrived, else 1."""
    from unspool.session.otlp_http import Collector, headers_of
    from unspool.session.otlp_sender import Sender

    live = bool(arguments.everything or arguments.pid or arguments.guest)
    if live == (arguments.file is not None):
        raise BadRequest("push takes either a recording, or -a, -p or --guest", hint="`unspool push --help` shows examples.")
    headers = headers_of(arguments.header, os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    collector = Collector(arguments.otlp, headers, ca=arguments.ca)
    say(f"sending to {printable(collector.address.shown)}")
    if collector.address.exposed:
        say("note: http:// is not encrypted; names of your programs and any --header can be read on the way")
    sender = Sender(collector, patience=arguments.retry, tell=say)
    return push_live(arguments, sender) if live else push_file(arguments, sender)


def push_file(arguments: argparse.Namespace, sender: Sender) -> int:
    """Send a recording."""
    from unspool.session.push import push_recording

    screen = Screen()
    try:
        push_recording(arguments.file, sender, show=lambda done, total: screen.line(f"{done:,} of {total:,} samples"))
    except BaseException:
        screen.clear()
        if sender.delivery.samples:
            say("ended before everything was sent")
            tell(sender)
        raise
    screen.clear()
    tell(sender)
    return 1 if sender.delivery.dropped else 0


def push_live(arguments: argparse.Namespace, sender: Sender) -> int:
    """Send what runs now, until Ctrl-C, the end of the processes, or the time."""
    from unspool.capture.command import open_process
    from unspool.capture.ending import Ending
    from unspool.session.push_live import Pushing, push_live
    from unspool.session.recording import Plan

    plan = Plan(
        Path(os.devnull),
        pids=tuple(arguments.pid),
        everything=arguments.everything,
        frequency=arguments.frequency,
        guests=guest_plan(arguments),
    )
    screen = Screen()

    def show(state: Pushing) -> None:
        screen.line(f"{state.samples:,} samples, {state.kernel_lost:,} lost, {state.waiting} messages wait to be sent")

    watched = [open_process(pid) for pid in plan.pids] if not plan.everything else []
    try:
        with Ending(seconds=arguments.duration, processes=watched) as ending:
            state = push_live(plan, sender, arguments.interval, ending, show)
    except BaseException:
        screen.clear()
        if sender.delivery.samples:
            tell(sender)
        raise
    screen.clear()
    tell(sender)
    for name, why in state.refused_guests:
        say(f"  guest {printable(name)} could not be sampled: {printable(why)}")
    if state.kernel_lost:
        say(f"  {state.kernel_lost:,} samples were lost before they could be sent; the messages say so (unspool.lost)")
    return 1 if sender.delivery.dropped else 0


def summary(delivery: Delivery) -> Iterator[str]:
    """What became of the samples, line by line."""
    again = f", {delivery.again:,} of them sent again" if delivery.again else ""
    effort = f"{delivery.requests:,} requests{again}, {delivery.bytes / 1e6:,.1f} MB"
    yield f"{delivery.taken:,} of {delivery.samples:,} samples arrived ({effort})"
    for remark, times in delivery.remarks.items():
        yield f"  {printable(remark)} ({times:,} times)"
    for reason, samples in delivery.reasons.most_common():
        yield f"  {samples:,} did not arrive: {printable(reason)}"


def tell(sender: Sender) -> None:
    """Print what became of the samples."""
    for line in summary(sender.delivery):
        say(line)

"""The watchdog's own process (see `watchdog`): a script that imports nothing of ours, so that it starts quickly and cannot fail with us.

Usage: watchdog_child.py PIPE SOCKET SECONDS RESUME OBEYED...: the descriptors, the longest hold, what to send, and what must come back, one
after the other (in hexadecimal digits). Whatever else was still on its way to us comes before.
"""

import contextlib
import os
import select
import sys
import time

PATIENCE = 60.0


def main(pipe: int, connection: int, seconds: float, resume: bytes, obeyed: list[bytes]) -> None:
    """Watch until the pipe ends; speak only when the machine is held then, or held too long."""
    held = False
    while True:
        ready, _, _ = select.select([pipe], [], [], seconds if held else None)
        if not ready:
            break
        said = os.read(pipe, 4096)
        if not said:
            break
        held = said.endswith(b"H")
    # The parent sees by this that it must not speak any more.
    os.close(pipe)
    if held:
        with contextlib.suppress(OSError):
            let_run(connection, resume, obeyed)


def let_run(connection: int, resume: bytes, obeyed: list[bytes]) -> None:
    """Send it, and stay until the answers are there."""
    os.set_blocking(connection, False)
    os.write(connection, resume)
    answer = b""
    deadline = time.monotonic() + PATIENCE
    while obeyed:
        _, found, rest = answer.partition(obeyed[0])
        if found:
            answer, obeyed = rest, obeyed[1:]
            continue
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([connection], [], [], left)[0]:
            return
        part = os.read(connection, 65536)
        if not part:
            return
        answer = answer[-100:] + part


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), bytes.fromhex(sys.argv[4]), [bytes.fromhex(mark) for mark in sys.argv[5:]])

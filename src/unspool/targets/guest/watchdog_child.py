"""The watchdog's own process (see `watchdog`): a script that imports nothing of ours, so that it starts quickly and cannot fail with us.

Usage: watchdog_child.py PIPE SOCKET SECONDS HEX: the two descriptors, the longest hold, and what to send.
"""

import contextlib
import os
import select
import sys


def main(pipe: int, connection: int, seconds: float, resume: bytes) -> None:
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
    if held:
        with contextlib.suppress(OSError):
            os.write(connection, resume)
        # The answer must be taken before the connection is closed, or the kernel may drop what we sent.
        with contextlib.suppress(OSError):
            if select.select([connection], [], [], seconds)[0]:
                os.read(connection, 65536)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), bytes.fromhex(sys.argv[4]))
